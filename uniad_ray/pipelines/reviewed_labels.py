"""What reviewers' marks say of the images of a run, in the place of the labels that the images came with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.pipelines.marks import Mark, read_marks
from uniad_ray.pipelines.run_reader import RunReader
from uniad_ray.report.wording import count

NO_MARKS: Final[Mapping[str, Mark]] = MappingProxyType({})


def marks_of(readers: Iterable[RunReader]) -> dict[str, Mark]:
    """The marks on the images of an archive that one or more runs have scored, by row key.

    What an image is does not depend on the run that a reviewer looked at: of marks in several runs the latest counts.

    Raises:
        ArchiveError: A file of marks is damaged.
        StoreError: The store cannot be read.
    """
    found: dict[str, Mark] = {}
    for reader in readers:
        for key, mark in read_marks(reader.location).items():
            if key not in found or found[key].marked_at < mark.marked_at:
                found[key] = mark
    return found


def with_reviewed_labels(table: pa.Table, marks: Mapping[str, Mark]) -> pa.Table:
    """Sets the label of each marked row to what its mark says.

    Defect kind and anomaly type stay where the image stays anomalous; a normal image has none.

    Args:
        table: Rows with `row_key` and `label`, and `defect_kind` and `anomaly_type` or neither.
        marks: Marks by row key.
    """
    wanted = pa.array(list(marks), pa.string())
    marked = pc.is_in(table.column("row_key").combine_chunks(), value_set=wanted)
    keys = table.column("row_key").filter(marked).to_pylist()
    if not keys:
        return table
    labels = [marks[key].label for key in keys]
    for name in ("label", "defect_kind", "anomaly_type"):
        if name not in table.column_names:
            continue
        before = table.column(name).combine_chunks()
        kept = before.filter(marked).to_pylist()
        said = (
            labels
            if name == "label"
            else [value if label == "anomalous" else None for value, label in zip(kept, labels, strict=True)]
        )
        after = pc.replace_with_mask(before, marked, pa.array(said, pa.string()))
        table = table.set_column(table.column_names.index(name), table.schema.field(name), after)
    return table


def mark_notes(used: Counter[str], unused: int) -> Iterator[str]:
    """What a reader of figures must know of the marks behind them.

    Args:
        used: Images that have their label from a mark, by kind of mark.
        unused: Marks on images that the figures are not of.
    """
    if total := used.total():
        misses = used["miss"]
        parts = [
            count(used["false_alarm"], "false alarm") if used["false_alarm"] else "",
            f"{misses:,} miss" if misses == 1 else f"{misses:,} misses" if misses else "",
            count(used["confirmed"], "confirmed decision") if used["confirmed"] else "",
        ]
        are = "image is" if total == 1 else "images are"
        yield f"{total:,} {are} labelled by reviewers' marks ({', '.join(part for part in parts if part)})"
    if unused:
        yield f"{count(unused, 'mark')} on images outside the evaluated splits, not used"

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Perception
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.text.descriptions import describe_segments
from uniad_ray.sidecars.encoding import Stage, Value, check_stage, decode_row, empty_row, encode_rows, stage_of

HEAD = {"row_key": "k", "status": "ok", "error_kind": None, "error": None}


def perception(fields: dict[str, list[Value]]) -> Perception:
    """A batch of the given values, one per image."""
    count = len(next(iter(fields.values())))
    images = np.zeros((count, 4, 4, 3), dtype=np.uint8)
    stacked = {
        name: torch.stack(values) if isinstance(values[0], torch.Tensor) else values for name, values in fields.items()
    }
    return Perception([str(index) for index in range(count)], images).extended(stacked)  # type: ignore[arg-type]


def through_parquet(stage: Stage, batch: Perception) -> list[dict[str, Value]]:
    """Round trip of the rows through a table of the schema of the stage."""
    schema = dataset_schema(f"{stage[:-1]}_sidecar")
    rows = [HEAD | row for row in encode_rows(stage, batch)]
    table = schema.table({name: [row[name] for row in rows] for name in schema.arrow.names})
    return [decode_row(stage, row) for row in table.to_pylist()]


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    return (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


tensors = npst.arrays(
    st.sampled_from([np.dtype(np.float32), np.dtype(np.uint8)]), npst.array_shapes(min_dims=3, max_dims=3, max_side=4)
)


@given(tensors)
def test_tensors_round_trip_exactly(values: np.ndarray) -> None:
    (found,) = through_parquet("features", perception({"net/level1": [torch.from_numpy(values)]}))
    tensor = found["net/level1"]
    assert isinstance(tensor, torch.Tensor)
    assert tensor.is_contiguous()
    assert same_bits(tensor.numpy(), values)


masks = npst.arrays(bool, st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 7)))


@given(masks, st.booleans())
def test_segments_round_trip_exactly(values: np.ndarray, named: bool) -> None:
    segments = Segments.of(values, np.linspace(0.1, 0.9, len(values)))
    # Ids differ from positions, as after dropping segments.
    segments = segments.select(np.arange(len(segments)) > 0)
    if named:
        segments = segments.named([f"part-{number}" for number in range(len(segments))])
    vectors = np.full((len(segments), 3), 1 / 3, dtype=np.float32)
    (found,) = through_parquet("segments", perception({"sam/segments": [segments], "clip/vectors": [vectors]}))
    restored = found["sam/segments"]
    assert isinstance(restored, Segments)
    assert (restored.size, restored.names) == (segments.size, segments.names)
    for name, array in segments.arrays().items():
        assert same_bits(restored.arrays()[name], array), name
    assert isinstance(found["clip/vectors"], np.ndarray)
    assert same_bits(found["clip/vectors"], vectors)


def test_texts_round_trip_with_parsed_classes() -> None:
    mask = np.zeros((2, 6, 6), dtype=bool)
    mask[0, :2, :2] = mask[1, 4:, 4:] = True
    text = str(describe_segments(Segments.of(mask).named(["nut", "bolt"]), 0.0))
    batch = perception({"objects/text": [text, ""], "caption/text": ["Two parts.", "No parts: none"]})
    first, second = encode_rows("descriptions", batch)
    assert first["descriptions"][1] == {
        "field": "objects/text",
        "text": text,
        "classes": [
            {"name": "bolt", "count": 1, "positions": [["bottom right"]], "size": 11.11},
            {"name": "nut", "count": 1, "positions": [["top left"]], "size": 11.11},
        ],
        "missing": None,
    }
    assert [entry["classes"] for entry in second["descriptions"]] == [None, []]
    assert through_parquet("descriptions", batch) == [
        {"caption/text": "Two parts.", "objects/text": text},
        {"caption/text": "No parts: none", "objects/text": ""},
    ]


def test_stage_follows_from_field_name() -> None:
    names = ("sam/segments", "clip/vectors", "objects/text", "pyramid/level2", "text_embedding/embedding")
    assert [stage_of(name) for name in names] == ["segments", "segments", "descriptions", "features", "features"]
    with pytest.raises(ConfigError, match=r"field 'net/text' does not hold descriptions, as its name says"):
        encode_rows("descriptions", perception({"net/text": [torch.zeros(1, 1, 1)]}))


def test_unknown_stage_is_refused() -> None:
    assert check_stage("features") == "features"
    with pytest.raises(ConfigError, match="no stage 'feature'; there are features, segments, captions, descriptions"):
        check_stage("feature")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "object"}, "has the dtype 'object'"),
        ({"shape": [1, 2, 3]}, "cannot reshape"),
        ({"data": b"123"}, "buffer size must be a multiple"),
    ],
)
def test_inconsistent_parts_are_refused(change: dict[str, object], message: str) -> None:
    (row,) = encode_rows("features", perception({"net/level1": [torch.zeros(1, 1, 1)]}))
    row["fields"][0].update(change)
    with pytest.raises(ValueError, match=message):
        decode_row("features", row)


@pytest.mark.parametrize("stage", ["features", "segments", "descriptions"])
def test_image_without_fields_has_empty_columns(stage: Stage) -> None:
    assert decode_row(stage, empty_row(stage)) == {}

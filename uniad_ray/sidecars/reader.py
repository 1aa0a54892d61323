"""Read the stored fields of a finished sidecar whose fingerprints match the needed ones."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import read_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError, ObjectNotFoundError, SidecarError
from uniad_ray.perception.base import Fields
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.fitting.perceptions import NormalImage
from uniad_ray.sidecars.encoding import Stage, Value, decode_row
from uniad_ray.sidecars.fingerprints import feature_fingerprints
from uniad_ray.sidecars.plan import (
    FILES_NAME,
    SidecarFile,
    SidecarPlan,
    file_path,
    read_sidecar,
    stage_schema,
)

_logger = logging.getLogger(__name__)


class Sidecar:
    """A finished sidecar, checked against its archive."""

    def __init__(self, root: Location, plan: SidecarPlan, files: Iterable[SidecarFile]) -> None:
        """Take the parts of a sidecar; `open_sidecar` reads them."""
        self._root = root
        self._plan = plan
        self._files = {(file.stage, file.chunk): file for file in files}

    def fields(self, category: str, digests: Mapping[str, str], chunks: Mapping[str, str]) -> SidecarFields:
        """Return the stored fields of images of one category.

        Args:
            category: Category.
            digests: Digests of the needed fields; see `feature_fingerprints`.
            chunks: Name of the chunk of each image, by row key.
        """
        planned = self._plan.categories.get(category)
        return SidecarFields(self._root, planned.fields if planned else {}, digests, chunks, self._files)

    def note_missing(self, categories: Iterable[str]) -> None:
        """Log the categories that are not in the sidecar."""
        missing = sorted(set(categories) - set(self._plan.categories))
        if missing:
            _logger.info("%s: no stored fields for %s; computing them", self._root, ", ".join(missing))


def open_sidecar(sidecar: str, archive_digest: str) -> Sidecar:
    """Open a finished sidecar.

    Args:
        sidecar: Root of the sidecar.
        archive_digest: Required digest of the archive.

    Raises:
        SidecarError: There is no sidecar, it is unfinished or corrupt, or it belongs to another archive.
    """
    root = Location.parse(sidecar)
    manifest = read_sidecar(root)
    if manifest.plan.archive_digest != archive_digest:
        raise SidecarError(
            f"{root}: made from an archive with digest {manifest.plan.archive_digest[:12]}, not "
            f"{archive_digest[:12]}; precompute this archive, or omit --sidecar"
        )
    location = root / FILES_NAME
    try:
        sha256 = hashlib.sha256(location.read_bytes()).hexdigest()
        rows = read_table(dataset_schema("sidecar_file"), location).to_pylist()
    except (ArchiveError, ObjectNotFoundError) as error:
        raise SidecarError(f"{location}: missing or corrupt; precompute again with another --out") from error
    if sha256 != manifest.files_sha256:
        raise SidecarError(f"{location}: checksum mismatch: the file is corrupt; precompute again with another --out")
    return Sidecar(root, manifest.plan, (SidecarFile(**row) for row in rows))


def fields_of_normal_images(
    sidecar: str,
    archive_digest: str,
    category: str,
    rows: Iterable[NormalImage],
    pipeline: PerceptionPipeline,
    image_size: tuple[int, int],
) -> SidecarFields:
    """Return the stored fields of normal images that a pipeline extracts without any fit.

    Raises:
        SidecarError: As `open_sidecar`.
    """
    chunks = {row.row_key: row.chunk for row in rows}
    return open_sidecar(sidecar, archive_digest).fields(
        category, feature_fingerprints(pipeline, image_size, {}), chunks
    )


def note_recomputed(category: str, names: Iterable[str]) -> None:
    """Log the fields that are computed because the stored ones have other fingerprints."""
    stale = ", ".join(sorted(names))
    if stale:
        _logger.info(
            "%s: the sidecar has %s from other weights, options or code; computing them again", category, stale
        )


class SidecarFields:
    """Stored fields of images of one category; implements `StoredFields`.

    Attributes:
        names: Needed fields with a matching stored digest.
        stale: Needed fields that were stored with other weights, options or code.
    """

    def __init__(
        self,
        root: Location,
        stored: Mapping[Stage, Mapping[str, str]],
        needed: Mapping[str, str],
        chunks: Mapping[str, str],
        files: Mapping[tuple[Stage, str], SidecarFile] | None,
    ) -> None:
        """Compare digests; no file is read yet.

        Args:
            root: Root of the sidecar.
            stored: Digest of each stored field by stage and name.
            needed: Digest of each needed field.
            chunks: Name of the chunk of each image, by row key.
            files: The files with their digests; None skips the check, for files of this process.
        """
        self._root = root
        self._chunks = chunks
        self._files = files
        self._stages = {name: stage for stage, members in stored.items() for name in members}
        recorded = {name: digest for members in stored.values() for name, digest in members.items()}
        known = recorded.keys() & needed.keys()
        self.names = frozenset(name for name in known if recorded[name] == needed[name])
        self.stale = frozenset(known - self.names)
        self._open: dict[Stage, _OpenFile] = {}

    def read(self, row_keys: Sequence[str], names: frozenset[str]) -> Fields:
        """See `StoredFields`.

        Raises:
            SidecarError: A file is missing or corrupt, or has no fields of an image.
        """
        import torch

        stages = {self._stages[name] for name in names}
        found: dict[str, list[Any]] = {name: [] for name in sorted(names)}
        for row_key in row_keys:
            values: dict[str, Value] = {}
            for stage in stages:
                values |= self._file(stage, self._chunks[row_key]).fields(row_key)
            for name, collected in found.items():
                collected.append(values[name])
        return {
            name: torch.stack(values) if isinstance(values[0], torch.Tensor) else values
            for name, values in found.items()
        }

    def _file(self, stage: Stage, chunk: str) -> _OpenFile:
        """Open the file of a chunk. The last file of each stage stays open, because images are read chunk by chunk."""
        location = self._root / file_path(stage, chunk)
        if stage not in self._open or self._open[stage].location != location:
            self._open[stage] = _OpenFile(stage, location, self._read(stage, chunk, location))
        return self._open[stage]

    def _read(self, stage: Stage, chunk: str, location: Location) -> bytes:
        expected = None if self._files is None else self._files.get((stage, chunk))
        if self._files is not None and expected is None:
            raise _corrupt(location, "not in the list of files")
        try:
            data = location.read_bytes()
        except ObjectNotFoundError as error:
            raise _corrupt(location, "missing") from error
        if expected is not None and hashlib.sha256(data).hexdigest() != expected.sha256:
            raise _corrupt(location, "checksum mismatch: the file is corrupt")
        return data


class _OpenFile:
    """One file in memory; one row group at a time is decoded."""

    def __init__(self, stage: Stage, location: Location, data: bytes) -> None:
        self.location = location
        self._stage = stage
        try:
            self._parquet = pq.ParquetFile(io.BytesIO(data))
            stage_schema(stage).check_columns(self._parquet.schema_arrow, source=location.uri)
        except (ArchiveError, pa.ArrowException) as error:
            raise _corrupt(location, str(error)) from error
        groups = range(self._parquet.num_row_groups)
        keys = [self._parquet.read_row_group(group, columns=["row_key"]).column(0).to_pylist() for group in groups]
        self._places = {
            key: (group, position) for group, members in enumerate(keys) for position, key in enumerate(members)
        }
        self._group: tuple[int, pa.Table] | None = None

    def fields(self, row_key: str) -> dict[str, Value]:
        """Return all fields of one image."""
        if row_key not in self._places:
            raise _corrupt(self.location, f"has no row {row_key}")
        group, position = self._places[row_key]
        if self._group is None or self._group[0] != group:
            self._group = (group, self._parquet.read_row_group(group))
        (row,) = self._group[1].slice(position, 1).to_pylist()
        if row["status"] == "error":
            raise _corrupt(self.location, f"the image of row {row_key} could not be decoded ({row['error']})")
        try:
            return decode_row(self._stage, row)
        except ValueError as error:
            raise _corrupt(self.location, f"row {row_key}: {error}") from error


def _corrupt(location: Location, reason: str) -> SidecarError:
    return SidecarError(f"{location}: {reason}; delete the file and repeat the `uniad-ray precompute` command")

"""The entries of a source: files that may become image rows, and rejected files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test", "archive"]
Label = Literal["normal", "anomalous"]

_OTHER_SUFFIXES = (
    ".avro .bin .bz2 .cfg .csv .db .doc .docx .gz .html .ini .json .jsonl .lock .log .md .mov .mp4 .npy "
    ".npz .onnx .parquet .pdf .pt .pth .py .rtf .safetensors .sh .sqlite .tar .toml .tsv .txt .xls .xlsx "
    ".xml .yaml .yml .zip"
)
_NOT_IMAGES = frozenset(_OTHER_SUFFIXES.split())


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One file that may become an image row.

    Attributes:
        row_key: First 32 hex digits of sha256 over the category and the path within it: the same tree gives the same
            keys wherever it is stored. In a plain folder the URI takes the place of the path, because two folders of
            one category may use the same names.
        uri: URI of the file.
        size: Bytes, as listed.
        category: Product or view.
        split: Part of the data set; `archive` if the source has no splits.
        label: `normal`, `anomalous`, or None if unknown.
        defect_kind: Name of the defect, several joined by `+`; or None.
        anomaly_type: `logical` or `structural`; None if the source does not distinguish them.
        mask_uris: Ground-truth files of the image, sorted.
    """

    row_key: str
    uri: str
    size: int
    category: str
    split: str
    label: str | None
    defect_kind: str | None
    anomaly_type: str | None
    mask_uris: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A rejected file and the reason."""

    source_uri: str
    reason: str


def row_key(category: str, path: str) -> str:
    """Derives the stable key of an image row from its category and its path."""
    return hashlib.sha256(f"{category}\n{path}".encode()).hexdigest()[:32]


def refusal_by_name(path: str) -> str | None:
    """Why a file cannot be an image, judged by its name alone; None if it may be one."""
    name = path.rsplit("/", 1)[-1]
    suffix = "." + name.rsplit(".", 1)[-1].lower() if "." in name else ""
    if suffix in _NOT_IMAGES or name in (".DS_Store", "Thumbs.db"):
        return f"not an image: {name} has suffix {suffix or 'none'}"
    return None

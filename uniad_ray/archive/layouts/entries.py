"""What a source gives: files that may become image rows, and files that are not taken."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

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
        row_key: First 32 hex digits of sha256 over the category and, in a tree, the path within the category, so that
            the same tree read from another place gives the same keys; in a plain folder the URI, since two folders of
            one category may use the same names.
        uri: Where the file lies.
        size: Bytes, as listed.
        category: Product or view.
        split: Part of the data set; `archive` where the source has no splits.
        label: `normal`, `anomalous` or None where unknown.
        defect_kind: Name of the defect, several joined by `+`, or None.
        anomaly_type: `logical`, `structural` or None where the source does not tell.
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
    """One file that is not taken, and why."""

    source_uri: str
    reason: str


def row_key(category: str, path: str) -> str:
    """Derives the stable key of an image row from its category and its path."""
    return hashlib.sha256(f"{category}\n{path}".encode()).hexdigest()[:32]


def refusal_by_name(path: str) -> str | None:
    """Says why a file cannot be an image by its name alone; None where it may be one."""
    name = path.rsplit("/", 1)[-1]
    suffix = "." + name.rsplit(".", 1)[-1].lower() if "." in name else ""
    if suffix in _NOT_IMAGES or name in (".DS_Store", "Thumbs.db"):
        return f"not an image: {name} has suffix {suffix or 'none'}"
    return None

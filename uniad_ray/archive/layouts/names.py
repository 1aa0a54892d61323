"""Names that say that a file is no image of the source."""

from __future__ import annotations

_OTHER_SUFFIXES = (
    ".avro .bin .bz2 .cfg .crdownload .csv .db .doc .docx .filepart .gz .html .ini .json .jsonl .lock .log .md .mov "
    ".mp4 .npy .npz .onnx .parquet .part .partial .pdf .pt .pth .py .rtf .safetensors .sh .sqlite .tar .tmp .toml .tsv "
    ".txt .xls .xlsx .xml .yaml .yml .zip"
)
_NOT_IMAGES = frozenset(_OTHER_SUFFIXES.split())
_SYSTEM_FILES = frozenset({"desktop.ini", "ehthumbs.db", "thumbs.db"})
_SYSTEM_FOLDERS = frozenset(
    {
        "#recycle",
        "#snapshot",
        "$extend",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@sharebin",
        "__macosx",
        "__pycache__",
        "found.000",
        "lost+found",
        "recycled",
        "recycler",
        "system volume information",
        "~snapshot",
    }
)
"""Folders, in lower case, in which NAS boxes, file managers and file systems keep thumbnails, deleted and old files."""


def hidden_reason(path: str, category: str | None = None) -> str | None:
    """Why a file belongs to the system and not to the source; None if it does not.

    Args:
        path: Path within the source.
        category: Folder that the user named; it is never hidden.
    """
    *folders, name = path.split("/")
    for folder in folders[1:] if category is not None and folders[:1] == [category] else folders:
        if folder.startswith("."):
            return f"in the hidden folder {folder}"
        if folder.lower() in _SYSTEM_FOLDERS:
            return f"in the system folder {folder}"
    if name.startswith("."):
        return f"hidden file {name}"
    return f"system file {name}" if name.lower() in _SYSTEM_FILES else None


def suffix_reason(path: str) -> str | None:
    """Why a file cannot be an image, judged by its suffix alone; None if it may be one."""
    name = path.rsplit("/", 1)[-1]
    suffix = "." + name.rsplit(".", 1)[-1].lower() if "." in name else ""
    return f"not an image: {name} has suffix {suffix}" if suffix in _NOT_IMAGES else None

"""Reads the folder layouts of anomaly data sets, and plain folders of images, as a stream of source images."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from uniad_ray.archive.object_store import Location, ObjectInfo
from uniad_ray.errors import ArchiveError

Layout = Literal["auto", "mvtec", "folder"]
Split = Literal["train", "validation", "test", "archive"]
Label = Literal["normal", "anomalous"]

GOOD_FOLDER = "good"
"""The folder of normal images in every MVTec-style tree."""

_TREE = re.compile(r"^(?:(?P<category>[^/]+)/)?(?P<split>train|validation|test)/(?P<kind>[^/]+)/(?P<rest>.+)$")
_MASK = re.compile(r"^(?:(?P<category>[^/]+)/)?ground_truth/(?P<kind>[^/]+)/(?P<rest>.+)$")
_DEFECTS = re.compile(r"^(?:(?P<category>[^/]+)/)?defects_config\.json$")
_NOT_IMAGES = (
    ".avro .bin .bz2 .cfg .csv .db .doc .docx .gz .html .ini .json .jsonl .lock .log .md .mov .mp4 .npy "
    ".npz .onnx .parquet .pdf .pt .pth .py .rtf .safetensors .sh .sqlite .tar .toml .tsv .txt .xls .xlsx "
    ".xml .yaml .yml .zip"
)
_ANOMALY_TYPES = {"logical_anomalies": "logical", "structural_anomalies": "structural"}


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
        defect_kind: Name of the defect folder, or None.
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


@dataclass(frozen=True)
class Source:
    """A listed source: its layout, its ground truth and its categories, before any image is read.

    Attributes:
        root: Where the source lies.
        layout: `mvtec` or `folder`.
        masks: Mask URIs by (category, defect folder, image stem).
        defects: The content of `defects_config.json` by category.
        category: Category of a source that names none itself, or the only category to take.
        split: Split of a plain folder.
        label: Label of a plain folder.
    """

    root: Location
    layout: Literal["mvtec", "folder"]
    masks: dict[tuple[str, str, str], tuple[str, ...]]
    defects: dict[str, Any]
    category: str | None
    split: str
    label: str | None

    def entries(self) -> Iterator[SourceImage | Rejected]:
        """Streams the files of the source in the order of their paths."""
        for info in self.root.list():
            if self.layout == "mvtec":
                yield from self._tree_entry(info)
            else:
                yield self._folder_entry(info)

    def _tree_entry(self, info: ObjectInfo) -> Iterator[SourceImage | Rejected]:
        if _MASK.match(info.relative) or _DEFECTS.match(info.relative):
            return
        match = _TREE.match(info.relative)
        if match is None:
            if self.category is None or info.relative.split("/")[0] == self.category or "/" not in info.relative:
                yield Rejected(info.location.uri, "not under train/, validation/ or test/ of a category")
            return
        category = match["category"] or self.category or self.root.name
        if match["category"] and self.category and match["category"] != self.category:
            return
        if reason := _refusal(info):
            yield Rejected(info.location.uri, reason)
            return
        kind, split = match["kind"], match["split"]
        normal = kind == GOOD_FOLDER
        masks = self.masks.get((match["category"] or "", kind, _stem(match["rest"])), ())
        yield SourceImage(
            row_key=row_key(category, f"{split}/{kind}/{match['rest']}"),
            uri=info.location.uri,
            size=info.size,
            category=category,
            split=split,
            label="normal" if normal else "anomalous",
            defect_kind=None if normal else kind,
            anomaly_type=_ANOMALY_TYPES.get(kind),
            mask_uris=() if normal else masks,
        )

    def _folder_entry(self, info: ObjectInfo) -> SourceImage | Rejected:
        if reason := _refusal(info):
            return Rejected(info.location.uri, reason)
        category = self.category or self.root.name
        return SourceImage(
            row_key=row_key(category, info.location.uri),
            uri=info.location.uri,
            size=info.size,
            category=category,
            split=self.split,
            label=self.label,
            defect_kind=None,
            anomaly_type=None,
        )


def open_source(
    root: Location,
    *,
    layout: Layout = "auto",
    category: str | None = None,
    split: Split | None = None,
    label: Label | None = None,
) -> Source:
    """Lists a source once to learn its layout, masks and defect names.

    Two layouts are read: an MVTec-style tree (`[category/]train/good`, `test/<defect>`,
    `ground_truth/<defect>/<stem>_mask.png`, or as in MVTec LOCO `ground_truth/<defect>/<stem>/<n>.png` with
    `defects_config.json`), and any folder or prefix of images.

    Args:
        root: Local folder or S3 prefix.
        layout: `auto` takes the tree where any path has its form.
        category: Name for a source of one category; picks one category of a tree that holds several.
        split: Split for a plain folder; default `archive`.
        label: Label for a plain folder; default unknown.

    Raises:
        ArchiveError: Nothing lies there, the layout does not fit, or `defects_config.json` is damaged.
    """
    masks: dict[tuple[str, str, str], list[str]] = {}
    defects: dict[str, Any] = {}
    found_any = found_tree = False
    categories: set[str] = set()
    for info in root.list():
        found_any = True
        if match := _MASK.match(info.relative):
            key = (match["category"] or "", match["kind"], _mask_stem(match["rest"]))
            masks.setdefault(key, []).append(info.location.uri)
        elif match := _DEFECTS.match(info.relative):
            defects[match["category"] or category or root.name] = _read_defects(info.location)
        elif match := _TREE.match(info.relative):
            found_tree = True
            if match["category"]:
                categories.add(match["category"])
    if not found_any:
        raise ArchiveError(f"{root}: nothing there; name a folder or an s3:// prefix that holds images")
    if layout == "mvtec" and not found_tree:
        raise ArchiveError(
            f"{root}: no train/<kind>/ or test/<kind>/ folder there; use --layout folder to take any image"
        )
    is_tree = found_tree and layout != "folder"
    if is_tree and (split or label):
        raise ArchiveError(
            f"{root}: a tree names splits and labels itself; leave out --split and --label, or add --layout folder"
        )
    if is_tree and category and categories and category not in categories:
        raise ArchiveError(f"{root}: no category {category!r} there; it holds {', '.join(sorted(categories))}")
    return Source(
        root=root,
        layout="mvtec" if is_tree else "folder",
        masks={key: tuple(sorted(uris)) for key, uris in masks.items()},
        defects=defects,
        category=category,
        split=split or "archive",
        label=label,
    )


def row_key(category: str, path: str) -> str:
    """Derives the stable key of an image row from its category and its path."""
    return hashlib.sha256(f"{category}\n{path}".encode()).hexdigest()[:32]


def _refusal(info: ObjectInfo) -> str | None:
    name = info.relative.rsplit("/", 1)[-1]
    suffix = "." + name.rsplit(".", 1)[-1].lower() if "." in name else ""
    if suffix in _NOT_IMAGES.split() or name in (".DS_Store", "Thumbs.db"):
        return f"not an image: {name} has suffix {suffix or 'none'}"
    return None


def _stem(path: str) -> str:
    return path.rsplit(".", 1)[0] if "." in path.rsplit("/", 1)[-1] else path


def _mask_stem(path: str) -> str:
    """Gives the stem of the image a mask file belongs to, for both ways of naming it."""
    if "/" in path:
        return path.rsplit("/", 1)[0]
    return _stem(path).removesuffix("_mask")


def _read_defects(location: Location) -> Any:
    try:
        document = json.loads(location.read_bytes(max_bytes=1 << 20))
    except ValueError as error:
        raise ArchiveError(f"{location}: not valid JSON ({error}); mend or remove it") from error
    if not isinstance(document, list) or not all(
        isinstance(entry, dict) and "defect_name" in entry for entry in document
    ):
        raise ArchiveError(
            f"{location}: expected a list of objects with defect_name, pixel_value and saturation_threshold"
        )
    return document


def defect_kinds_by_value(defects: Any) -> dict[int, str]:
    """Maps a mask's grey value to the defect's name, from the content of a `defects_config.json`."""
    return {int(entry["pixel_value"]): str(entry["defect_name"]) for entry in defects or [] if "pixel_value" in entry}

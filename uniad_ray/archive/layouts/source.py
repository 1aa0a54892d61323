"""Recognises the layout of a source and reads it as a stream of source images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uniad_ray.archive.layouts.base import Companion, ImagePlace, Layout, MaskPlace, Place, Stray
from uniad_ray.archive.layouts.entries import Attachment, Label, Rejected, SourceImage, Split, row_key
from uniad_ray.archive.layouts.folder import FolderLayout
from uniad_ray.archive.layouts.names import hidden_reason, suffix_reason
from uniad_ray.archive.layouts.registry import AUTO, DEFAULT_LAYOUT, data_set_layouts, layout_names
from uniad_ray.archive.naming import normalised, printable
from uniad_ray.archive.stores.location import Location, ObjectInfo, is_utf8
from uniad_ray.errors import ArchiveError

Mask = tuple[str, str]
"""URI and version of a mask."""
_WHOLE_CATEGORY = frozenset({"train", "test"})
_BESIDE = "beside the folders of"


@dataclass(frozen=True)
class Source:
    """A listed source before any image is read: its layout, ground truth and categories.

    Attributes:
        root: Location of the source.
        layout: Layout of the source.
        masks: Masks by category folder and mask key, sorted.
        categories: Category folders; empty if the source is a single category.
        category: Name of a single-category source, or the only category to read, as given.
    """

    root: Location
    layout: Layout
    masks: Mapping[tuple[str | None, str], tuple[Mask, ...]]
    categories: frozenset[str]
    category: str | None

    @property
    def uri(self) -> str:
        """URI of the source, which names it in the records of the archive."""
        return self.root.uri

    @property
    def layout_name(self) -> str:
        """Name of the layout."""
        return self.layout.name

    @property
    def defects(self) -> dict[str, Any]:
        """Usable entries of `defects_config.json` by category."""
        return {self._category_name(folder): content for folder, content in self.layout.defects.items()}

    def entries(self) -> Iterator[SourceImage | Attachment | Rejected]:
        """Streams the files of the source in path order, then the masks and the files that are missing."""
        missing = dict(self.layout.expected)
        paired: set[tuple[str | None, str]] = set()
        unusable = {entry.source_uri for entry in self.layout.rejected}
        for info in self.root.list(with_unusable=True):
            path = normalised(info.relative)
            missing.pop(path, None)
            place = None if info.problem else self._place(path)
            if self._is_left_out(_folder(path) if place is None else place.category):
                continue
            reason = info.problem or hidden_reason(path, self._wanted) or self._place_reason(path, place)
            if reason:
                yield Rejected(printable(info.location.uri), reason)
            elif isinstance(place, ImagePlace):
                key = (place.category, place.mask_key or "")
                masks = self.masks.get(key, ())
                if masks:
                    paired.add(key)
                yield self._image(info, place, masks)
            elif isinstance(place, Companion) and info.location.uri not in unusable:
                yield Attachment(info.location.uri)
        for key, masks in self.masks.items():
            for uri, _ in masks:
                yield Attachment(uri) if key in paired else Rejected(uri, "mask without an image")
        yield from self.layout.rejected
        for path, reason in missing.items():
            if not self._is_left_out(_folder(path)):
                yield Rejected(f"{self.root}/{path}", reason)

    def _place(self, path: str) -> Place | None:
        """The place of a path in this source: beside the folders of one category, or of several, is none."""
        place = self.layout.place(path)
        if place is None or isinstance(place, Companion):
            return place
        if not self.categories and place.category is not None:
            # As a folder of the category, it may describe the category.
            own = self.layout.place(f"{place.category}/{path}")
            return own if isinstance(own, Companion) else Stray(None, f"in {place.category}/, {_BESIDE} the category")
        if self.categories and place.category is None:
            return Stray(None, f"{_BESIDE} the categories")
        return place

    def _place_reason(self, path: str, place: Place | None) -> str | None:
        """Why a file cannot be read in its place."""
        if place is None:
            return f"not under {self.layout.where}"
        if isinstance(place, Stray):
            return place.reason
        return None if isinstance(place, Companion) else suffix_reason(path)

    def _image(self, info: ObjectInfo, place: ImagePlace, masks: tuple[Mask, ...]) -> SourceImage:
        category = self._category_name(place.category)
        key = row_key(category, normalised(info.location.uri) if place.path is None else place.path)
        kept = masks if place.label == "anomalous" else ()
        return SourceImage(
            row_key=key,
            uri=info.location.uri,
            size=info.size,
            category=category,
            split=place.split,
            label=place.label,
            defect_kind=place.defect_kind,
            anomaly_type=place.anomaly_type,
            mask_uris=tuple(uri for uri, _ in kept),
            version=info.version,
            mask_versions=tuple(version for _, version in kept),
            former_key=self._former_key(info, key),
        )

    def _former_key(self, info: ObjectInfo, key: str) -> str | None:
        """The row key without normalised names, if it is another one."""
        if f"{info.location.uri}{self.category}".isascii():
            return None
        place = self.layout.place(info.relative)
        if not isinstance(place, ImagePlace):
            return None
        category = place.category or self.category or self.root.name
        former = row_key(category, info.location.uri if place.path is None else place.path)
        return None if former == key else former

    def _category_name(self, folder: str | None) -> str:
        return folder or self._wanted or normalised(self.root.name)

    @property
    def _wanted(self) -> str | None:
        return None if self.category is None else normalised(self.category)

    def _is_left_out(self, folder: str | None) -> bool:
        """Whether the folder holds another category than the one to read."""
        return bool(self.categories) and self.category is not None and folder not in (None, self._wanted)


def _folder(path: str) -> str | None:
    """The first folder of a path; None for a file in the root."""
    folder, slash, _ = path.partition("/")
    return folder if slash else None


@dataclass
class _Seen:
    """Findings for one layout in one listing of a source.

    Attributes:
        layout: The layout.
        signs: A path that only this layout has, by category folder.
        categories: Number of images by split, for each category folder that has some.
        masks: Masks by category folder and mask key.
        companions: Category folder and file.
    """

    layout: Layout
    signs: dict[str | None, str] = field(default_factory=dict)
    categories: dict[str | None, Counter[str]] = field(default_factory=dict)
    masks: dict[tuple[str | None, str], list[Mask]] = field(default_factory=dict)
    companions: list[tuple[str | None, ObjectInfo]] = field(default_factory=list)

    def add(self, info: ObjectInfo, path: str, category: str | None) -> None:
        """Records one file; skips masks and companions of categories that are not read."""
        place = self.layout.place(path)
        if place is None:
            return
        is_read = category is None or place.category in (None, category)
        if isinstance(place, Companion):
            self.companions += [(place.category, info)] if is_read else []
            return
        if isinstance(place, Stray) or suffix_reason(path):
            return
        if isinstance(place, ImagePlace):
            self.categories.setdefault(place.category, Counter())[place.split] += 1
        if place.category not in self.signs and self.layout.signature.match(path):
            self.signs[place.category] = path
        if isinstance(place, MaskPlace) and is_read:
            self.masks.setdefault((place.category, place.key), []).append((info.location.uri, info.version))

    def sign(self, category: str | None) -> str | None:
        """A path that only this layout has, in the category to read or in any."""
        wanted = (path for folder, path in self.signs.items() if category is None or folder in (None, category))
        return next(wanted, None) if self.categories else None

    def is_one_category(self, category: str | None) -> bool:
        """Whether the source itself is a whole category, and no folder is the category to read."""
        return _is_whole(self.categories.get(None, {})) and (category is None or category not in self.categories)

    def category_folders(self, category: str | None) -> frozenset[str]:
        """The folders that hold the categories; empty if the source itself is one category.

        Folders that look like categories may be foreign: `depth/train` beside the `train` and `test` of a category. And
        a folder of categories may hold a stray `train`. What has both training and test images is a category.
        """
        own = self.categories.get(None)
        others = {folder: counts for folder, counts in self.categories.items() if folder is not None}
        if own is None or category in others:
            return frozenset(others)
        if self.is_one_category(category):
            return frozenset()
        smallest = min((counts.total() for counts in others.values()), default=0)
        is_stray = any(map(_is_whole, others.values())) or own.total() < smallest
        return frozenset(others) if is_stray else frozenset()


def _is_whole(counts: Mapping[str, int]) -> bool:
    """Whether a folder with these images by split is a category: trained and tested, or without splits."""
    return counts.keys() >= _WHOLE_CATEGORY or "archive" in counts


def open_source(
    root: Location,
    *,
    layout: str = AUTO,
    category: str | None = None,
    split: Split | None = None,
    label: Label | None = None,
) -> Source:
    """Lists a source once to find its layout, masks and tables.

    Args:
        root: Local folder or S3 prefix.
        layout: One of `layout_names()`. `auto` recognises the layout by its paths, and falls back to a plain folder.
        category: Name of a single-category source; selects one category of a source with several.
        split: Split of a plain folder; default `archive`.
        label: Label of a plain folder; default unknown.

    Raises:
        ArchiveError: The layout is unknown or does not fit, two layouts match, the source is empty, a table is
            corrupt, or the path or the category is not Unicode text.
        StoreError: The store cannot be read, or a table is too large.
    """
    if layout not in layout_names():
        raise ArchiveError(f"unknown layout {layout!r}; use one of {', '.join(layout_names())}")
    if not is_utf8(root.uri) or not is_utf8(category or ""):
        what = "path" if not is_utf8(root.uri) else f"category {printable(category or '')}"
        raise ArchiveError(f"{printable(root.uri)}: the {what} is not UTF-8 text; rename it")
    wanted = None if category is None else normalised(category)
    seen = [_Seen(entry) for entry in data_set_layouts() if layout in (AUTO, entry.name)]
    is_empty = True
    for info in root.list(with_unusable=True):
        is_empty = False
        path = normalised(info.relative)
        if info.problem is None and hidden_reason(path, wanted) is None:
            for entry in seen:
                entry.add(info, path, wanted)
    if is_empty:
        raise ArchiveError(f"{root}: no files found; name a folder or an s3:// prefix that holds images")
    chosen = _recognise(root, seen, wanted) if layout == AUTO else next(iter(seen), None)
    if chosen is None:
        return Source(root, FolderLayout(split=split or "archive", label=label), {}, frozenset(), category)
    if not chosen.categories:
        raise ArchiveError(
            f"{root}: no {chosen.layout.where}, as layout {layout} requires; omit --layout to detect the layout, or "
            "use --layout folder to read any image"
        )
    if split or label:
        raise ArchiveError(
            f"{root}: layout {chosen.layout.name} sets splits and labels itself; omit --split and --label, or add "
            "--layout folder"
        )
    categories = chosen.category_folders(wanted)
    if wanted and categories and wanted not in categories:
        raise ArchiveError(f"{root}: no category {category!r}; the source has {', '.join(sorted(categories))}")
    companions = [entry for entry in chosen.companions if categories or entry[0] is None]
    return Source(
        root=root,
        layout=chosen.layout.with_companions(companions, categories),
        masks={
            key: tuple(sorted(masks)) for key, masks in chosen.masks.items() if bool(categories) == (key[0] is not None)
        },
        categories=categories,
        category=category,
    )


def _recognise(root: Location, seen: Sequence[_Seen], category: str | None) -> _Seen | None:
    """Chooses the layout that the paths show; None if they show none."""
    whole = [entry for entry in seen if entry.is_one_category(category)]
    if whole:
        # Its other folders are foreign, and may have any layout.
        seen = whole
        signs = [(entry, entry.signs[None]) for entry in whole if None in entry.signs]
    else:
        signs = [(entry, path) for entry in seen if (path := entry.sign(category))]
    if len(signs) > 1:
        names = " and ".join(f"{entry.layout.name} ({path})" for entry, path in signs)
        raise ArchiveError(
            f"{root}: files of {len(signs)} layouts: {names}; select one category with --category, or one layout with "
            "--layout"
        )
    if signs:
        return signs[0][0]
    # Only `good` folders, which every tree has, or no files of the category to read.
    return next(
        (entry for entry in seen if entry.categories and (entry.layout.name == DEFAULT_LAYOUT or entry.signs)), None
    )

"""Recognises the layout of a source and reads it as a stream of source images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uniad_ray.archive.layouts.base import Companion, ImagePlace, Layout, MaskPlace, Stray
from uniad_ray.archive.layouts.entries import Label, Rejected, SourceImage, Split, refusal_by_name, row_key
from uniad_ray.archive.layouts.folder import FolderLayout
from uniad_ray.archive.layouts.registry import AUTO, DEFAULT_LAYOUT, data_set_layouts, layout_names
from uniad_ray.archive.stores.location import Location, ObjectInfo
from uniad_ray.errors import ArchiveError


@dataclass(frozen=True)
class Source:
    """A listed source before any image is read: its layout, ground truth and categories.

    Attributes:
        root: Location of the source.
        layout: Layout of the source.
        masks: Mask URIs by category folder and mask key, sorted.
        categories: Category folders; empty if the source is a single category.
        category: Name of a single-category source, or the only category to read.
    """

    root: Location
    layout: Layout
    masks: Mapping[tuple[str | None, str], tuple[str, ...]]
    categories: frozenset[str]
    category: str | None

    @property
    def defects(self) -> dict[str, Any]:
        """Content of `defects_config.json` by category."""
        return {self._category_name(folder): content for folder, content in self.layout.defects.items()}

    def entries(self) -> Iterator[SourceImage | Rejected]:
        """Streams the files of the source in path order, then the files that are missing."""
        missing = dict(self.layout.expected)
        paired: set[tuple[str | None, str]] = set()
        for info in self.root.list():
            missing.pop(info.relative, None)
            place = self.layout.place(info.relative)
            if self._is_left_out(_folder(info.relative) if place is None else place.category):
                continue
            if place is None:
                yield Rejected(info.location.uri, f"not under {self.layout.where}")
            elif isinstance(place, Stray):
                yield Rejected(info.location.uri, place.reason)
            elif isinstance(place, Companion):
                continue
            elif reason := refusal_by_name(info.relative):
                yield Rejected(info.location.uri, reason)
            elif isinstance(place, ImagePlace):
                key = (place.category, place.mask_key or "")
                masks = self.masks.get(key, ())
                if masks:
                    paired.add(key)
                yield self._image(info, place, masks)
        for key, uris in self.masks.items():
            if key not in paired:
                yield from (Rejected(uri, "mask without an image") for uri in uris)
        for path, reason in missing.items():
            if not self._is_left_out(_folder(path)):
                yield Rejected(f"{self.root}/{path}", reason)

    def _image(self, info: ObjectInfo, place: ImagePlace, masks: tuple[str, ...]) -> SourceImage:
        category = self._category_name(place.category)
        return SourceImage(
            row_key=row_key(category, info.location.uri if place.path is None else place.path),
            uri=info.location.uri,
            size=info.size,
            category=category,
            split=place.split,
            label=place.label,
            defect_kind=place.defect_kind,
            anomaly_type=place.anomaly_type,
            mask_uris=masks if place.label == "anomalous" else (),
        )

    def _category_name(self, folder: str | None) -> str:
        return folder or self.category or self.root.name

    def _is_left_out(self, folder: str | None) -> bool:
        """Whether the folder holds another category than the one to read."""
        return bool(self.categories) and self.category is not None and folder not in (None, self.category)


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
        categories: Folders of the categories that have images.
        masks: Mask URIs by category folder and mask key.
        companions: Category folder and file.
    """

    layout: Layout
    signs: dict[str | None, str] = field(default_factory=dict)
    categories: set[str | None] = field(default_factory=set)
    masks: dict[tuple[str | None, str], list[str]] = field(default_factory=dict)
    companions: list[tuple[str | None, ObjectInfo]] = field(default_factory=list)

    def add(self, info: ObjectInfo, category: str | None) -> None:
        """Records one file; skips masks and companions of categories that are not read."""
        place = self.layout.place(info.relative)
        if place is None:
            return
        if isinstance(place, ImagePlace):
            self.categories.add(place.category)
        if place.category not in self.signs and self.layout.signature.match(info.relative):
            self.signs[place.category] = info.relative
        if category is not None and place.category not in (None, category):
            return
        if isinstance(place, MaskPlace) and not refusal_by_name(info.relative):
            self.masks.setdefault((place.category, place.key), []).append(info.location.uri)
        elif isinstance(place, Companion):
            self.companions.append((place.category, info))

    def sign(self, category: str | None) -> str | None:
        """A path that only this layout has, in the category to read or in any."""
        wanted = (path for folder, path in self.signs.items() if category is None or folder in (None, category))
        return next(wanted, None) if self.categories else None


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
        ArchiveError: The layout is unknown or does not fit, two layouts match, the source is empty, or a table is
            corrupt.
        StoreError: The store cannot be read, or a table is too large.
    """
    if layout not in layout_names():
        raise ArchiveError(f"unknown layout {layout!r}; use one of {', '.join(layout_names())}")
    seen = [_Seen(entry) for entry in data_set_layouts() if layout in (AUTO, entry.name)]
    is_empty = True
    for info in root.list():
        is_empty = False
        for entry in seen:
            entry.add(info, category)
    if is_empty:
        raise ArchiveError(f"{root}: no files found; name a folder or an s3:// prefix that holds images")
    chosen = _recognise(root, seen, category) if layout == AUTO else next(iter(seen), None)
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
    categories = frozenset(folder for folder in chosen.categories if folder is not None)
    if category and categories and category not in categories:
        raise ArchiveError(f"{root}: no category {category!r}; the source has {', '.join(sorted(categories))}")
    return Source(
        root=root,
        layout=chosen.layout.with_companions(chosen.companions, categories),
        masks={key: tuple(sorted(uris)) for key, uris in chosen.masks.items()},
        categories=categories,
        category=category,
    )


def _recognise(root: Location, seen: Sequence[_Seen], category: str | None) -> _Seen | None:
    """Chooses the layout that the paths show; None if they show none."""
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

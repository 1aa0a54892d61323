from __future__ import annotations

from pathlib import Path

import pytest
from support.runs import ScoredImage, write_archive
from support.trees import png

from uniad_ray.archive.manifest import choose_categories, read_manifest
from uniad_ray.errors import ArchiveError

COMPOSED, DECOMPOSED = "\u00dc", "U\u0308"


@pytest.mark.parametrize(
    ("stored", "chosen", "expected"),
    [
        ((COMPOSED, "a"), (DECOMPOSED,), [COMPOSED]),
        ((DECOMPOSED, "a"), (COMPOSED, COMPOSED), [DECOMPOSED]),
        ((COMPOSED, DECOMPOSED), (DECOMPOSED,), [DECOMPOSED]),
        ((COMPOSED, DECOMPOSED), (COMPOSED,), [COMPOSED]),
        (("b", "a"), None, ["a", "b"]),
    ],
)
def test_categories_are_chosen_in_either_unicode_form(
    tmp_path: Path, stored: tuple[str, ...], chosen: tuple[str, ...] | None, expected: list[str]
) -> None:
    archive = write_archive(tmp_path, [ScoredImage("1", png(1), 0.1, category=name) for name in stored])
    manifest = read_manifest(archive)
    assert choose_categories(archive, manifest, chosen) == expected
    with pytest.raises(ArchiveError, match="no category c; the archive has"):
        choose_categories(archive, manifest, ["c"])

"""Layouts are found by their files."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from support.trees import mvtec_tree, png, write

from uniad_ray.archive.layouts import SourceImage, data_sets, layout_names, open_source
from uniad_ray.archive.stores.location import Location
from uniad_ray.cli import cli
from uniad_ray.errors import ArchiveError

NEW_LAYOUT = '''\
import re
from dataclasses import dataclass
from typing import ClassVar

from uniad_ray.archive.layouts.base import ImagePlace, Layout


@dataclass(frozen=True)
class PlantLayout(Layout):
    """Images in folders `fine` and `faulty`."""

    name: ClassVar[str] = "plant"
    where: ClassVar[str] = "fine/ or faulty/"
    signature: ClassVar[re.Pattern[str]] = re.compile("faulty/")

    def place(self, path):
        folder = path.split("/")[0]
        if folder not in ("fine", "faulty"):
            return None
        is_fine = folder == "fine"
        return ImagePlace(None, path, "train" if is_fine else "test", "normal" if is_fine else "anomalous")


LAYOUT = PlantLayout()
'''


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Adds the layout `plant` as one new file."""
    folder = tmp_path / "plugins"
    write(folder / "plant.py", NEW_LAYOUT.encode())
    monkeypatch.setattr(data_sets, "__path__", [*data_sets.__path__, str(folder)])
    # The option of `ingest` takes its choices when the verb is imported.
    for module in (f"{data_sets.__name__}.plant", "uniad_ray.cli.verbs.data.ingest"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def tree(root: Path) -> Location:
    write(root / "fine/0.png", png(0))
    write(root / "faulty/1.png", png(1))
    return Location.parse(root)


@pytest.mark.usefixtures("plant")
@pytest.mark.parametrize("layout", ["auto", "plant"])
def test_new_file_is_a_new_layout(tmp_path: Path, layout: str) -> None:
    source = open_source(tree(tmp_path / "bolts"), layout=layout)
    assert source.layout.name == "plant"
    rows = [(entry.category, entry.split, entry.label) for entry in source.entries() if isinstance(entry, SourceImage)]
    assert rows == [("bolts", "test", "anomalous"), ("bolts", "train", "normal")]


@pytest.mark.usefixtures("plant")
def test_new_layout_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "bottle", train=1, good=1, bad=1)
    assert open_source(Location.parse(root)).layout.name == "mvtec"


@pytest.mark.usefixtures("plant")
def test_command_line_offers_new_layout() -> None:
    command = cli.get_command(click.Context(cli), "ingest")
    assert command is not None
    (choices,) = (option.type.choices for option in command.params if option.name == "layout")  # type: ignore[attr-defined]
    assert tuple(choices) == layout_names()
    assert "plant" in choices
    assert "plant" in CliRunner().invoke(cli, ["ingest", "--help"]).output


def test_unknown_layout_names_the_known_ones(tmp_path: Path) -> None:
    message = "unknown layout 'plant'; use one of auto, mvtec, bmad, mvtec_3d_ad, mvtec_ad_2, visa, folder"
    with pytest.raises(ArchiveError, match=message):
        open_source(tree(tmp_path), layout="plant")

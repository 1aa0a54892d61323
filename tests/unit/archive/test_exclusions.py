from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.runs import write_archive
from support.scene_images import archive_rows, scene_images

from uniad_ray.archive.exclusions import exclude_images, include_images, list_exclusions, read_exclusions
from uniad_ray.archive.image_size import with_image_size
from uniad_ray.archive.ingest.deletions import DeletedRow, write_deletion
from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.normal_rows import read_normal_rows
from uniad_ray.archive.stores.location import Location
from uniad_ray.cli import cli
from uniad_ray.config.loading import load_config
from uniad_ray.errors import ArchiveError, UserError
from uniad_ray.pipelines.fit.job import _without_images

COUNT = 6


@pytest.fixture
def archive(tmp_path: Path) -> Location:
    images = scene_images(COUNT, 64)
    # The last image has the bytes of the first.
    return write_archive(tmp_path / "archive", archive_rows([*images, images[0]]))


def used(archive: Location, *exclude: str) -> list[str]:
    rows = read_normal_rows(archive, read_manifest(archive), "part", ("source_uri",), exclude)
    return [values[0].rpartition("/")[2] for values, _, _ in rows]


def test_excluded_image_leaves_the_fit_and_returns(archive: Location) -> None:
    everything = [f"{number:03d}.png" for number in range(COUNT + 1)]
    assert used(archive) == everything
    digest = read_manifest(archive).digest
    report = exclude_images(archive.uri, ["003.png"], reason=" scratched ")
    assert [(entry.source_uri.rpartition("/")[2], entry.reason) for entry in report.excluded] == [
        ("003.png", "scratched")
    ]
    assert used(archive) == [name for name in everything if name != "003.png"]
    assert read_manifest(archive).digest == digest
    assert include_images(archive.uri, ["003.png"]).excluded == ()
    assert used(archive) == everything
    exclude_images(archive.uri, ["003.png"], reason="after all")
    assert [entry.reason for entry in list_exclusions(archive.uri).excluded] == ["after all"]


def test_copies_of_the_same_bytes_leave_too(archive: Location) -> None:
    assert used(archive, "000.png") == ["001.png", "002.png", "003.png", "004.png", "005.png"]
    exclude_images(archive.uri, ["006.png"], reason="blurred")
    assert used(archive) == ["001.png", "002.png", "003.png", "004.png", "005.png"]


def test_all_names_of_an_image_work(archive: Location) -> None:
    rows = read_normal_rows(archive, read_manifest(archive), "part", ("source_uri", "image_id", "row_key"))
    for name in rows[2][0]:
        assert "002.png" not in used(archive, name)
    assert len(used(archive, "02.png")) == COUNT + 1


def test_wrong_names_change_nothing(archive: Location) -> None:
    with pytest.raises(ArchiveError, match=r"no image 9\.png; give its source URI"):
        exclude_images(archive.uri, ["001.png", "9.png"], reason="x")
    with pytest.raises(ArchiveError, match="say with --reason why"):
        exclude_images(archive.uri, ["001.png"], reason=" ")
    with pytest.raises(ArchiveError, match=r"001\.png is not excluded"):
        include_images(archive.uri, ["001.png"])
    assert read_exclusions(archive) == {}


def test_ambiguous_name_lists_the_images(tmp_path: Path) -> None:
    images = archive_rows(scene_images(2, 64))
    other = [replace(row, category="other") for row in archive_rows(scene_images(2, 64, seed=21))]
    archive = write_archive(tmp_path / "two", [*images, *other])
    with pytest.raises(ArchiveError, match=r"000\.png fits 2 images: .* \(sha256 "):
        exclude_images(archive.uri, ["000.png"], reason="x")


def test_fit_leaves_images_out_and_knows_why(archive: Location) -> None:
    exclude_images(archive.uri, ["001.png"], reason="scratched")
    config, reasons = _without_images(load_config("embedded"), archive, read_manifest(archive), ["part"], ["004.png"])
    assert {uri.rpartition("/")[2]: reason for uri, reason in reasons["part"].items()} == {
        "001.png": "scratched",
        "004.png": "left out of this fit",
    }
    assert used(archive, *config.normal_images.exclude) == ["000.png", "002.png", "003.png", "005.png", "006.png"]
    with pytest.raises(ArchiveError, match=r"no image 9\.png"):
        _without_images(config, archive, read_manifest(archive), ["part"], ["9.png"])


def test_configuration_may_name_images_of_other_categories(tmp_path: Path) -> None:
    images = archive_rows(scene_images(2, 64))
    other = [replace(row, category="other", name=f"o{row.name}") for row in archive_rows(scene_images(2, 64, seed=21))]
    archive = write_archive(tmp_path / "two", [*images, *other])
    config = load_config("embedded", ["normal_images.exclude=[001.png, o000.png]"])
    manifest = read_manifest(archive)
    for category, left_out in (("part", "001.png"), ("other", "o000.png")):
        _, reasons = _without_images(config, archive, manifest, [category], [])
        assert [uri.rpartition("/")[2] for uri in reasons[category]] == [left_out]
    with pytest.raises(ArchiveError, match=r"no image o000\.png"):
        _without_images(load_config("embedded"), archive, manifest, ["part"], ["o000.png"])
    wrong = load_config("embedded", ["normal_images.exclude=[9.png]"])
    with pytest.raises(ArchiveError, match=r"no image 9\.png"):
        _without_images(wrong, archive, manifest, ["part"], [])
    row = DeletedRow("k" * 32, "i" * 64, (), "part", "/source/part/9.png", "images/part/0.parquet")
    write_deletion(archive, [row], deleted_by="a", reason="b")
    assert _without_images(wrong, archive, manifest, ["part"], [])[1] == {"part": {}}


def test_image_size_ignores_excluded_images(tmp_path: Path) -> None:
    rows = [*archive_rows(scene_images(1, 128)), *archive_rows(scene_images(2, 64))[1:]]
    archive = write_archive(tmp_path / "sizes", rows)
    config = load_config("embedded")
    assert with_image_size(config, archive, read_manifest(archive), "part").image_size == (96, 96)
    exclude_images(archive.uri, ["000.png"], reason="another camera")
    assert with_image_size(config, archive, read_manifest(archive), "part").image_size == (64, 64)


def test_command_line(archive: Location) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, ["archive", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert "0 images are left out" in run("list", archive.uri)
    shown = run("exclude", archive.uri, "003.png", "004.png", "--reason", "scratched")
    assert shown.count("excluded ") == 2
    assert "2 images are left out" in shown
    assert "included " in run("include", archive.uri, "003.png")
    assert CliRunner().invoke(cli, ["archive", "exclude", archive.uri]).exit_code == 2
    assert isinstance(CliRunner().invoke(cli, ["archive", "exclude", archive.uri, "1.png"]).exception, UserError)

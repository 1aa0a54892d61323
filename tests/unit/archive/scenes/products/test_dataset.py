from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from uniad_ray.archive.layouts import Attachment, SourceImage, open_source
from uniad_ray.archive.scenes.products.dataset import ProductConfig, iterate_product_files, part_labels
from uniad_ray.archive.scenes.products.model import Flaw
from uniad_ray.archive.scenes.products.product import draw_image, draw_product
from uniad_ray.archive.scenes.writing import write_scenes
from uniad_ray.archive.stores.location import Location

SEED = 17
COUNTS = {"train": 2, "test_good": 1, "logical": 2, "structural": 2}


def config(**changes: object) -> ProductConfig:
    return ProductConfig.model_validate({"product": SEED, "category": "things", **COUNTS, **changes})


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written category."""
    root = tmp_path_factory.mktemp("product")
    report = write_scenes(str(root), config())
    assert report.category == "things"
    assert report.files == sum(path.is_file() for path in root.rglob("*"))
    return root


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_ingest_takes_exactly_the_images(tree: Path) -> None:
    for source in (tree, tree / "things"):
        opened = open_source(Location.parse(str(source)))
        entries = [entry for entry in opened.entries() if not isinstance(entry, Attachment)]
        assert opened.layout.name == "mvtec"
        assert all(isinstance(entry, SourceImage) for entry in entries)
        assert len(entries) == sum(COUNTS.values())
        masks = [entry.mask_uris for entry in entries if isinstance(entry, SourceImage) and entry.label == "anomalous"]
        assert [len(uris) for uris in masks] == [1, 1, 1, 1]
        assert {entry.category for entry in entries if isinstance(entry, SourceImage)} == {"things"}
        assert list(opened.defects) == ["things"]


def test_images_of_a_stated_size_and_flaw() -> None:
    options = config(train=0, test_good=1, logical=0, structural=1, image_size=800, flaw_share=(0.0003, 0.0003))
    files = {file.path: file.data for file in iterate_product_files(options)}
    image = Image.open(io.BytesIO(files["things/test/good/000.png"]))
    assert max(image.size) == 800
    described = json.loads(files["things/product.json"])
    assert [described["width"], described["height"]] == list(image.size)
    area = described["images"]["test/structural_anomalies/000.png"]["area"]
    assert area == pytest.approx(0.0003, rel=0.1)


def test_flaws_that_nobody_sees_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"flaw_share 1e-05 is .* pixels of .*a flaw needs at least 12"):
        config(flaw_share=(0.00001, 0.001))
    with pytest.raises(ValidationError, match="name the smaller size first"):
        config(flaw_share=(0.002, 0.001))


def test_an_image_does_not_depend_on_the_number_of_images(tree: Path) -> None:
    fewer = {file.path: file.data for file in iterate_product_files(config(train=1, logical=1, structural=1))}
    own = {path: data for path, data in fewer.items() if not path.endswith("product.json")}
    assert len(own) == 1 + 4 * 2 + 2
    assert all((tree / path).read_bytes() == data for path, data in own.items())


def test_same_options_give_the_same_bytes(tree: Path) -> None:
    for file in iterate_product_files(config()):
        assert (tree / file.path).read_bytes() == file.data


def test_parts_are_label_maps_with_kinds(tree: Path) -> None:
    description = json.loads((tree / "things/product.json").read_text())
    product = draw_product(SEED)
    assert description["rules"] == list(product.rules)
    assert (description["height"], description["width"]) == product.shape
    assert len(description["images"]) == sum(COUNTS.values())
    for path, about in description["images"].items():
        split, group, name = path.split("/")
        labels = pixels(tree / f"things/parts/{split}-{group}/{name}")
        assert labels.shape == product.shape
        assert set(np.unique(labels)) <= set(range(len(about["parts"]) + 1))
        drawn = draw_image(product, split, group, int(name[:3]))
        assert (labels == part_labels(drawn)).all()
        assert about["parts"] == list(drawn.part_kinds)
        for number, mask in enumerate(drawn.part_masks, start=1):
            assert ((labels == number) == mask).all()


def test_masks_name_their_defect(tree: Path) -> None:
    defects = json.loads((tree / "things/defects_config.json").read_text())
    by_value = {entry["pixel_value"]: entry for entry in defects}
    assert len(by_value) == len(defects)
    about = json.loads((tree / "things/product.json").read_text())["images"]
    for group in ("logical_anomalies", "structural_anomalies"):
        for index in range(2):
            mask = pixels(tree / f"things/ground_truth/{group}/{index:03d}/000.png")
            (value,) = set(np.unique(mask)) - {0}
            described = about[f"test/{group}/{index:03d}.png"]
            assert by_value[int(value)]["defect_name"] == described["defect"]
            assert by_value[int(value)]["relative_saturation"] == (described["defect"] in set(Flaw))
            if group == "structural_anomalies":
                assert described["area"] == pytest.approx((mask > 0).mean(), abs=1e-6)
            else:
                assert 1 <= by_value[int(value)]["saturation_threshold"] < mask.size


def test_jpeg_has_the_same_content(tree: Path) -> None:
    files = iterate_product_files(config(image_format="jpeg", test_good=0, logical=0, structural=0, train=1))
    (image,) = (file for file in files if file.is_image)
    assert image.path == "things/train/good/000.jpg"
    decoded = np.asarray(Image.open(io.BytesIO(image.data))).astype(int)
    assert np.abs(decoded - pixels(tree / "things/train/good/000.png")).mean() < 4


@pytest.mark.parametrize("wrong", [{"category": "a/b"}, {"product": -1}, {"train": -1}, {"image_size": 8}])
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        config(**wrong)

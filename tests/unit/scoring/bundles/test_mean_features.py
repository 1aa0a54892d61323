"""Means of feature maps: equal to a plain loop, over the region alone, and only of networks that were not trained."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from support.profiles import small_config
from support.scene_images import GivenNormalImages, scene_images

from uniad_ray.archive.images import decode_image
from uniad_ray.config.region import RegionMask
from uniad_ray.scoring.bundles.bundle import Bundle
from uniad_ray.scoring.bundles.mean_features import mean_features
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category

Bundles = Callable[..., Bundle]


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    def build(*overrides: str) -> Bundle:
        fitted = fit_category(GivenNormalImages(scene_images(8, 64)), small_config("calibration.folds=2", *overrides))
        store = BundleStore(str(tmp_path_factory.mktemp("bundles")))
        manifest = store.write(
            "part", fitted.config, fitted.calibration, {"extractors": fitted.extractors}, fitted.files
        )
        return store.load("part", manifest.version)

    return build


def encoded(image: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "PNG")
    return sink.getvalue()


def test_means_equal_a_plain_loop(bundle_of: Bundles) -> None:
    bundle = bundle_of()
    measure = mean_features(bundle)
    assert measure is not None
    files = [encoded(image) for image in scene_images(11, 64)]
    found = measure([files[0], b"no image", *files[1:]])
    assert found[1] == ()
    fields = sorted(bundle.manifest.config.experts["patch"].config["fields"])
    assert list(measure.fields) == fields
    pipeline = bundle.pipeline([(name, "test") for name in fields])
    for data, features in zip(files, (found[0], *found[2:]), strict=True):
        pixels = decode_image(data, bundle.manifest.config.decoded_size)
        perception = pipeline.extract(["key"], pixels[None], frozenset(fields))
        maps = [perception.fields[name][0].numpy() for name in fields]
        assert features == pytest.approx([channel.mean() for each in maps for channel in each], rel=1e-4, abs=1e-5)


def test_only_the_region_is_measured(bundle_of: Bundles) -> None:
    inside = np.zeros((64, 64), bool)
    inside[:, :32] = True
    region = RegionMask.of(inside).model_dump()
    bundle = bundle_of(f"regions={{part: {region}}}")
    measure = mean_features(bundle)
    assert measure is not None
    image = scene_images(9, 64)[8]
    changed = image.copy()
    changed[:, 40:] = 255
    assert measure([encoded(image)]) == measure([encoded(changed)])
    changed[:, :20] = 255
    assert measure([encoded(image)]) != measure([encoded(changed)])


def test_bundle_whose_networks_are_all_trained_has_none(bundle_of: Bundles) -> None:
    """Expert `logical_teacher` reads components, which are learned from the normal images."""
    assert mean_features(bundle_of("expert_sets.trained=[logical_teacher]", "expert_set=trained")) is None

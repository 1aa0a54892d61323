from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.normal_images import DrawnNormalImages
from support.profiles import small_config

from uniad_ray.archive.stores.location import Location
from uniad_ray.cli.verbs.models.bundles import as_text
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import BundleError, FitError
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.bundles.versions import list_bundles
from uniad_ray.scoring.calibration import choose_threshold
from uniad_ray.scoring.fitting.category import FittedCategory, fit_category
from uniad_ray.scoring.fitting.perceptions import NormalImage


@pytest.fixture(scope="module")
def fitted() -> FittedCategory:
    return fit_category(DrawnNormalImages(8), small_config())


def stored(root: Path | str, fitted: FittedCategory) -> tuple[BundleStore, str]:
    store = BundleStore(str(root))
    manifest = store.write("part", fitted.config, fitted.calibration, {"extractors": fitted.extractors}, fitted.files)
    store.publish("part", manifest.version)
    return store, manifest.version


def test_restored_bundle_gives_same_scores(store_root: str, fitted: FittedCategory) -> None:
    store, version = stored(store_root, fitted)
    bundle = store.load("part")
    assert bundle.manifest.version == version
    assert bundle.manifest.config.origin == bundle.manifest.name == f"bundle part {version}"
    scorer = bundle.scorer()
    bundle.check_reference(scorer)
    images = np.stack([DrawnNormalImages(3).image(index) for index in range(3)])
    first = scorer.score(["a", "b", "c"], images)
    second = store.load("part").scorer().score(["a", "b", "c"], images)
    assert [verdict.score for verdict in first] == [verdict.score for verdict in second]


def test_bundle_has_no_pickle(tmp_path: Path, fitted: FittedCategory) -> None:
    stored(tmp_path, fitted)
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors", ".parquet"}


def test_changed_file_is_refused(tmp_path: Path, fitted: FittedCategory) -> None:
    store, version = stored(tmp_path, fitted)
    path = tmp_path / "part" / version / "experts/patch.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"patch\.safetensors: checksum mismatch: the file is corrupt"):
        store.load("part")
    with pytest.raises(BundleError, match="checksum mismatch: the file is corrupt"):
        store.publish("part", version)
    path.write_bytes(bytes(data) + b"more")
    with pytest.raises(BundleError, match="checksum mismatch: the file is corrupt"):
        store.load("part")
    path.unlink()
    with pytest.raises(BundleError, match="missing"):
        store.load("part")


def test_changed_published_manifest_is_refused(tmp_path: Path, fitted: FittedCategory) -> None:
    store, version = stored(tmp_path, fitted)
    path = tmp_path / "part" / version / "manifest.json"
    document = json.loads(path.read_text())
    document["calibration"]["threshold"]["value"] = 1e9
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match="was changed after it was published"):
        store.load("part")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "bundle format 2; this version of uniad_ray reads 3; fit again"),
        ({"format_version": None}, "format_version: Input should be a valid integer"),
        ({"calibration": {}}, "calibration.method: Field required"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
    ],
)
def test_invalid_manifest_is_refused(
    tmp_path: Path, fitted: FittedCategory, change: dict[str, object], message: str
) -> None:
    store, version = stored(tmp_path, fitted)
    path = tmp_path / "part" / version / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BundleError, match=message):
        store.load("part", version)


def test_publish_accepts_newer_and_older_versions(tmp_path: Path, fitted: FittedCategory) -> None:
    store, first = stored(tmp_path, fitted)
    other = fit_category(DrawnNormalImages(8), small_config("experts.patch.config.memory_size=20"))
    second = store.write("part", other.config, other.calibration, {"extractors": other.extractors}, other.files).version
    assert store.load("part").manifest.version == first
    store.publish("part", second)
    assert store.load("part").manifest.version == second
    store.publish("part", first)
    assert store.load("part").manifest.version == first
    assert [manifest.version for manifest in store.versions("part").manifests] == sorted([first, second])
    with pytest.raises(BundleError, match="no version 'gone' of category 'part'; there are: "):
        store.publish("part", "gone")


def test_same_fit_keeps_a_threshold_that_a_user_has_set(tmp_path: Path, fitted: FittedCategory) -> None:
    store, version = stored(tmp_path, fitted)
    first = store.manifest("part", version)
    assert store.publish_fit(first) == (first, None)
    high = first.calibration.threshold.model_copy(update={"value": 99.0, "method": "set_by_hand"})
    written = store.write_threshold(store.load("part"), high, None, {"option": "--value 99"})
    store.publish("part", written.version)
    own = store.manifest("part", written.version)
    again = store.write("part", fitted.config, fitted.calibration, first.lineage, fitted.files)
    assert again == first
    assert store.publish_fit(again) == (own, own)
    # The archive has grown by images of other categories: a new version with the same content.
    lineage = {**first.lineage, "archive": {"uri": "a", "digest": "d"}}
    grown = store.write("part", fitted.config, fitted.calibration, lineage, fitted.files)
    assert store.publish_fit(grown) == (own, own)
    assert store.load("part").manifest.calibration.threshold.value == 99.0
    other = fitted.config.model_copy(update={"batch_size": fitted.config.batch_size + 1})
    changed = store.write("part", other, fitted.calibration, first.lineage, fitted.files)
    assert store.publish_fit(changed)[1] == own
    assert store.load("part").manifest.version == changed.version


def test_fit_replaces_a_published_version_that_cannot_be_read(tmp_path: Path, fitted: FittedCategory) -> None:
    store, version = stored(tmp_path, fitted)
    (tmp_path / "part" / version / "manifest.json").unlink()
    first = store.write("part", fitted.config, fitted.calibration, {"fit": 2}, fitted.files)
    assert store.publish_fit(first) == (first, None)
    (tmp_path / "part" / "current.json").write_text("{}", "utf-8")
    second = store.write("part", fitted.config, fitted.calibration, {"fit": 3}, fitted.files)
    assert store.publish_fit(second) == (second, None)
    assert store.load("part").manifest.digest == second.digest


def test_missing_bundle_gives_advice(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no published bundle for category 'part'; fit one"):
        BundleStore(str(tmp_path)).load("part")


def test_unusual_category_names_stay_distinct(tmp_path: Path, fitted: FittedCategory) -> None:
    store = BundleStore(str(tmp_path))
    for name in ("a b", "a/b", "..", "ü"):
        manifest = store.write(name, fitted.config, fitted.calibration, {"extractors": fitted.extractors}, fitted.files)
        store.publish(name, manifest.version)
    assert store.categories() == sorted(["a b", "a/b", "..", "ü"])
    assert all(store.load(name).manifest.category == name for name in ("a b", "a/b", "..", "ü"))
    assert all(Location.parse(tmp_path).uri in store.folder(name, "v").uri for name in ("..",))


def test_other_rate_changes_threshold_without_fit(tmp_path: Path, fitted: FittedCategory) -> None:
    bundle = stored(tmp_path, fitted)[0].load("part")
    strict = bundle.scorer(false_positive_rate=0.5)
    assert strict.threshold < bundle.scorer().threshold
    assert bundle.scorer().threshold == bundle.manifest.calibration.threshold.value


def test_other_weights_are_refused(tmp_path: Path, fitted: FittedCategory) -> None:
    store = BundleStore(str(tmp_path))
    extractors = json.loads(json.dumps(fitted.extractors))
    extractors["pyramid"]["weights"]["sha256"] = "0" * 64
    manifest = store.write("part", fitted.config, fitted.calibration, {"extractors": extractors}, fitted.files)
    with pytest.raises(BundleError, match="network pyramid was fitted with weights of sha256 0000"):
        store.load("part", manifest.version).scorer()


def test_different_reference_scores_are_refused(tmp_path: Path, fitted: FittedCategory) -> None:
    document = json.loads(fitted.files["reference.json"])
    document["raw"]["patch"] = [value + 1 for value in document["raw"]["patch"]]
    files = {**fitted.files, "reference.json": json.dumps(document).encode()}
    store = BundleStore(str(tmp_path))
    manifest = store.write("part", fitted.config, fitted.calibration, {"extractors": fitted.extractors}, files)
    bundle = store.load("part", manifest.version)
    with pytest.raises(BundleError, match="expert patch gives the reference images"):
        bundle.check_reference(bundle.scorer())


def config(*overrides: str) -> FitConfig:
    return small_config("experts.patch.config.memory_size=20", *overrides)


def test_split_method_depends_on_image_count() -> None:
    many = fit_category(DrawnNormalImages(60), config("calibration.holdout_from=60")).calibration
    assert many.method == "holdout"
    assert many.fit_images + many.held_out_images == 60
    assert 0 < many.held_out_images < 30
    few = fit_category(DrawnNormalImages(12), config()).calibration
    assert (few.method, few.fit_images, few.held_out_images) == ("cross_fit", 12, 12)


def test_large_validation_split_is_used_for_calibration() -> None:
    images = DrawnNormalImages(30)
    images.rows = [
        NormalImage(r.row_key, r.image_id, "validation" if i < 22 else "train") for i, r in enumerate(images.rows)
    ]
    record = fit_category(images, config()).calibration
    assert (record.method, record.fit_images, record.held_out_images) == ("validation_split", 8, 22)
    record = fit_category(images, config("calibration.min_validation=25")).calibration
    assert (record.method, record.fit_images) == ("cross_fit", 30)


def test_threshold_follows_from_held_out_scores(fitted: FittedCategory) -> None:
    table = pq.read_table(io.BytesIO(fitted.files["calibration_scores.parquet"])).to_pylist()
    assert len(table) == 8
    scores = np.array([row["score"] for row in table])
    raw = np.array([row["experts"][0]["raw"] for row in table])
    others = [np.delete(raw, index) for index in range(8)]
    expected = [(own - rest.mean()) / rest.std(ddof=1) for own, rest in zip(raw, others, strict=True)]
    np.testing.assert_allclose(scores, expected)
    assert fitted.calibration.threshold == choose_threshold(scores, 0.1)


def test_experts_have_not_seen_held_out_images() -> None:
    """With all vectors kept, a fitted image has distance zero everywhere."""
    record = fit_category(DrawnNormalImages(6), small_config("experts.patch.config.selection=all")).calibration
    assert record.experts["patch"].mean > 0.1


def test_corrupt_images_are_skipped() -> None:
    record = fit_category(DrawnNormalImages(12, damaged=frozenset({0, 5})), config()).calibration
    assert record.held_out_images == 10


def test_impossible_fits_are_refused() -> None:
    with pytest.raises(FitError, match="1 distinct normal images of 1"):
        fit_category(DrawnNormalImages(1), config())
    with pytest.raises(FitError):
        fit_category(DrawnNormalImages(4, damaged=frozenset(range(4))), config())


def test_fit_is_deterministic() -> None:
    assert fit_category(DrawnNormalImages(6), config()).files == fit_category(DrawnNormalImages(6), config()).files


def test_random_weights_are_recorded(tmp_path: Path) -> None:
    vit = (
        "extractors.vit={class: 'uniad_ray.perception.features.encoders:TokenEncoder', config: {architecture: "
        "vit_tiny_patch16_224, weights: {uri: 'random:0'}, blocks: [2, 5], input_size: 64}}"
    )
    fitted = fit_category(DrawnNormalImages(6), config(vit, "experts.patch.config.fields=[vit/block2, vit/block5]"))
    assert not fitted.extractors["vit"]["weights"]["trained"]
    bundle = stored(tmp_path, fitted)[0].load("part")
    bundle.check_reference(bundle.scorer())


def test_version_that_cannot_be_read_hides_no_other(tmp_path: Path, fitted: FittedCategory) -> None:
    store, version = stored(tmp_path, fitted)
    other = tmp_path / "part" / "20200101-000000-00000000" / "manifest.json"
    other.parent.mkdir()
    other.write_text('{"format_version": 99}')

    again = store.write("part", fitted.config, fitted.calibration, {"extractors": fitted.extractors}, fitted.files)

    assert again.version == version
    listed = list_bundles(str(tmp_path))
    assert [(entry.version, entry.published) for entry in listed.bundles] == [(version, True)]
    assert len(listed.unreadable) == 1
    assert "20200101-000000-00000000" in listed.unreadable[0]
    text = as_text(listed).splitlines()
    assert version in text[-2]
    assert text[-1] == f"unreadable: {listed.unreadable[0]}"

"""Normal images of a fit pass the networks in several Ray actors, and give the same bundle as in one process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.profiles import small_config
from support.trees import mvtec_tree, png, write

from uniad_ray.archive.shards import ShardLimits
from uniad_ray.config.model import FitConfig
from uniad_ray.pipelines.cluster.session import usable_cpus
from uniad_ray.pipelines.fit import job
from uniad_ray.pipelines.fit.opening import FitTask
from uniad_ray.pipelines.fit.rounds import tasks_in_memory
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.pipelines.precompute.job import precompute
from uniad_ray.scoring.bundles.bundle import Bundle
from uniad_ray.scoring.bundles.store import BundleStore

pytestmark = pytest.mark.usefixtures("ray_cluster")
HOLD_OUT = "calibration.holdout_from=10"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("extraction")
    mvtec_tree(root / "source/nut", train=24, good=1, bad=1, size=64)
    ingest(str(root / "source"), str(root / "archive"), limits=ShardLimits(rows=6, row_group_rows=3))
    return str(root / "archive")


class Fits:
    """Fits bundles; what a report and a bundle say, and in which processes the network ran."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch

    def config(self, name: str, *overrides: str, ends: int = 0) -> FitConfig:
        """A patch memory on a network that notes its processes in the file `name`."""
        return small_config(
            "extractors.pyramid.class=support.solitary_pyramid:SolitaryPyramid",
            f"extractors.pyramid.config.marker={self.folder / name}",
            f"extractors.pyramid.config.ends={ends}",
            "batch_size=2",
            *overrides,
        )

    def fit(
        self, archive: str, name: str, *overrides: str, parallel_from: float, ends: int = 0, sidecar: str | None = None
    ) -> tuple[Bundle, dict[str, str], set[str]]:
        self.monkeypatch.setattr(job, "FitTask", partial(FitTask, parallel_from=parallel_from))
        marker, bundles = self.folder / name, str(self.folder / f"{name}-bundles")
        marker.write_text("")
        config = self.config(name, *overrides, ends=ends)
        report = job.fit(archive, bundles, config, accept_unusual=True, sidecar=sidecar)
        assert report.failed == {}
        (fitted,) = report.fitted
        return BundleStore(bundles).load("nut", fitted.version), fitted.skipped, set(marker.read_text().split())


@pytest.fixture
def fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fits:
    if usable_cpus() < 2 or tasks_in_memory() < 2:
        pytest.skip("parallel extraction needs two CPUs and about 9 GiB of memory")
    return Fits(tmp_path, monkeypatch)


@pytest.mark.parametrize("overrides", [(), (HOLD_OUT,)], ids=["cross_fit", "hold_out"])
def test_several_processes_give_the_bundle_of_one(archive: str, fits: Fits, overrides: tuple[str, ...]) -> None:
    alone, _, one = fits.fit(archive, "alone", *overrides, parallel_from=np.inf)
    parallel, _, several = fits.fit(archive, "parallel", *overrides, parallel_from=0.0)

    assert len(one) == 1
    # The fit itself extracts the first batch and the reference images. A single actor may be the first to be ready.
    assert len(several) > 1
    assert content(parallel) == content(alone)


@pytest.mark.slow
def test_a_process_that_dies_loses_nothing(archive: str, fits: Fits) -> None:
    alone, _, _ = fits.fit(archive, "alone", parallel_from=np.inf)
    one_left, _, processes = fits.fit(archive, "one_left", parallel_from=0.0, ends=1)
    bereft, _, _ = fits.fit(archive, "bereft", parallel_from=0.0, ends=2)

    assert len(processes) > 1
    assert content(one_left) == content(bereft) == content(alone)


def test_damaged_images_are_named(fits: Fits, tmp_path: Path) -> None:
    tree = mvtec_tree(tmp_path / "source/nut", train=24, good=1, bad=1, size=64)
    for number in (3, 8, 9):
        write(tree / f"train/good/{number:03d}.png", png(number, 64)[:300])
    ingest(str(tmp_path / "source"), str(tmp_path / "damaged"))

    alone, skipped, _ = fits.fit(str(tmp_path / "damaged"), "alone", parallel_from=np.inf)
    parallel, also, processes = fits.fit(str(tmp_path / "damaged"), "parallel", parallel_from=0.0)

    assert len(processes) > 1
    assert also == skipped
    assert [Path(uri).name for uri in skipped] == ["003.png", "008.png", "009.png"]
    assert content(parallel) == content(alone)


@pytest.mark.slow
def test_stored_fields_are_read_by_all(archive: str, fits: Fits, tmp_path: Path) -> None:
    alone, _, _ = fits.fit(archive, "alone", parallel_from=np.inf)
    sidecar = str(tmp_path / "sidecar")
    precompute(archive, sidecar, fits.config("same"))

    parallel, _, processes = fits.fit(archive, "same", parallel_from=0.0, sidecar=sidecar)

    # Only the reference images pass the network.
    assert len(processes) <= 1
    assert content(parallel) == content(alone)


def content(bundle: Bundle) -> Mapping[str, str]:
    """Digests of all files; the lineage is not among them."""
    return bundle.manifest.files

"""The scale model against runs on one, two and three nodes, which are raylets of this machine.

The nodes share the cores of this machine, so the work must not need them: a plug-in expert waits instead of computing.
What is checked is the rest of the model: chunks that are handed out, decoded and waited for, actors that are idle, and
the end of a run. The costs come from the timing of the run on one node; the other predictions know nothing of the runs
they are compared with. Times count from the end of the first quarter of the chunks, because actors start one after the
other on a busy machine. The script prints one JSON document.

    python benchmarks/scale_check.py --nodes 1 2 3
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from scale_model import Costs, NodeType, commits, measured
from score_pipeline import cli, note

from uniad_ray import Evidence, State, StrictModel

CORES: Final = 4
ACTORS: Final = 2
CHUNK_IMAGES: Final = 16
LIMIT: Final = 0.15


class WaitingConfig(StrictModel):
    """Options of the waiting expert.

    Attributes:
        seconds: Time that an image takes.
    """

    seconds: float = 0.0


class Waiting:
    """A fake of the work of networks: it takes the time of an image, and no core."""

    config_model = WaitingConfig
    needs: frozenset[str] = frozenset()

    def __init__(self, name: str, config: WaitingConfig) -> None:
        """Creates the expert."""
        self.name, self.config = name, config

    def fit(self, stream: Any) -> None:
        """Learns nothing."""
        for _ in stream():
            pass

    def score(self, perception: Any) -> Evidence:
        """Waits; the score is the mean of the pixels."""
        time.sleep(self.config.seconds * len(perception))
        means = perception.images.astype(np.float64).mean(axis=(1, 2, 3))
        return Evidence(means, maps=None, reasons=[[] for _ in means])

    def state(self) -> State:
        """Nothing."""
        return State(arrays={"none": np.zeros(1)})

    @classmethod
    def from_state(cls, name: str, config: WaitingConfig, _: State) -> Waiting:
        """Restores the expert."""
        return cls(name, config)


def main() -> None:
    """Run the benchmark, or one run in a child process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1440, help="Number of images in the archive.")
    parser.add_argument("--seconds", type=float, default=0.2, help="Time that an image takes.")
    parser.add_argument(
        "--nodes", type=int, nargs="+", default=[1, 2, 3], help="Numbers of nodes; the first gives the costs."
    )
    parser.add_argument("--child", nargs=2, metavar=("NODES", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        nodes, folder = options.child
        run_on(int(nodes), Path(folder))
        return
    with tempfile.TemporaryDirectory(prefix="uniad-ray-scale-check-") as folder:
        print(json.dumps(check(Path(folder), options), indent=1))


def check(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run on every number of nodes, and compare with the model."""
    # The drivers and Ray's workers import the expert from here.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    prepare(root, options.images, options.seconds)
    runs = {nodes: run_in_child(nodes, root) for nodes in options.nodes}
    costs = Costs(**measured(str(root / f"run-{options.nodes[0]}"), CHUNK_IMAGES), start=0.0)
    kind = NodeType(CORES, price=0.0, workers=ACTORS)
    compared = []
    for nodes, ends in runs.items():
        seconds = since_first_quarter(ends)
        predicted = since_first_quarter(commits(costs, kind, nodes, options.images))
        compared.append(
            {
                "nodes": nodes,
                "seconds": round(seconds, 1),
                "predicted": round(predicted, 1),
                "difference": round(predicted / seconds - 1, 3),
            }
        )
        note(json.dumps(compared[-1]))
    return {
        "costs": asdict(costs),
        "runs": compared,
        "limit": LIMIT,
        "within_limit": all(abs(entry["difference"]) <= LIMIT for entry in compared),
    }


def prepare(root: Path, images: int, seconds: float) -> None:
    """Draw tiny images, and fit a bundle whose expert waits."""
    counts = (f"--train={images}", "--test-good=0", "--logical=0", "--structural=0")
    cli("scenes", str(root / "drawn"), "--image-size=64", *counts)
    drawn, few = root / "drawn/trays/train/good", root / "few"
    cli("ingest", str(drawn), str(root / "archive"), "--category=trays", f"--chunk-images={CHUNK_IMAGES}")
    few.mkdir()
    for path in sorted(drawn.glob("*.png"))[:20]:
        (few / path.name).hardlink_to(path)
    cli("ingest", str(few), str(root / "fitted"), "--category=trays", "--split=train", "--label=normal")
    waiting = f"experts.waiting={{class: 'scale_check:Waiting', config: {{seconds: {seconds}}}}}"
    settings = (waiting, "expert_sets.waiting=[waiting]", "expert_set=waiting")
    cli("fit", str(root / "fitted"), "--bundles", str(root / "bundles"), *(f"--set={setting}" for setting in settings))


def run_in_child(nodes: int, root: Path) -> list[float]:
    """Run in a process of its own; returns when each chunk was committed."""
    subprocess.run([sys.executable, __file__, "--child", str(nodes), str(root)], check=True)  # noqa: S603
    return sorted(path.stat().st_mtime for path in (root / f"run-{nodes}/scores").rglob("*.parquet"))


def run_on(nodes: int, root: Path) -> None:
    """Score the archive on a cluster of so many raylets."""
    import ray
    from ray.cluster_utils import Cluster

    from uniad_ray.pipelines.cluster.sizing import Workers
    from uniad_ray.pipelines.score.job import score

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": CORES})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=CORES)
        ray.init(address=cluster.address, log_to_driver=False)
        score(str(root / "archive"), str(root / "bundles"), str(root / f"run-{nodes}"), workers=Workers(ACTORS * nodes))
    finally:
        ray.shutdown()
        cluster.shutdown()


def since_first_quarter(ends: Sequence[float]) -> float:
    """Seconds from the end of the first quarter of the chunks to that of the last chunk."""
    ordered = sorted(ends)
    return ordered[-1] - ordered[len(ordered) // 4]


if __name__ == "__main__":
    main()

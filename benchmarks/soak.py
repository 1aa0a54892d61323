"""Runs under attack: kills processes of scoring runs at random while their store fails, and compares every row.

One Ray cluster of a head and a second node runs all the time. Its jobs score a small archive on an S3 server behind a
proxy that answers a share of the requests with 500 or 503, cuts downloads, and sometimes is away for seconds. Whenever
a job has committed a chunk since the last kill, the script kills one of its processes with kill -9: an actor that
scores, another worker, the raylet of the second node with all its workers, or the driver. A driver that died is
started again with the same command, and a raylet likewise. A run that has finished is compared with an undisturbed one
of the same archive, row by row, and the next one starts.

The script prints one JSON document and ends with 1 if a row is lost, doubled or different. The scorer is real but
small: one patch memory on images of 64 pixels.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.flaky_store import FlakyStore, flaky_store
from support.job_cluster import BIN, HEAD, MARK, WORKER, kill_marked, marked_processes, remove, wait_for_runtime
from support.nights import CATEGORY, without_ray, write_factory
from support.s3_server import free_ports, run_s3_server
from support.trees import png, write

from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores.location import Location
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.pipelines.score.job import score

WEIGHTS = {"actor": 8, "worker": 6, "driver": 1, "raylet": 1, "store": 1}
PATIENCE_SECONDS = 90
"""How long to wait for a chunk before the next kill; a killed driver needs some time to start."""
HEAD_STARTS = 4
ATTEMPTS = 60
"""Starts of a driver after which a run counts as unfinished."""


def main() -> int:
    """Runs the soak and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="Number of kills after which the last run ends.")
    parser.add_argument("--minutes", type=float, default=60, help="Time after which the last run ends.")
    parser.add_argument("--images", type=int, default=240, help="Number of images in the archive.")
    parser.add_argument("--error-share", type=float, default=0.1, help="Share of requests answered with 500 or 503.")
    parser.add_argument("--cut-share", type=float, default=0.05, help="Share of downloads that are cut.")
    parser.add_argument("--away-seconds", type=float, default=20, help="Longest time that the store is away.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the choice of victims.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uniad-ray-soak-") as folder, run_s3_server() as server:
        os.environ.update(server.environment)
        with flaky_store(server.endpoint) as store:
            root = f"s3://{server.bucket}/soak"
            prepare(Path(folder), root, options.images)
            os.environ["AWS_ENDPOINT_URL"] = store.endpoint
            with cluster() as nodes:
                figures = Soak(options, Path(folder), root, store, nodes).run()
    print(json.dumps(figures, indent=1))
    return int(any(figures[name] for name in ("lost", "doubled", "different", "unfinished")) or not figures["runs"])


def prepare(folder: Path, root: str, images: int) -> None:
    """Fits a bundle, ingests the images, and scores them without Ray and without faults."""
    note("preparing an archive, a bundle and an undisturbed run")
    write_factory(folder, images=12)
    for index in range(images):
        write(folder / f"source/{index:05d}.png", png(100 + index, spot=index % 3 == 0))
    write(folder / "source/cut-off.png", png(99)[:-40])
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        limits = ShardLimits(rows=16, row_group_rows=2)
        ingest(str(folder / "source"), f"{root}/archive", category=CATEGORY, limits=limits)
        score(f"{root}/archive", str(folder / "bundles"), f"{root}/whole")


class Nodes:
    """The nodes of a cluster: a head, and a second one that can be killed and started again."""

    def __init__(self, folder: Path, environment: dict[str, str], address: str) -> None:
        self.folder, self.environment, self.address = folder, environment, address
        self._second: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def start_second(self) -> None:
        """Starts the second node without waiting for it."""
        self._starts += 1
        options = [f"--address={self.address}", f"--node-ip-address={WORKER}"]
        self._second = start_node(self.folder / f"second-{self._starts}.log", options, self.environment)

    @property
    def is_second_up(self) -> bool:
        """Whether the second node is running; its launcher ends soon after its raylet."""
        return self._second is not None and self._second.poll() is None

    def processes(self, *names: bytes) -> list[int]:
        """Processes of the cluster whose command line has one of the names."""
        found = []
        for pid in marked_processes(self.environment[MARK]):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                if any(name in line for name in names):
                    found.append(pid)
        return found


@contextlib.contextmanager
def cluster() -> Iterator[Nodes]:
    """Runs a head and a second node with two CPUs each."""
    note("starting Ray")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        MARK: secrets.token_hex(8),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    gcs, client = free_ports(2)
    folder = Path(tempfile.mkdtemp(prefix="ray-soak-"))
    nodes = Nodes(folder, environment, f"{HEAD}:{gcs}")
    try:
        head = ["--head", f"--node-ip-address={HEAD}", f"--port={gcs}", f"--ray-client-server-port={client}"]
        head += ["--include-dashboard=false", f"--temp-dir={folder}"]
        for left in reversed(range(HEAD_STARTS)):
            try:
                wait_for_runtime(folder / "head.log", start_node(folder / "head.log", head, environment))
                break
            except AssertionError:
                # On a busy machine, Ray gives up after 30 seconds.
                kill_marked(environment[MARK])
                if not left:
                    raise
        nodes.start_second()
        yield nodes
    finally:
        kill_marked(environment[MARK])
        remove(folder)


def start_node(log: Path, options: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts a node of the cluster."""
    (agent,) = free_ports(1)
    # Workers take any free port, to avoid conflicts with other clusters on this machine.
    common = ["--block", "--num-cpus=2", "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
    with log.open("wb") as file:
        return subprocess.Popen(  # noqa: S603
            [str(BIN / "ray"), "start", *common, f"--dashboard-agent-listen-port={agent}", *options],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
        )


class Soak:
    """Runs, one after the other, and the kills meanwhile."""

    def __init__(self, options: argparse.Namespace, folder: Path, root: str, store: FlakyStore, nodes: Nodes) -> None:
        self.options, self.folder, self.root, self.store, self.nodes = options, folder, root, store, nodes
        self.random = random.Random(options.seed)  # noqa: S311 - no secret
        self.kills: Counter[str] = Counter()
        self.found: Counter[str] = Counter(dict.fromkeys(("rows", "lost", "doubled", "different"), 0))
        self.runs = self.unfinished = self.failed = self.starts = 0
        self.started = time.monotonic()
        self.whole = rows(f"{root}/whole")
        self.driver: subprocess.Popen[bytes] | None = None

    def run(self) -> dict[str, Any]:
        """Attacks until the kills or the time are up and the last run has finished."""
        self.store.error_share, self.store.cut_share = self.options.error_share, self.options.cut_share
        while self.is_attacking or not self.runs:
            self.one_run(f"{self.root}/run-{self.runs + self.unfinished}")
            note(f"{self.runs} runs, kills {dict(self.kills)}, faults {dict(self.store.faults)}, {dict(self.found)}")
        minutes = (time.monotonic() - self.started) / 60
        return {
            "minutes": round(minutes, 1),
            "kills": dict(self.kills),
            "kills_in_all": self.kills.total(),
            "kills_per_hour": round(self.kills.total() / minutes * 60),
            "faults": dict(self.store.faults),
            "requests": self.store.requests,
            "runs": self.runs,
            "unfinished": self.unfinished,
            "driver_starts": self.starts,
            "drivers_that_failed_on_their_own": self.failed,
            **self.found,
            "cores": len(os.sched_getaffinity(0)),
            "load": os.getloadavg()[1],
        }

    @property
    def is_attacking(self) -> bool:
        """Whether kills and time are left."""
        is_in_time = time.monotonic() - self.started < self.options.minutes * 60
        return is_in_time and self.kills.total() < self.options.kills

    def one_run(self, out: str) -> None:
        """Scores the archive into `out` under attack, and compares the rows."""
        first = self.starts
        committed, waited = self.committed(out), time.monotonic()
        pause = 0.0
        while True:
            if self.driver is None:
                if self.starts - first == ATTEMPTS:
                    self.unfinished += 1
                    return
                self.driver = self.start_driver(out)
            if (code := self.driver.poll()) is not None:
                self.driver = None
                if code == 0:
                    break
                self.failed += code > 0
                continue
            if not self.nodes.is_second_up:
                self.nodes.start_second()
            if self.is_attacking:
                present = self.committed(out)
                if present > committed or time.monotonic() - waited > PATIENCE_SECONDS:
                    time.sleep(pause)
                    self.attack()
                    committed, waited, pause = self.committed(out), time.monotonic(), self.random.uniform(0, 3)
            time.sleep(0.3)
        self.compare(out)
        self.runs += 1

    def start_driver(self, out: str) -> subprocess.Popen[bytes]:
        """Starts the command, or starts it again."""
        self.starts += 1
        arguments = ["score", f"{self.root}/archive", "--bundles", str(self.folder / "bundles"), "--out", out]
        environment = {**self.nodes.environment, "RAY_ADDRESS": self.nodes.address}
        with (self.folder / "driver.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "uniad_ray.cli", *arguments, "--workers=2", "--quiet"],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def attack(self) -> None:
        """Kills a process, or lets the store go away."""
        kind = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if kind == "store":
            self.store.go_away(self.random.uniform(1, self.options.away_seconds))
            return
        if kind == "driver":
            victims = [self.driver.pid] if self.driver is not None else []
        elif kind == "raylet":
            victims = [
                pid
                for pid in self.nodes.processes(f"--node_ip_address={WORKER}".encode())
                if b"raylet/raylet" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ]
        else:
            victims = self.nodes.processes(*([b"ChunkScorer"] if kind == "actor" else [b"ray::Map(", b"ray::IDLE"]))
        if not victims:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.random.choice(victims), signal.SIGKILL)
            self.kills[kind] += 1
            note(f"killed {kind}, {self.kills.total()} in all")

    def committed(self, out: str) -> int:
        """Number of committed chunks, asked of the store itself."""
        with without_faults(self.store):
            return sum(1 for _ in (Location.parse(out) / "scores").list(suffix=".parquet"))

    def compare(self, out: str) -> None:
        """Counts the rows that are missing, twice there, or other than in the undisturbed run."""
        with without_faults(self.store):
            present = rows(out)
        self.found["rows"] += sum(map(len, present.values()))
        for key, wanted in self.whole.items():
            own = present.pop(key, [])
            self.found["lost"] += not own
            self.found["doubled"] += len(own) > 1
            self.found["different"] += bool(own) and own[0] != wanted[0]
        self.found["different"] += len(present)


@contextlib.contextmanager
def without_faults(store: FlakyStore) -> Iterator[None]:
    """Sends the requests of this process past the proxy."""
    os.environ["AWS_ENDPOINT_URL"] = store.upstream
    try:
        yield
    finally:
        os.environ["AWS_ENDPOINT_URL"] = store.endpoint


def rows(run: str) -> dict[str, list[bytes]]:
    """The bytes of each score row, by its key."""
    found: dict[str, list[bytes]] = {}
    for info in (Location.parse(run) / "scores").list(suffix=".parquet"):
        table = pq.read_table(io.BytesIO(info.location.read_bytes()))
        for index, key in enumerate(table.column("row_key").to_pylist()):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(pa.Table.from_pylist(table.slice(index, 1).to_pylist(), table.schema))
            found.setdefault(key, []).append(sink.getvalue().to_pybytes())
    return found


def note(text: str) -> None:
    """Tells on stderr what goes on; stdout has the result alone."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

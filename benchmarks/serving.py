"""Latency and throughput of the endpoint, compared with the scorer behind it.

The script fits a small category, unless `--bundles` names existing bundles, and measures in several rounds:

- `plain`: the same scorer in a loop in one process: first one image at a time, then in batches at full speed;
- `empty`: a Serve application that reads the body and responds at once; as `hop`, it calls a second deployment first;
- `endpoint`: `uniad-ray serve`, called by a process of clients, each with one persistent connection.

The overhead of the endpoint is its median with one client, less those of `plain` and `empty`. Its throughput is that
with the most clients. The script also measures the time from the start of the process to the first score, and the
memory of each further category in the replica. It prints one JSON document with the ratios of each round and their
medians.
"""

# No `from __future__ import annotations` here, because FastAPI reads types from the empty application's signatures.
import argparse
import contextlib
import http.client
import itertools
import json
import os
import queue
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from uniad_ray.pipelines.cluster.ray_start import start_local_ray
from uniad_ray.serving.command import OF_RAY

CATEGORIES = 4
WARM_UP = 24
SETTLE_SECONDS = 3.0
START_SECONDS = 300
SCORER = "ServeReplica:uniad_ray:Scorer"


def main() -> None:
    """Run the benchmark, or one of its child processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", metavar="ROOT", help="Bundles to serve; requests go to the first category.")
    parser.add_argument("--source", metavar="FOLDER", help="Images to send; required with --bundles.")
    parser.add_argument("--images", type=int, default=240, help="Number of requests per measurement.")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16], help="Numbers of concurrent clients.")
    parser.add_argument("--repeats", type=int, default=3, help="Number of rounds.")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, *arguments = options.child
        {"plain": plain, "clients": clients, "empty": empty}[kind](*arguments)
        return
    with tempfile.TemporaryDirectory(prefix="uniad-ray-benchmark-") as folder:
        bundles, source = options.bundles, options.source
        if bundles is None:
            bundles, source = prepare(Path(folder))
        measured = measure(bundles, source, options)
    print(json.dumps(measured, indent=1))


def prepare(folder: Path) -> tuple[str, str]:
    """Draw, ingest and fit a category, and copy its bundle to further categories."""
    from uniad_ray.scoring.bundles.store import BundleStore

    source, archive, bundles = folder / "source", folder / "archive", folder / "bundles"
    counts = ("--train=60", "--test-good=40", "--logical=10", "--structural=10")
    for arguments in (
        ["scenes", str(source), *counts],
        ["ingest", str(source), str(archive)],
        ["fit", str(archive), "--bundles", str(bundles), "--set", "expert_set=patch"],
    ):
        note(f"uniad-ray {arguments[0]} ...")
        command = [sys.executable, "-m", "uniad_ray.cli", *arguments]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    store = BundleStore(str(bundles))
    (category,) = store.categories()
    bundle = store.load(category)
    for number in range(1, CATEGORIES):
        manifest = bundle.manifest
        copy = store.write(
            f"{category}-{number}", manifest.config, manifest.calibration, manifest.lineage, bundle.files
        )
        store.publish(copy.category, copy.version)
    return str(bundles), str(source / category / "test")


def measure(bundles: str, source: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all rounds and compare."""
    rounds = [measure_round(bundles, source, options) for _ in range(options.repeats)]
    fewest, most = str(min(options.clients)), str(max(options.clients))

    def added(measured: dict[str, Any], empty_kind: str) -> float:
        alone = measured["plain"]["p50_ms"] + measured[empty_kind][fewest]["p50_ms"]
        return float(measured["endpoint"][fewest]["p50_ms"] - alone)

    return {
        "cores": len(os.sched_getaffinity(0)),
        "images": options.images,
        "plain": {
            key: summary([entry["plain"][key] for entry in rounds]) for key in ("p50_ms", "batched_images_per_second")
        },
        **{
            kind: {
                count: {
                    key: summary([entry[kind][count][key] for entry in rounds])
                    for key in ("p50_ms", "p99_ms", "images_per_second")
                }
                for count in rounds[0][kind]
            }
            for kind in ("empty", "hop", "endpoint")
        },
        "errors": sum((Counter(entry["errors"]) for entry in rounds), Counter()),
        "added_p50_ms": summary([added(entry, "empty") for entry in rounds]) | {"target_at_most": 10},
        "added_p50_ms_to_hop": summary([added(entry, "hop") for entry in rounds]),
        "throughput_ratio": summary(
            [
                entry["endpoint"][most]["images_per_second"] / entry["plain"]["batched_images_per_second"]
                for entry in rounds
            ]
        )
        | {"target_at_least": 0.85},
        "cold_start_seconds": summary([entry["cold_start_seconds"] for entry in rounds]),
        "replica_mib": rounds[-1]["replica_mib"],
        "category_mib": summary(
            [after - before for entry in rounds for before, after in itertools.pairwise(entry["replica_mib"].values())]
        ),
    }


def measure_round(bundles: str, source: str, options: argparse.Namespace) -> dict[str, Any]:
    """One round of all measurements."""
    errors: Counter[str] = Counter()

    def ask(url: str) -> dict[str, Any]:
        found = {}
        for count in options.clients:
            found[str(count)] = measured = run_clients(url, source, count, options.images)
            errors.update(measured.pop("errors"))
        return found

    measured: dict[str, Any] = {"plain": child("plain", bundles, source, str(options.images))}
    with serving([sys.executable, __file__, "--child", "empty"]) as (url, _, _):
        measured["empty"], measured["hop"] = ask(f"{url}/direct"), ask(f"{url}/hop")
    with endpoint(bundles) as (url, process, started):
        categories = [entry["category"] for entry in get(f"{url}/v1/categories")["categories"]]
        measured["cold_start_seconds"] = started
        measured["endpoint"] = ask(f"{url}/v1/categories/{categories[0]}/score")
        measured["replica_mib"] = memory_by_category(url, process, categories, source)
    note(f"plain {measured['plain']}")
    note(f"empty {measured['empty']}")
    note(f"endpoint {measured['endpoint']}")
    return {**measured, "errors": errors}


def memory_by_category(
    url: str, process: subprocess.Popen[bytes], categories: list[str], source: str
) -> dict[str, float]:
    """Memory of the scoring replica after each loaded category, MiB."""

    def of_replica() -> float:
        return sum(mib for name, mib in memory(process.pid).items() if SCORER in name)

    found = {categories[0]: of_replica()}
    for category in categories[1:]:
        run_clients(f"{url}/v1/categories/{category}/score", source, 1, WARM_UP)
        found[category] = of_replica()
    return found


def plain(bundles: str, source: str, requests: str) -> None:
    """Measure the scorer alone, on all cores."""
    from uniad_ray.pipelines.cluster.devices import limit_threads
    from uniad_ray.scoring.bundles.store import BundleStore

    limit_threads(len(os.sched_getaffinity(0)))
    store = BundleStore(bundles)
    scorer = store.load(store.categories()[0]).scorer()
    images = read_images(source)
    encoded = [images[number % len(images)] for number in range(int(requests))]
    for image in encoded[:WARM_UP]:
        scorer.score_encoded(["0"], [image])
    seconds = []
    for image in encoded:
        started = time.perf_counter()
        scorer.score_encoded(["0"], [image])
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    step = scorer.config.batch_size
    for start in range(0, len(encoded), step):
        batch = encoded[start : start + step]
        scorer.score_encoded(["0"] * len(batch), batch)
    batched = len(encoded) / (time.perf_counter() - started)
    print(json.dumps({"p50_ms": 1000 * statistics.median(seconds), "batched_images_per_second": batched}))


def empty(port: str) -> None:
    """Serve an empty application until the process is terminated."""
    import ray
    from ray import serve
    from ray.serve.handle import DeploymentHandle

    api = FastAPI()

    @serve.deployment(max_ongoing_requests=100)
    class Behind:
        async def size(self, data: bytes) -> int:
            return len(data)

    @serve.deployment(max_ongoing_requests=1000)
    @serve.ingress(api)
    class Empty:
        def __init__(self, behind: DeploymentHandle) -> None:
            self._behind = behind

        @api.get("/readyz")
        async def readyz(self) -> Response:
            return Response()

        @api.post("/direct")
        async def direct(self, request: Request) -> Response:
            return Response(str(len(await request.body())))

        @api.post("/hop")
        async def hop(self, request: Request) -> Response:
            return Response(str(await self._behind.size.remote(await request.body())))

    start_local_ray(4)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(Empty.bind(Behind.bind()), name="empty")  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        threading.Event().wait()
    finally:
        serve.shutdown()
        ray.shutdown()


def clients(url: str, source: str, count: str, requests: str, settle_seconds: str) -> None:
    """Send requests from threads, each with one connection."""
    images = read_images(source)
    work: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    done: list[tuple[float, float]] = []
    errors: Counter[str] = Counter()
    host, _, path = url.removeprefix("http://").partition("/")

    def run() -> None:
        connection = http.client.HTTPConnection(host, timeout=120)
        while True:
            try:
                image = work.get_nowait()
            except queue.Empty:
                return
            started = time.perf_counter()
            try:
                connection.request("POST", f"/{path}", image, {"Content-Type": "image/png"})
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                errors[type(error).__name__] += 1
                connection.close()
                continue
            done.append((started, time.perf_counter()))
            if response.status != 200:
                errors[f"{response.status} {body[:200].decode(errors='replace')}"] += 1

    def send(total: int) -> float:
        for number in range(total):
            work.put(images[number % len(images)])
        threads = [threading.Thread(target=run) for _ in range(int(count))]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started

    started = time.perf_counter()
    while time.perf_counter() - started < float(settle_seconds):
        send(WARM_UP)
    done.clear()
    seconds = send(int(requests))
    latencies = sorted(1000 * (ended - started) for started, ended in done)
    print(
        json.dumps(
            {
                "p50_ms": statistics.median(latencies),
                "p99_ms": latencies[int(0.99 * (len(latencies) - 1))],
                "images_per_second": len(done) / seconds,
                "errors": errors,
            }
        )
    )


@contextlib.contextmanager
def endpoint(bundles: str) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """Run `uniad-ray serve` with one category loaded at the start."""
    from uniad_ray.scoring.bundles.store import BundleStore

    first = BundleStore(bundles).categories()[0]
    options = ["--bundles", bundles, "--set", f"replicas.loaded_at_start=[{first}]", "--port"]
    with serving([sys.executable, "-m", "uniad_ray.cli", "serve", *options]) as served:
        yield served


@contextlib.contextmanager
def serving(command: list[str]) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """Start a server; yield its address, its process and the seconds until it was ready."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    started = time.perf_counter()
    process = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, env=environment())  # noqa: S603
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            if process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                raise RuntimeError(f"{command}: not ready")
            with contextlib.suppress(OSError, urllib.error.HTTPError):
                urllib.request.urlopen(f"{url}/readyz", timeout=60).close()  # noqa: S310
                break
            time.sleep(0.1)
        yield url, process, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(60)


def run_clients(
    url: str, source: str, count: int, requests: int, settle_seconds: float = SETTLE_SECONDS
) -> dict[str, Any]:
    """Run clients in a child process; they send some requests before they measure."""
    return child("clients", url, source, str(count), str(requests), str(settle_seconds))


def child(*arguments: str) -> dict[str, Any]:
    """Measure in a child process."""
    command = [sys.executable, __file__, "--child", *arguments]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment())  # noqa: S603
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def environment() -> dict[str, str]:
    """Environment of all child processes: that of `uniad-ray serve`, so threads and processes behave alike."""
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "RAY_SERVE_LOG_TO_STDERR": "0", **OF_RAY}


def memory(driver: int) -> dict[str, float]:
    """Resident memory of all descendants of a process, MiB, by title."""
    parents, titles, sizes = {}, {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines() if ":" in line)
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
        except OSError:
            continue
        pid = int(entry.name)
        parents[pid] = int(status["PPid"])
        titles[pid] = title_of(words) or status["Name"].strip()
        sizes[pid] = int(status.get("VmRSS", "0 kB").split()[0]) / 1024

    def is_below(pid: int) -> bool:
        while pid in parents and pid != driver:
            pid = parents[pid]
        return pid == driver

    found: dict[str, float] = {}
    for pid in sorted(pid for pid in titles if is_below(pid)):
        name = titles[pid] if titles[pid] not in found else f"{titles[pid]} {pid}"
        found[name] = sizes[pid]
    return found


def title_of(words: list[str]) -> str:
    """Short title of a process: the script or module for Python; Ray actors state their task."""
    names = [word for word in words if word.startswith("ray::") or word.endswith(".py") or word in ("serve", "agent")]
    return Path((names or words or [""])[0].partition("(")[0]).name.partition(".")[0]


def read_images(source: str) -> list[bytes]:
    """All PNG files in a folder and its subfolders."""
    return [path.read_bytes() for path in sorted(Path(source).rglob("*.png"))]


def get(url: str) -> Any:
    """Fetch a JSON document."""
    with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310
        return json.load(response)


def summary(every: list[float]) -> dict[str, Any]:
    """Value in each round, and its median."""
    return {"median": statistics.median(every), "all": every}


def note(text: str) -> None:
    """Log progress to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

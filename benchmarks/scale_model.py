"""Predicts time and cost of a scoring run on many nodes, by simulating its chunks with measured stage costs.

Every chunk is decoded by a task and scored and committed by an actor, as `uniad-ray score` does it: nine tenths of the
cores of a node have an actor each, decoding takes what the scheduler has left, and at most eight decoded chunks per
actor wait. The processes of a node share its cores. The driver hands out and takes in chunks one after the other. The
last actors idle while the slowest chunk ends.

Costs come from `--timing RUN`, the newest timing of a measured run, or from the options. The model knows no network and
no store: both must keep up with the bytes per second in its output. It prints one JSON document.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import sys
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

DECODE_SHARE = 0.5
DECODED_CHUNKS = 8


@dataclass(frozen=True)
class Costs:
    """Seconds of one core.

    Attributes:
        decode: To read and decode an image.
        score: To score an image.
        write: To commit an image's row and map.
        driver: Of the driver, per chunk.
        start: Until an actor has loaded its networks.
        chunk_images: Images in a chunk.
    """

    decode: float
    score: float
    write: float
    driver: float = 0.01
    start: float = 15.0
    chunk_images: int = 64


@dataclass(frozen=True)
class NodeType:
    """A node.

    Attributes:
        cores: Its cores.
        price: Price per hour.
        gpus: Its GPUs; each has one actor, which scores `gpu_speed` times as fast as a core.
        gpu_speed: Speed of a GPU in cores.
        workers: Actors without GPUs; None for nine tenths of the cores.
    """

    cores: int
    price: float
    gpus: int = 0
    gpu_speed: float = 1.0
    workers: int | None = None

    @property
    def actors(self) -> int:
        """Number of actors."""
        return self.gpus or self.workers or max(1, round(self.cores * 0.9))

    @property
    def decoders(self) -> int:
        """Number of decoding tasks that the scheduler runs at once; it counts four CPUs at least."""
        taken = min(self.gpus, self.cores) if self.gpus else self.actors
        return max(1, int((max(self.cores, 4) - taken) / DECODE_SHARE))


class Node:
    """A node whose processes share its cores equally; a process that uses a GPU needs no core."""

    def __init__(self, kind: NodeType) -> None:
        self.kind = kind
        self.now = 0.0
        self.work: dict[int, float] = {}
        self.on_gpu: dict[int, float] = {}
        self.idle_actors, self.idle_decoders = 0, kind.decoders

    @property
    def speed(self) -> float:
        """Share of a core that each process has."""
        return min(1.0, self.kind.cores / len(self.work)) if self.work else 1.0

    def advance(self, now: float) -> None:
        """Works until a time."""
        passed = (now - self.now) * self.speed
        self.work = {job: left - passed for job, left in self.work.items()}
        self.on_gpu = {job: left - (now - self.now) for job, left in self.on_gpu.items()}
        self.now = now

    def next_end(self) -> tuple[float, int] | None:
        """When the next process ends, and its job."""
        ends = [(self.now + left / self.speed, job) for job, left in self.work.items()]
        ends += [(self.now + left, job) for job, left in self.on_gpu.items()]
        return min(ends, default=None)


def simulate(costs: Costs, kind: NodeType, nodes: int, images: int) -> float:
    """Returns the seconds of a run from the first task to the last commit."""
    return commits(costs, kind, nodes, images)[-1]


def commits(costs: Costs, kind: NodeType, nodes: int, images: int) -> list[float]:
    """Returns when each chunk is committed, in seconds from the first task, in order."""
    chunks = math.ceil(images / costs.chunk_images)
    sizes = [costs.chunk_images] * (chunks - 1) + [images - costs.chunk_images * (chunks - 1)]
    cluster = [Node(kind) for _ in range(nodes)]
    window = DECODED_CHUNKS * kind.actors * nodes
    decoded: deque[int] = deque()
    next_chunk = between = 0
    done: list[float] = []
    now = driver_free = 0.0
    # Starting actors, then hand-overs by the driver: (time, node, what), what < 0 for an actor that is ready.
    events = [(costs.start, index, -1) for index in range(nodes) for _ in range(kind.actors)]
    heapq.heapify(events)
    while len(done) < chunks:
        for index, node in enumerate(cluster):
            while node.idle_decoders and next_chunk < chunks and between < window:
                driver_free = max(driver_free, now) + costs.driver / 2
                heapq.heappush(events, (driver_free, index, next_chunk))
                node.idle_decoders -= 1
                next_chunk += 1
                between += 1
        # The longest idle node first, so that no node takes all.
        for index in sorted(range(nodes), key=lambda index: -cluster[index].idle_actors):
            node = cluster[index]
            while node.idle_actors and decoded:
                driver_free = max(driver_free, now) + costs.driver / 2
                heapq.heappush(events, (driver_free, index, chunks + decoded.popleft()))
                node.idle_actors -= 1
        ends = [(found[0], index, found[1]) for index, node in enumerate(cluster) if (found := node.next_end())]
        end = min(ends, default=(math.inf, 0, 0))
        if events and events[0][0] <= end[0]:
            now, index, what = heapq.heappop(events)
            node = cluster[index]
            node.advance(now)
            if what < 0:
                node.idle_actors += 1
            elif what < chunks:
                node.work[what] = sizes[what] * costs.decode
            elif kind.gpus:
                node.on_gpu[what] = sizes[what - chunks] * (costs.score / kind.gpu_speed + costs.write)
            else:
                node.work[what] = sizes[what - chunks] * (costs.score + costs.write)
            continue
        now, index, job = end
        node = cluster[index]
        node.advance(now)
        node.work.pop(job, None)
        node.on_gpu.pop(job, None)
        if job < chunks:
            node.idle_decoders += 1
            decoded.append(job)
        else:
            node.idle_actors += 1
            between -= 1
            done.append(now)
    return done


def predict(costs: Costs, kind: NodeType, nodes: int, images: int, image_bytes: int) -> dict[str, Any]:
    """Time and cost of a run, and how much of its actors' time is work."""
    seconds = simulate(costs, kind, nodes, images)
    speed = kind.gpu_speed if kind.gpus else 1.0
    work = images * (costs.score / speed + costs.write)
    return {
        "nodes": nodes,
        "hours": round(seconds / 3600, 3),
        "images_per_second": round(images / seconds, 1),
        "actors_at_work": round(work / (seconds * nodes * kind.actors), 3),
        "price": round(nodes * kind.price * seconds / 3600, 2),
        "price_per_million": round(nodes * kind.price * seconds / 3600 / images * 1e6, 2),
        "store_mib_per_second": round(images * image_bytes / seconds / 2**20, 1),
    }


def measured(run: str, chunk_images: int) -> dict[str, float]:
    """Costs of an image in the newest timing of a run."""
    from uniad_ray.archive.stores.location import Location
    from uniad_ray.runs.timings import read_timings

    timings = read_timings(Location.parse(run))
    if not timings:
        raise SystemExit(f"{run}: no timings; give the run of a completed `uniad-ray score`")
    newest = timings[-1]
    seconds = newest.seconds
    stages = {"decode": seconds.decode, "score": seconds.score, "write": seconds.write}
    return {name: spent / newest.images for name, spent in stages.items()} | {
        "chunk_images": min(chunk_images, math.ceil(newest.images / newest.chunks))
    }


def main() -> None:
    """Prints the predictions for several numbers of nodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timing", metavar="RUN", help="Take the costs from the newest timing of this run.")
    parser.add_argument("--decode", type=float, default=0.004, help="Core seconds to read and decode an image.")
    parser.add_argument("--score", type=float, default=0.021, help="Core seconds to score an image.")
    parser.add_argument("--write", type=float, default=0.0005, help="Core seconds to commit an image.")
    parser.add_argument("--driver", type=float, default=0.01, help="Seconds of the driver per chunk.")
    parser.add_argument("--start", type=float, default=15.0, help="Seconds until an actor has loaded its networks.")
    parser.add_argument("--chunk-images", type=int, default=64, help="Images in a chunk.")
    parser.add_argument("--images", type=int, default=1_000_000, help="Images of the run.")
    parser.add_argument("--image-bytes", type=int, default=150_000, help="Bytes of an encoded image.")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="Numbers of nodes.")
    parser.add_argument("--cores", type=int, default=16, help="Cores of a node.")
    parser.add_argument("--price", type=float, default=0.68, help="Price of a node per hour.")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of a node.")
    parser.add_argument("--gpu-speed", type=float, default=20.0, help="Speed of a GPU, in cores.")
    options = parser.parse_args()
    found = {name: getattr(options, name) for name in ("decode", "score", "write", "driver", "start", "chunk_images")}
    if options.timing:
        found |= measured(options.timing, options.chunk_images)
    costs, kind = Costs(**found), NodeType(options.cores, options.price, options.gpus, options.gpu_speed)
    predictions = [predict(costs, kind, nodes, options.images, options.image_bytes) for nodes in options.nodes]
    json.dump({"costs": asdict(costs), "node": asdict(kind), "predictions": predictions}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()

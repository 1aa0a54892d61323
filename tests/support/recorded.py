"""A recorder of metrics that keeps the values and refuses what Ray would refuse."""

from __future__ import annotations

from collections import defaultdict

from uniad_ray.pipelines.cluster.metrics import METRICS

Key = tuple[str, tuple[tuple[str, str], ...]]


class Recorded:
    """Values by name and tags: sums of counters, last values of gauges, lists of observations."""

    def __init__(self) -> None:
        self.counts: defaultdict[Key, float] = defaultdict(float)
        self.gauges: dict[Key, float] = {}
        self.observed: defaultdict[Key, list[float]] = defaultdict(list)

    def count(self, name: str, value: float = 1.0, **tags: str) -> None:
        self.counts[_key(name, "counter", tags)] += value

    def set(self, name: str, value: float, **tags: str) -> None:
        self.gauges[_key(name, "gauge", tags)] = value

    def observe(self, name: str, value: float, **tags: str) -> None:
        self.observed[_key(name, "histogram", tags)].append(value)

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        """Values of a counter by the values of its tags, without zeros."""
        return {
            tuple(value for _, value in key[1]): value for key, value in self.counts.items() if key[0] == name and value
        }


def _key(name: str, kind: str, tags: dict[str, str]) -> Key:
    spec = METRICS[name]
    assert spec.kind == kind
    assert set(spec.tags) == set(tags)
    return name, tuple((tag, tags[tag]) for tag in spec.tags)

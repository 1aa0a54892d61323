"""Memory and errors of an endpoint over many requests.

The script fits a small category, unless `--bundles` names existing bundles, and serves it like `uniad-ray serve`. Four
clients send requests while the script records the memory of all processes. It prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from serving import endpoint, get, memory, note, prepare, run_clients

CLIENTS = 4
PARTS = 20


def main() -> None:
    """Run the soak test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", metavar="ROOT", help="Bundles to serve; requests go to the first category.")
    parser.add_argument("--source", metavar="FOLDER", help="Images to send; required with --bundles.")
    parser.add_argument("--requests", type=int, default=20_000, help="Number of requests.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uniad-ray-benchmark-") as folder:
        bundles, source = options.bundles, options.source
        if bundles is None:
            bundles, source = prepare(Path(folder))
        print(json.dumps(soak(bundles, source, options.requests), indent=1))


def soak(bundles: str, source: str, requests: int) -> dict[str, Any]:
    """Send many requests and record the memory of all processes."""
    errors: Counter[str] = Counter()
    followed: list[dict[str, float]] = []
    started = time.perf_counter()
    with endpoint(bundles) as (url, process, _):
        category = get(f"{url}/v1/categories")["categories"][0]["category"]
        part = max(CLIENTS, requests // PARTS)
        for number in range(PARTS):
            measured = run_clients(f"{url}/v1/categories/{category}/score", source, CLIENTS, part, 0.0)
            errors.update(measured["errors"])
            followed.append(memory(process.pid))
            note(f"{(number + 1) * part} requests: {round(sum(followed[-1].values()))} MiB, errors {dict(errors)}")
    names = sorted(set(followed[0]) & set(followed[-1]))
    return {
        "requests": part * PARTS,
        "seconds": time.perf_counter() - started,
        "errors": errors,
        "processes": {
            name: {
                "first_mib": followed[0][name],
                "last_mib": followed[-1][name],
                "growth": followed[-1][name] / followed[0][name] - 1,
                # Skip the first quarter, while caches fill.
                "mib_per_1000_requests": slope([entry[name] for entry in followed[PARTS // 4 :] if name in entry])
                / part
                * 1000,
                "all_mib": [entry.get(name) for entry in followed],
            }
            for name in names
        },
    }


def slope(values: list[float]) -> float:
    """Growth from one value to the next, by least squares."""
    return statistics.linear_regression(range(len(values)), values).slope


if __name__ == "__main__":
    main()

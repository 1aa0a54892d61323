"""A night in its own Ray, and what Prometheus reads of it: `python metrics_driver.py FOLDER PORT` prints the metrics.

FOLDER is that of `write_fitted`. After the night, every metric of `METRICS` that the night does not record is recorded
once, so that the names of all are seen.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import urllib.request
from pathlib import Path

from uniad_ray.pipelines.cluster.metrics import METRICS, RayMetrics

SECONDS = 90.0


def main(folder: Path, port: int) -> None:
    # Ray reads this name as it is.
    os.environ["RAY_metrics_report_interval_ms"] = "1000"  # noqa: SIM112
    import ray

    from uniad_ray.pipelines.ingest.job import ingest
    from uniad_ray.pipelines.score.job import score

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _metrics_export_port=port)
    seen: dict[str, str] = {}
    done = threading.Event()
    reader = threading.Thread(target=read, args=(port, seen, done))
    reader.start()
    try:
        ingest(str(folder / "photos"), str(folder / "archive"), category="trays")
        score(str(folder / "archive"), str(folder / "bundles"), str(folder / "run"))
        metrics = RayMetrics()
        for spec in METRICS.values():
            is_of_the_night = spec.name.startswith(("uniad_ray_run", "uniad_ray_ingest"))
            if not is_of_the_night or spec.name == "uniad_ray_run_store_retries":
                record = {"counter": metrics.count, "gauge": metrics.set, "histogram": metrics.observe}[spec.kind]
                record(spec.name, 1.0, **dict.fromkeys(spec.tags, "x"))
        wanted = {name for spec in METRICS.values() for name in spec.exported}
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and not wanted <= {series.split("{")[0] for series in list(seen)}:
            time.sleep(0.5)
    finally:
        done.set()
        reader.join()
        ray.shutdown()
    sys.stdout.writelines(f"{series} {value}\n" for series, value in seen.items())


def read(port: int, seen: dict[str, str], done: threading.Event) -> None:
    """Reads the metrics until the end; a gauge that is not set again is exported for some seconds only."""
    while not done.wait(0.5):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            continue
        seen.update(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

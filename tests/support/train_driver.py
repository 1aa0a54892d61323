"""Program that trains tiny students on Ray, for tests that kill it or submit it to a cluster.

Run as `python -m support.train_driver ARCHIVE ROOT WORKERS THREADS`; prints the location of each student as JSON.
"""

from __future__ import annotations

import json
import sys

from support.distilling import LONG_TRAINING, tiny_fit

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.pipelines.cluster.session import ray_session
from uniad_ray.pipelines.cluster.sizing import Workers
from uniad_ray.pipelines.train.job import TrainingJob, train_students
from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages


def main() -> None:
    """Trains one student for each category of the archive."""
    archive, root, workers, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    source = Location.parse(archive)
    manifest = read_manifest(source)
    jobs = [
        TrainingJob(
            name,
            name,
            "student",
            tuple(row.row_key for row in ArchiveNormalImages(source, manifest, name, (64, 64)).rows),
        )
        for name in sorted(manifest.categories)
    ]
    with ray_session() as cluster:
        trained = train_students(
            archive,
            tiny_fit(training=LONG_TRAINING),
            jobs,
            Location.parse(root),
            cluster=cluster,
            workers=Workers(workers, threads, "cpu"),
        )
    print(json.dumps({key: location.uri for key, location in trained.states.items()}))


if __name__ == "__main__":
    main()

"""Bundles that must not score: corrupt ones, and ones whose reference images no longer get the same scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from uniad_ray.scoring.bundles.bundle import Bundle, BundleManifest
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.serving.replica.live_bundle import LiveBundle


def publish_other_scores(root: str | Path, category: str) -> BundleManifest:
    """Publishes an intact version whose stored reference scores differ from the actual ones."""

    def altered(bundle: Bundle) -> dict[str, bytes]:
        document = json.loads(bundle.files["reference.json"])
        document["raw"] = {name: [value + 1 for value in values] for name, values in document["raw"].items()}
        return {**bundle.files, "reference.json": json.dumps(document).encode()}

    store = BundleStore(str(root))
    bundle = store.load(category)
    kept = bundle.manifest
    manifest = store.write(category, kept.config, kept.calibration, kept.lineage, altered(bundle))
    store.publish(category, manifest.version)
    return manifest


def unlike_the_fit(live: LiveBundle) -> None:
    """Makes the reference check of a loaded bundle fail, as a change in a library would."""
    current = live.current
    scores = current.reference.scores
    wrong = {name: tuple(value + 1 for value in values) for name, values in scores.raw.items()}
    reference = replace(current.reference, scores=scores.model_copy(update={"raw": wrong}))
    live._current = replace(current, reference=reference)


def damage(root: str | Path, manifest: BundleManifest) -> None:
    """Changes a byte of a stored bundle."""
    place = BundleStore(str(root)).folder(manifest.category, manifest.version) / "experts/patch.safetensors"
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(bytes(data))

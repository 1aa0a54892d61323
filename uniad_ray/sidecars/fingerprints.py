"""Names what a field follows from, so that one that was computed elsewhere is known to be the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from uniad_ray import __version__
from uniad_ray.perception.base import StatefulPerceiver
from uniad_ray.perception.pipeline import PerceptionPipeline


def field_digests(pipeline: PerceptionPipeline, input_size: int, states: Mapping[str, str]) -> dict[str, str]:
    """Digests of the fields that a pipeline can compute with what is known to be learned.

    Args:
        pipeline: The perceivers.
        input_size: Side of the images, pixels.
        states: Digest of what a stateful perceiver learned, by its name; fields that need another are left out.

    Returns:
        By field, sha256 over the code's version, the image size, and name, class, lineage and state of every perceiver
        behind the field. The device is not among them.
    """
    records = {
        perceiver.name: {
            "class": f"{type(perceiver).__module__}:{type(perceiver).__qualname__}",
            "lineage": perceiver.lineage(),
            "state": states.get(perceiver.name),
        }
        for perceiver in pipeline.perceivers
    }
    unknown = {
        perceiver.name
        for perceiver in pipeline.perceivers
        if isinstance(perceiver, StatefulPerceiver) and perceiver.name not in states
    }
    digests = {}
    for name in sorted(pipeline.provides):
        behind = [perceiver.name for perceiver in pipeline.perceivers_for(frozenset({name}))]
        if unknown.isdisjoint(behind):
            document = {
                "code_version": __version__,
                "field": name,
                "input_size": input_size,
                "perceivers": {perceiver: records[perceiver] for perceiver in behind},
            }
            digests[name] = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return digests

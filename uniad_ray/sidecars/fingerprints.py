"""Fingerprints of fields. Equal fingerprints mean that a stored field can replace a computed one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from uniad_ray import __version__
from uniad_ray.perception.base import StatefulExtractor
from uniad_ray.perception.pipeline import PerceptionPipeline


def feature_fingerprints(
    pipeline: PerceptionPipeline, image_size: tuple[int, int], states: Mapping[str, str]
) -> dict[str, str]:
    """Compute the digests of the fields that a pipeline can extract with the given learned states.

    Args:
        pipeline: The extractors.
        image_size: Height and width of the decoded images, pixels.
        states: Digest of the learned state by extractor. Fields that need any other stateful extractor are omitted.

    Returns:
        sha256 by field, over the code version, the image size, the value range, the region, and the name, class,
        lineage and state of every extractor behind the field. The device is excluded.
    """
    records = {
        extractor.name: {
            "class": f"{type(extractor).__module__}:{type(extractor).__qualname__}",
            "lineage": extractor.lineage(),
            "state": states.get(extractor.name),
        }
        for extractor in pipeline.extractors
    }
    unknown = {
        extractor.name
        for extractor in pipeline.extractors
        if isinstance(extractor, StatefulExtractor) and extractor.name not in states
    }
    digests = {}
    for name in sorted(pipeline.provides):
        behind = [extractor.name for extractor in pipeline.extractors_for(frozenset({name}))]
        if unknown.isdisjoint(behind):
            document = {
                "code_version": __version__,
                "field": name,
                "image_size": image_size,
                "extractors": {extractor: records[extractor] for extractor in behind},
                **({} if pipeline.value_range is None else {"value_range": pipeline.value_range}),
                **({} if pipeline.region is None else {"region": pipeline.region.digest}),
            }
            digests[name] = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return digests

"""Worker of a scoring run: scores decoded chunks and commits them. Its only state is the loaded bundles."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa

from uniad_ray.archive.manifest import Chunk
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.archive.stores.lease import Lease
from uniad_ray.archive.stores.location import Location
from uniad_ray.archive.stores.retries import store_retries
from uniad_ray.errors import BundleError, ImageError
from uniad_ray.pipelines.cluster.decoding import COPIED_COLUMNS, read_decoded
from uniad_ray.pipelines.cluster.devices import choose_device, limit_threads
from uniad_ray.pipelines.cluster.originals import ChunkOriginals
from uniad_ray.pipelines.score.attempts import AttemptCounter, Attempts, score_surviving
from uniad_ray.runs.chunks import commit_scores
from uniad_ray.runs.maps import StoredMap, highest, write_maps
from uniad_ray.runs.plan import RunPlan, map_candidates_path, maps_path
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.scorer import Scorer, Verdict
from uniad_ray.sidecars.fingerprints import feature_fingerprints
from uniad_ray.sidecars.reader import open_sidecar

MAX_LOADED_BUNDLES = 4
"""Bundles that an actor keeps loaded. Archives are sorted by category, so an actor rarely switches."""


class ChunkScorer:
    """Ray Data actor that scores decoded chunks and commits them."""

    def __init__(
        self,
        plan: dict[str, Any],
        out: str,
        *,
        sidecar: str | None,
        device: str,
        threads: int,
        lease: Lease | None = None,
        attempts: Attempts | None = None,
    ) -> None:
        """Prepares the process; the bundle of a category is loaded with its first chunk.

        Args:
            plan: A RunPlan as JSON.
            out: Root of the run.
            sidecar: Root of a sidecar of the archive, or None.
            device: `cpu`, `cuda` or `auto`.
            threads: CPU threads of this process.
            lease: Lease of the run, checked before every commit.
            attempts: Counts the deaths of workers with a chunk or an image; by default, none are known.
        """
        limit_threads(threads)
        self._plan = RunPlan.model_validate(plan)
        self._run_id = self._plan.run_id
        self._out = Location.parse(out)
        self._lease = lease
        self._attempts: Attempts = attempts or AttemptCounter()
        self._device = choose_device(device)
        self._scorers: OrderedDict[str, Scorer] = OrderedDict()
        self._sidecar = None if sidecar is None else open_sidecar(sidecar, self._plan.archive_digest)
        self._digests: dict[str, dict[str, str]] = {}

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Scores one decoded chunk. The scores are written last; their presence means that the chunk is complete.

        Args:
            batch: One row from `decode_chunk`, as arrays of length one.

        Returns:
            One row: counts, the digest of the scores, `recomputed` (stale fields of the sidecar, as JSON), the
            repeated requests to the store, and the seconds spent by stage.
        """
        started, retries = time.perf_counter(), store_retries()
        decoded = read_decoded(batch)
        chunk, keys, errors = decoded.chunk, decoded.row_keys, dict(decoded.errors)
        scorer = self._scorer(chunk.category)
        stored = None
        if self._sidecar is not None:
            chunks = dict.fromkeys(keys, chunk.name)
            stored = self._sidecar.fields(chunk.category, self._digests[chunk.category], chunks)
        by_position: dict[int, Verdict] = {}
        if decoded.good:
            originals = ChunkOriginals(self._plan.archive, chunk, keys)

            def score(numbers: Sequence[int]) -> list[Verdict | ImageError]:
                wanted = [keys[decoded.good[number]] for number in numbers]
                images = decoded.images if len(wanted) == len(decoded.good) else decoded.images[list(numbers)]
                return scorer.score(wanted, images, stored, originals)

            outcomes = score_surviving(self._attempts, chunk.name, len(decoded.good), score)
            for position, outcome in zip(decoded.good, outcomes, strict=True):
                if isinstance(outcome, Verdict):
                    by_position[position] = at_common_threshold(outcome, scorer.threshold)
                else:
                    errors[position] = (outcome.kind, str(outcome))
        scored = time.perf_counter()
        table = self._score_table(chunk, decoded.rows, by_position, errors, scorer.threshold)
        if self._lease is not None:
            self._lease.check()
        self._write_maps(chunk, keys, by_position)
        committed = commit_scores(self._out, chunk, self._run_id, encode_table(dataset_schema("score"), table))
        self._attempts.end(chunk.name)
        return {
            **{name: [value] for name, value in asdict(committed).items()},
            "recomputed": [json.dumps(sorted(stored.stale) if stored is not None else [])],
            "store_retries": [store_retries() - retries + int(batch["decode_retries"][0])],
            "decode_seconds": [float(batch["decode_seconds"][0])],
            "score_seconds": [scored - started],
            "write_seconds": [time.perf_counter() - scored],
        }

    def _scorer(self, category: str) -> Scorer:
        if category in self._scorers:
            self._scorers.move_to_end(category)
            return self._scorers[category]
        planned = self._plan.bundles[category]
        bundle = BundleStore(self._plan.bundle_root).load(category, planned.version)
        if bundle.manifest.digest != planned.digest:
            raise BundleError(
                f"bundle {category} {planned.version} differs from the run's plan; restore it, or use a new --out"
            )
        scorer = bundle.scorer(
            device=self._device,
            false_positive_rate=self._plan.options.false_positive_rate,
            only=self._plan.options.experts,
        )
        bundle.check_reference(scorer)
        self._digests[category] = feature_fingerprints(
            scorer.pipeline, scorer.config.decoded_size, bundle.state_digests
        )
        self._scorers[category] = scorer
        if len(self._scorers) > MAX_LOADED_BUNDLES:
            self._scorers.popitem(last=False)
        return scorer

    def _score_table(
        self,
        chunk: Chunk,
        rows: pa.Table,
        verdicts: dict[int, Verdict],
        errors: dict[int, tuple[str, str]],
        threshold: float,
    ) -> pa.Table:
        count = rows.num_rows
        bundle = self._plan.bundles[chunk.category]
        found = [verdicts.get(position) for position in range(count)]
        failed = [errors.get(position) for position in range(count)]
        columns = {name: rows.column(name).to_pylist() for name in COPIED_COLUMNS}
        return dataset_schema("score").table(
            {
                **columns,
                "shard": [chunk.shard] * count,
                "row_group": [chunk.row_group] * count,
                "row": list(range(count)),
                "status": ["error" if error else "ok" for error in failed],
                "error_kind": [error[0] if error else None for error in failed],
                "error": [error[1] if error else None for error in failed],
                "experts": [_expert_scores(verdict) for verdict in found],
                "left_out": [_left_out(verdict) for verdict in found],
                "score": [verdict.score if verdict else None for verdict in found],
                "threshold": [threshold] * count,
                "decision": [verdict.decision if verdict else None for verdict in found],
                "reasons": [list(verdict.reasons) if verdict else [] for verdict in found],
                "run_id": [self._run_id] * count,
                "bundle_version": [bundle.version] * count,
                "bundle_digest": [bundle.digest] * count,
            }
        )

    def _write_maps(self, chunk: Chunk, keys: list[str], verdicts: dict[int, Verdict]) -> None:
        options = self._plan.options
        kept = [
            StoredMap(keys[position], chunk.category, verdict.score, verdict.anomaly_map)
            for position, verdict in verdicts.items()
            if verdict.anomaly_map is not None
        ]
        if options.maps == "none" or not kept:
            return
        path = maps_path(chunk.name)
        if options.maps == "top":
            kept = highest(kept, options.top_maps)
            path = map_candidates_path(chunk.name)
        write_maps(self._out / path, kept)


def at_common_threshold(verdict: Verdict, threshold: float) -> Verdict:
    """Shifts the score of an image without a text by the difference of the thresholds.

    The experts that are left have a threshold of their own. After the shift, one threshold applies to all rows of a
    category, as evaluations and previews of thresholds assume, and the decision is the same.

    Args:
        verdict: The verdict, with its own threshold.
        threshold: The threshold of the category.
    """
    if verdict.threshold == threshold:
        return verdict
    shift = threshold - verdict.threshold
    review = verdict.review_threshold
    return replace(
        verdict,
        score=verdict.score + shift,
        threshold=threshold,
        review_threshold=None if review is None else review + shift,
    )


def _expert_scores(verdict: Verdict | None) -> list[dict[str, Any]]:
    if verdict is None:
        return []
    return [{"expert": name, "raw": raw, "calibrated": verdict.calibrated[name]} for name, raw in verdict.raw.items()]


def _left_out(verdict: Verdict | None) -> list[dict[str, str]]:
    left_out = {} if verdict is None else verdict.left_out
    return [{"expert": name, "reason": reason} for name, reason in left_out.items()]

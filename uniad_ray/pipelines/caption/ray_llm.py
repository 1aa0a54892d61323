"""Captions by vLLM through `ray.data.llm`: Ray Data batches single images; the driver commits whole chunks."""

from __future__ import annotations

import importlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from uniad_ray.archive.images import DEFAULT_LIMITS
from uniad_ray.archive.images.sixteen_bits import file_has_sixteen_bits
from uniad_ray.archive.manifest import Chunk
from uniad_ray.archive.shards import read_chunk
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import ConfigError
from uniad_ray.perception.captions.base import Answer, checked
from uniad_ray.perception.captions.engine import ENVIRONMENT, CaptionEngineConfig, engine_arguments
from uniad_ray.perception.weights.model_folders import resolve_folder
from uniad_ray.pipelines.caption.engines import INSTALL, EngineConfig
from uniad_ray.pipelines.caption.rows import answer_row, checked_structure, decoded, undecodable_row
from uniad_ray.pipelines.caption.task import CaptionTask
from uniad_ray.pipelines.cluster.decoding import chunk_item
from uniad_ray.pipelines.cluster.session import configure_ray_data, unwrap
from uniad_ray.pipelines.cluster.sizing import Cluster, Workers
from uniad_ray.progress import Progress
from uniad_ray.sidecars.captions import CaptionPlan

_BATCH: Final = 16
_STAGE_CPUS: Final = 0.25
_ERROR: Final = "__inference_error__"


def caption_with_ray(task: CaptionTask, pending: Sequence[Chunk], workers: Workers, cluster: Cluster) -> None:
    """Captions the pending chunks, and writes each chunk when all its rows have arrived.

    Args:
        task: The caption job.
        pending: The chunks.
        workers: Number of engines; default one per GPU, and one without a GPU.
        cluster: Resources of the cluster.

    Raises:
        ConfigError: vLLM is not installed where Ray runs.
    """
    import ray

    configure_ray_data()
    kept = {chunk.name: task.kept_rows(chunk) for chunk in pending}
    rows: dict[str, dict[str, dict[str, Any]]] = {name: dict(own) for name, own in kept.items()}
    done = {name: sorted(own) for name, own in kept.items()}
    reader = _ChunkReader(task.archive.uri, done, task.engine.longest_side, task.value_ranges)
    dataset = ray.data.from_items([chunk_item(chunk) for chunk in pending], override_num_blocks=len(pending))
    dataset = dataset.flat_map(reader, num_cpus=_STAGE_CPUS)
    processor = _processor(task.plan, task.engine, workers, cluster)
    open_chunks = {chunk.name: chunk for chunk in pending}
    with Progress("captioning", sum(chunk.rows for chunk in pending)) as progress:
        progress.advance(sum(len(own) for own in kept.values()))
        try:
            for found in processor(dataset).iter_rows():
                row = _row(found, task.plan, task.engine)
                own = rows[found["chunk"]]
                own[row["row_key"]] = row
                progress.advance(1, int(row["status"] == "error"))
                if len(own) == open_chunks[found["chunk"]].rows:
                    _commit(task, open_chunks.pop(found["chunk"]), rows.pop(found["chunk"]))
        except Exception as error:
            raise unwrap(error) from error
    for name, chunk in open_chunks.items():
        if len(rows[name]) == chunk.rows:
            _commit(task, chunk, rows[name])


class _ChunkReader:
    """Reads and decodes the images of a chunk; one row per image, without those that have a caption."""

    def __init__(
        self,
        archive: str,
        done: Mapping[str, Sequence[str]],
        longest_side: int,
        value_ranges: Mapping[str, ValueRange | None],
    ) -> None:
        self._archive = archive
        self._done = done
        self._longest_side = longest_side
        self._value_ranges = value_ranges

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        chunk = Chunk(**json.loads(row["chunk"]))
        table = read_chunk(Location.parse(self._archive), chunk, columns=["row_key", "image"])
        keys, encoded = table.column("row_key").to_pylist(), table.column("image").to_pylist()
        done = set(self._done[chunk.name])
        found = []
        for key, data in zip(keys, encoded, strict=True):
            if key in done:
                continue
            value_range = self._value_ranges.get(chunk.category)
            images, errors = decoded([data], self._longest_side, value_range)
            error = errors.get(0)
            if images and value_range is not None and file_has_sixteen_bits(data, DEFAULT_LIMITS):
                data = _png(images[0])
            found.append(
                {
                    "chunk": chunk.name,
                    "row_key": key,
                    "image": b"" if error else data,
                    "error_kind": error.kind if error else "",
                    "error": str(error) if error else "",
                }
            )
        return found


def _processor(plan: CaptionPlan, config: EngineConfig, workers: Workers, cluster: Cluster) -> Any:
    try:
        llm = importlib.import_module("ray.data.llm")
    except ImportError as error:
        raise ConfigError(f"engine ray needs ray.data.llm: {error}; {INSTALL}") from error
    model = config.model
    assert isinstance(model, CaptionEngineConfig)  # noqa: S101 - chosen by choose_engine
    weights = resolve_folder(model.weights)
    stage = {"enabled": True, "num_cpus": _STAGE_CPUS, "concurrency": 1}
    engines = workers.count or max(1, cluster.gpus)
    on_cpu: dict[str, Any] = {}
    if not cluster.gpus:
        # Otherwise Ray waits for a GPU for ever.
        on_cpu = {"accelerator_type": None, "placement_group_config": {"bundle_per_worker": {"CPU": 1}}}
    settings = llm.vLLMEngineProcessorConfig(
        model_source=str(weights.path),
        engine_kwargs=engine_arguments(model),
        concurrency=(engines, engines),
        batch_size=_BATCH,
        should_continue_on_error=True,
        runtime_env={"env_vars": {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}},
        prepare_multimodal_stage={
            **stage,
            "model_config_kwargs": {"dtype": model.dtype, "max_model_len": model.max_model_len},
            "chat_template_content_format": "openai",
        },
        chat_template_stage=stage,
        tokenize_stage=False,
        detokenize_stage=False,
        **on_cpu,
    )
    return llm.build_processor(settings, preprocess=_Question(plan, model), postprocess=_answer)


class _Question:
    """Turns a row with an image into a chat request."""

    def __init__(self, plan: CaptionPlan, model: CaptionEngineConfig) -> None:
        self._plan = plan
        self._model = model

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        from PIL import Image

        images, _ = decoded([row["image"]], self._model.longest_side, None)
        # An image that cannot be decoded has its error already; a grey one keeps its place.
        image = Image.fromarray(images[0]) if images else Image.new("RGB", (64, 64), "grey")
        parameters: dict[str, Any] = {"temperature": 0.0, "max_tokens": self._model.max_tokens, "seed": 0}
        if self._plan.answer_schema:
            parameters["structured_outputs"] = {"json": json.dumps(self._plan.answer_schema)}
        content = [{"type": "image_pil", "image_pil": image}, {"type": "text", "text": self._plan.prompt}]
        carried = {name: row[name] for name in ("chunk", "row_key", "error_kind", "error")}
        return {**carried, "messages": [{"role": "user", "content": content}], "sampling_params": parameters}


def _png(pixels: np.ndarray) -> bytes:
    """An image that is scaled to 8 bits already; the next stage does not know its category."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    """Keeps what a row of the sidecar needs; never the image."""
    return {
        **{name: row[name] for name in ("chunk", "row_key", "error_kind", "error")},
        "text": row.get("generated_text") or "",
        "prompt_tokens": int(row.get("num_input_tokens") or 0),
        "tokens": int(row.get("num_generated_tokens") or 0),
        "seconds": float(row.get("time_taken_llm") or 0.0),
        "failure": str(row.get(_ERROR) or ""),
    }


def _row(found: Mapping[str, Any], plan: CaptionPlan, config: EngineConfig) -> dict[str, Any]:
    from uniad_ray.errors import ImageError

    if found["error_kind"]:
        return undecodable_row(found["row_key"], ImageError(found["error_kind"], found["error"]), plan)
    answer = Answer(
        text=found["text"].strip(),
        prompt_tokens=found["prompt_tokens"] or None,
        tokens=found["tokens"] or None,
        seconds=found["seconds"],
    )
    if found["failure"]:
        message = f"caption: vLLM failed: {found['failure'].splitlines()[0]}"
        answer = Answer("", "rejected", message, seconds=found["seconds"])
    else:
        answer = checked_structure(checked(answer, f"caption: {plan.model}", answer_is_cut(answer, config)), plan)
    return answer_row(found["row_key"], answer, 1, plan)


def answer_is_cut(answer: Answer, config: EngineConfig) -> bool:
    """Whether an answer has the maximum number of tokens; `ray.data.llm` does not return why it ended."""
    return (answer.tokens or 0) >= config.max_tokens


def _commit(task: CaptionTask, chunk: Chunk, rows: Mapping[str, dict[str, Any]]) -> None:
    keys = read_chunk(task.archive, chunk, columns=["row_key"]).column("row_key").to_pylist()
    task.commit(chunk, [rows[key] for key in keys])

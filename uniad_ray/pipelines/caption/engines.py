"""The engines of a caption job: vLLM through Ray Data or in an actor, an OpenAI-compatible server, or none."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from uniad_ray.config.base import StrictModel
from uniad_ray.config.loading import validate
from uniad_ray.errors import ConfigError
from uniad_ray.perception.captions.base import VisionLanguageModel
from uniad_ray.perception.captions.engine import CaptionEngine, CaptionEngineConfig
from uniad_ray.perception.captions.server import CaptionServer, CaptionServerConfig
from uniad_ray.pipelines.cluster.sizing import Cluster

Engine = Literal["auto", "ray", "vllm", "server", "none"]
ENGINES: Final[tuple[Engine, ...]] = ("auto", "ray", "vllm", "server", "none")
FREE: Final = "free"
STRUCTURED: Final = "structured"
INSTALL: Final = (
    'run pip install "uniad-ray[vlm]" on a machine with a GPU, or `make vlm` in a checkout on one without; or use a '
    "server: --engine server --url http://HOST:PORT/v1"
)


@dataclass(frozen=True)
class Question:
    """What a caption job asks, and whom.

    Attributes:
        engine: `auto` takes the server if there is a URL, else vLLM: through Ray Data with a GPU, in an actor without.
        model: Name of the model on the server; or its folder, as a path or a `file:`, `hub:` or `pypi:` URI.
        url: Base URL of the server.
        prompt: `free` (UniAD), `structured` (TMUAD; needs `classes`), or a prompt of your own.
        classes: Classes of objects for the structured prompt.
        options: Further options of the engine.
    """

    engine: Engine = "auto"
    model: str | None = None
    url: str | None = None
    prompt: str = FREE
    classes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class EngineConfig(StrictModel):
    """The chosen engine and its options.

    Attributes:
        kind: `ray`, `vllm` or `server`.
        model: Options of the model.
    """

    kind: Literal["ray", "vllm", "server"]
    model: CaptionServerConfig | CaptionEngineConfig

    @property
    def longest_side(self) -> int:
        """Maximum height and width of the images."""
        return self.model.longest_side

    @property
    def max_tokens(self) -> int:
        """Maximum number of tokens of an answer."""
        return self.model.max_tokens


def choose_engine(question: Question, cluster: Cluster) -> EngineConfig:
    """Chooses an engine and checks its options.

    Args:
        question: The engine and its options.
        cluster: Resources of the cluster.

    Raises:
        ConfigError: The engine is unknown, an option is wrong or missing, or vLLM is not installed.
    """
    engine, model, url, options = question.engine, question.model, question.url, question.options
    if engine not in ENGINES:
        raise ConfigError(f"no engine {engine!r}; there are {', '.join(ENGINES)}")
    if engine == "none":
        raise ConfigError(f"engine none writes no captions; to write some, {INSTALL}")
    chosen = engine
    if engine == "auto":
        chosen = "server" if url else "ray" if cluster.gpus else "vllm"
    if model is None:
        raise ConfigError("--model is missing: the name of the model on the server, or the folder of a model")
    if chosen == "server":
        if url is None:
            raise ConfigError("engine server needs --url, such as http://gpu-1:8001/v1")
        document = {"kind": "server", "url": url, "model": model, **options}
        return EngineConfig(kind="server", model=validate(CaptionServerConfig, document, where="the options"))
    if url is not None:
        raise ConfigError(f"--url is for engine server; remove it, or use --engine server instead of {chosen}")
    if not cluster.can_grow:  # on a cluster, the workers have other packages than this process
        _check_installed()
    uri = model if ":" in model else f"file:{Path(model).absolute()}"  # workers run in other folders
    document = {"kind": "vllm", "weights": {"uri": uri}, **options}
    return EngineConfig(kind=chosen, model=validate(CaptionEngineConfig, document, where="the options"))


def build_engine(config: EngineConfig) -> VisionLanguageModel:
    """Builds the model of an engine; it is loaded or contacted with the first images.

    Raises:
        WeightsError: The folder of the model is missing or has another digest.
    """
    if isinstance(config.model, CaptionServerConfig):
        return CaptionServer("caption", config.model)
    return CaptionEngine("caption", config.model)


def parse_options(assignments: Sequence[str]) -> dict[str, Any]:
    """Options of an engine from assignments such as `max_tokens=256`.

    Raises:
        ConfigError: An assignment has no `=`, or its value is not YAML.
    """
    import yaml

    found: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: write KEY=VALUE, such as max_tokens=256")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {assignment}: the value is not YAML") from error
    return found


def _check_installed() -> None:
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(f"captions need vLLM, which is not installed here; {INSTALL}")

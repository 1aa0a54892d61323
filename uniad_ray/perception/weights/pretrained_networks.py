"""Load frozen transformers networks: from safetensors only, with no missing parameters, and without output."""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError, WeightsError
from uniad_ray.perception.weights.sources import ResolvedWeights, first_line

LOCAL_ONLY: Final = {"local_files_only": True, "trust_remote_code": False}
"""Options of every `from_pretrained` call: download nothing and run no code from the folder."""

_LOADING: Final = threading.Lock()


def load_network(class_name: str, weights: ResolvedWeights, device: torch.device, **options: Any) -> Any:
    """Loads a frozen transformers network in float32.

    Args:
        class_name: Name of its class in transformers.
        weights: Its folder.
        device: Target device.
        options: Further options of `from_pretrained`.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        ValueError: The folder holds another type of network, or lacks a parameter.
    """
    library = importlib.import_module("transformers")
    kind, folder = getattr(library, class_name), str(weights.path)
    found = library.AutoConfig.from_pretrained(folder, **LOCAL_ONLY).model_type
    expected = kind.config_class.model_type
    # A part, such as clip_text_model, can also be loaded from the folder of the whole network.
    if found != expected and not expected.startswith(f"{found}_"):
        raise ValueError(f"it holds a network of type {found}, not {expected}")
    with no_progress_bar(), _errors_only(library.logging):
        network, report = kind.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **LOCAL_ONLY, **options
        )
    if report["missing_keys"]:
        raise ValueError(f"it lacks {', '.join(sorted(report['missing_keys'])[:3])}")
    return network.eval().requires_grad_(False).to(device)


def one_at_a_time(function: Callable[..., Any]) -> Callable[..., Any]:
    """Serialises calls from several threads; tokenizers keep the limits of a call and reject concurrent calls."""
    alone = threading.Lock()

    @functools.wraps(function, updated=())
    def call(*arguments: Any, **options: Any) -> Any:
        with alone:
            return function(*arguments, **options)

    return call


def load_processor(class_name: str, weights: ResolvedWeights) -> Any:
    """Loads the preprocessor of a transformers network: a tokenizer, an image processor or both in one.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        OSError: The folder lacks its files.
    """
    return getattr(importlib.import_module("transformers"), class_name).from_pretrained(str(weights.path), **LOCAL_ONLY)


@contextlib.contextmanager
def loading(name: str, kind: str, uri: str) -> Iterator[None]:
    """Serialises loading across threads and turns failures into one-line errors.

    Args:
        name: The extractor.
        kind: Its class.
        uri: Source of its weights.

    Raises:
        ConfigError: A package is not installed.
        WeightsError: The network cannot be loaded.
    """
    with _LOADING:
        try:
            yield
        except ModuleNotFoundError as error:
            package = (error.name or "").replace("_", "-")
            raise ConfigError(f"{name}: {kind} needs the package {package}; run: pip install {package}") from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise WeightsError(
                f"{kind} cannot load {uri}: {first_line(error)}; check that the folder holds such a network"
            ) from error


def lineage_with(config: StrictModel, weights: ResolvedWeights) -> dict[str, Any]:
    """The lineage of an extractor with a pretrained network: its options, and the weights with their digest."""
    found = {"uri": weights.uri, "sha256": weights.sha256, "trained": True}
    return {**config.model_dump(mode="json"), "weights": found}


@contextlib.contextmanager
def no_progress_bar() -> Iterator[None]:
    """Disables the progress bar of transformers while it loads."""
    logging = importlib.import_module("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _errors_only(logging: Any) -> Iterator[None]:
    """Hides warnings of transformers about unused parameters, such as those of CLIP's other tower."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)

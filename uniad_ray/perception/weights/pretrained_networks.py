"""Loads the frozen networks of transformers: from safetensors alone, whole, and without a word on stderr."""

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
"""Options of every `from_pretrained`: nothing is downloaded, and no code in a folder is run."""

_LOADING: Final = threading.Lock()


def load_network(class_name: str, weights: ResolvedWeights, device: torch.device, **options: Any) -> Any:
    """A frozen network of transformers, float32.

    Args:
        class_name: Name of its class in transformers.
        weights: Its folder.
        device: Where it is to be.
        options: Further options of `from_pretrained`.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        ValueError: The folder is of another kind of network, or lacks a parameter.
    """
    library = importlib.import_module("transformers")
    kind, folder = getattr(library, class_name), str(weights.path)
    found = library.AutoConfig.from_pretrained(folder, **LOCAL_ONLY).model_type
    expected = kind.config_class.model_type
    # One half of a network, such as clip_text_model, also comes in the folder of the whole.
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
    """Makes threads wait for each other: tokenizers keep the limits of a call, and refuse a second one."""
    alone = threading.Lock()

    @functools.wraps(function, updated=())
    def call(*arguments: Any, **options: Any) -> Any:
        with alone:
            return function(*arguments, **options)

    return call


def load_processor(class_name: str, weights: ResolvedWeights) -> Any:
    """What prepares the input of a network of transformers: a tokenizer, an image processor or both in one.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        OSError: The folder lacks its files.
    """
    return getattr(importlib.import_module("transformers"), class_name).from_pretrained(str(weights.path), **LOCAL_ONLY)


@contextlib.contextmanager
def loading(name: str, kind: str, uri: str) -> Iterator[None]:
    """Lets one thread at a time load, so that none loads what another is loading, and says in one line what failed.

    Args:
        name: The extractor.
        kind: Its class.
        uri: Where its weights come from.

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
                f"{uri} cannot be loaded by {kind}: {first_line(error)}; check that the folder is of such a network"
            ) from error


def lineage_with(config: StrictModel, weights: ResolvedWeights) -> dict[str, Any]:
    """The lineage of an extractor with a pretrained network: all its options, and the weights with their digest."""
    found = {"uri": weights.uri, "sha256": weights.sha256, "trained": True}
    return {**config.model_dump(mode="json"), "weights": found}


@contextlib.contextmanager
def no_progress_bar() -> Iterator[None]:
    """Keeps transformers from drawing a bar on stderr while it loads."""
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
    """Keeps transformers from listing, as a warning, the parameters of another tower that are not asked for."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)

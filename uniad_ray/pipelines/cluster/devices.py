"""Devices and threads of a worker process."""

from __future__ import annotations

from uniad_ray.errors import ConfigError


def choose_device(device: str) -> str:
    """Resolves `auto` to `cuda` where this process has a GPU, else to `cpu`.

    Raises:
        ConfigError: `cuda` is asked for and there is none, or the name is neither.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"device {device!r}: use auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: this process sees no GPU; use --device cpu or auto")
    return device


def limit_threads(threads: int) -> None:
    """Sets the threads of networks and neighbour search, so that workers do not fight for cores.

    It holds for the thread that calls it, and for threads that start later.
    """
    import faiss
    import torch

    torch.set_num_threads(threads)
    # Only what a thread has once read stays its own; until then another thread's number becomes that of this one.
    torch.get_num_threads()
    faiss.omp_set_num_threads(threads)

"""Devices and threads of a worker process."""

from __future__ import annotations

from uniad_ray.errors import ConfigError


def choose_device(device: str) -> str:
    """Resolves `auto` to `cuda` if this process has a GPU, else to `cpu`.

    Raises:
        ConfigError: `cuda` is requested without a GPU, or the name is unknown.
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
    """Limits the threads of networks and neighbour search, to keep workers from competing for cores.

    The limit holds for the calling thread and for threads that start later.
    """
    import faiss
    import torch

    torch.set_num_threads(threads)
    # Reading the number pins it for this thread; until then, a call in another thread would change it.
    torch.get_num_threads()
    faiss.omp_set_num_threads(threads)

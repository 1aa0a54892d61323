"""Arrays on disk that are read on access."""

from __future__ import annotations

import tempfile

import numpy as np

from uniad_ray.errors import StoreError


def mapped_copy(array: np.ndarray) -> np.ndarray:
    """Copies an array to an unnamed file in the temporary folder; it is deleted with the last reference to the copy.

    Args:
        array: Any shape with at least one value, any dtype without objects.

    Returns:
        A read-only array of the same shape, dtype and values, mapped from the file.

    Raises:
        StoreError: The temporary folder has too little space.
    """
    try:
        with tempfile.TemporaryFile() as file:
            file.write(np.ascontiguousarray(array).data)
            file.flush()
            return np.memmap(file, dtype=array.dtype, mode="r", shape=array.shape)
    except OSError as error:
        raise StoreError(
            f"{tempfile.gettempdir()}: cannot hold {array.nbytes} bytes of a memory bank: {error.strerror}; "
            "free space there, or set TMPDIR to another folder"
        ) from error

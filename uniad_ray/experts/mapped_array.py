"""Arrays that lie on disk and are read where they are touched."""

from __future__ import annotations

import tempfile

import numpy as np

from uniad_ray.errors import StoreError


def mapped_copy(array: np.ndarray) -> np.ndarray:
    """Copies an array to a nameless file of the temporary folder, which vanishes with the last reference to the copy.

    Args:
        array: Of any shape with at least one value, and any dtype without objects.

    Returns:
        A read-only array of the same shape, dtype and values, mapped from the file.

    Raises:
        StoreError: The temporary folder cannot hold it.
    """
    try:
        with tempfile.TemporaryFile() as file:
            file.write(np.ascontiguousarray(array).data)
            file.flush()
            return np.memmap(file, dtype=array.dtype, mode="r", shape=array.shape)
    except OSError as error:
        raise StoreError(
            f"{tempfile.gettempdir()}: cannot hold {array.nbytes} bytes of a memory bank: {error.strerror}; "
            "make room there, or name another folder by TMPDIR"
        ) from error

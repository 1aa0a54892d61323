"""How often this process repeated requests to a store."""

from __future__ import annotations

import sys


def store_retries() -> int:
    """Number of repeated requests of this process; 0 without S3, whose client it does not import."""
    client = sys.modules.get("uniad_ray.archive.stores.s3_client")
    return 0 if client is None else int(client.retries())

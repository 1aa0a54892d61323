"""Patience with a store that is away: boto3 alone gives up after a random time, sometimes within 15 seconds."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from botocore import exceptions as boto

from uniad_ray.archive.stores.s3_client import is_overloaded, note_retry
from uniad_ray.errors import StoreError

PATIENCE_SECONDS: Final = 60.0
"""How long a request is repeated after its first attempts have failed."""
_PAUSE_SECONDS: Final = 2.0
_AWAY = (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError)
_logger = logging.getLogger(__name__)
Arguments = ParamSpec("Arguments")
ResultT = TypeVar("ResultT")


def patient(request: Callable[Arguments, ResultT]) -> Callable[Arguments, ResultT]:
    """Repeats a request for `PATIENCE_SECONDS` while the store cannot be reached, or is overloaded or failing.

    A process with `AWS_MAX_ATTEMPTS` cannot wait, such as the endpoint: there, the attempts of boto3 are all.

    Args:
        request: Raises StoreError with the error of boto3 as its cause. It may have been carried out when it fails.
    """

    @functools.wraps(request)
    def repeated(*arguments: Arguments.args, **options: Arguments.kwargs) -> ResultT:
        deadline = None
        while True:
            try:
                return request(*arguments, **options)
            except StoreError as error:
                if not _may_pass(error.__cause__) or "AWS_MAX_ATTEMPTS" in os.environ:
                    raise
                if deadline is None:
                    deadline = time.monotonic() + PATIENCE_SECONDS
                    _logger.warning("%s; trying again for %g s", error, PATIENCE_SECONDS)
                elif time.monotonic() > deadline:
                    raise
            note_retry()
            time.sleep(_PAUSE_SECONDS)

    return repeated


def _may_pass(cause: BaseException | None) -> bool:
    return isinstance(cause, _AWAY) or (isinstance(cause, boto.ClientError) and is_overloaded(cause))

"""The S3 client of this process, and user-facing messages for its errors."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3.session
import botocore.session
from botocore import exceptions as boto
from botocore.config import Config

from uniad_ray.errors import BucketNotFoundError, ObjectDeniedError, ObjectNotFoundError, StoreError

MAX_ATTEMPTS = 8
CONNECT_SECONDS = 10
READ_SECONDS = 60
POOL_CONNECTIONS = 32

NOT_FOUND_CODES = frozenset({"NoSuchKey", "404"})
_DENIED_CODES = frozenset({"AccessDenied", "AllAccessDisabled", "Forbidden", "403"})
_CREDENTIAL_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_REGION_CODES = frozenset(
    {"301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)
_BUSY_CODES = frozenset({"RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"})
_CREDENTIAL_ERRORS = (
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.SSOError,
    boto.TokenRetrievalError,
    boto.UnknownCredentialError,
)

_creation = threading.Lock()


def s3_client() -> Any:
    """The client of this process and environment; safe for several threads.

    boto3 finds endpoint, region, profile and credentials: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_PROFILE`, the
    configuration files, the instance profile. Temporary credentials renew themselves. `AWS_MAX_ATTEMPTS` and
    `AWS_RETRY_MODE` are used if set; the default is 8 attempts in the standard mode.
    """
    return _connection().client


def retries() -> int:
    """The number of requests that this process has repeated with the present client."""
    return _connection().retries


def note_retry() -> None:
    """Counts a request that the caller repeats; those that boto3 repeats are counted by themselves."""
    _connection().retries += 1


def limit_attempts(attempts: int) -> None:
    """Limits the attempts per request in this process, for callers that cannot wait; `AWS_MAX_ATTEMPTS` overrides."""
    os.environ.setdefault("AWS_MAX_ATTEMPTS", str(attempts))


def endpoint() -> str:
    """URL of the store that the client uses."""
    return str(s3_client().meta.endpoint_url)


@contextlib.contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turns boto3 errors into StoreError or ObjectNotFoundError, with one line that names `uri`."""
    try:
        yield
    except boto.ClientError as error:
        raise _from_response(uri, error) from error
    except boto.ParamValidationError as error:
        raise BucketNotFoundError(f"{uri}: {_explain(error)}") from error
    except boto.BotoCoreError as error:
        raise StoreError(f"{uri}: {_explain(error)}") from error
    except ValueError as error:
        # boto3 rejects a malformed endpoint with a bare ValueError.
        raise StoreError(f"{uri}: {_one_line(error)}; check AWS_ENDPOINT_URL") from error


def error_code(error: Any) -> str:
    """The store's code for a refused request, such as `PreconditionFailed`, or else the HTTP status."""
    response = error.response
    return str(response.get("Error", {}).get("Code") or response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


@dataclass
class _Connection:
    """A client, and how often it repeated a request."""

    client: Any
    retries: int = 0

    def count(self, *, attempts: int, **_: object) -> None:
        """Handles botocore's event for each response, or lack of one."""
        self.retries += attempts > 1


def _connection() -> _Connection:
    # The key holds the process, because connections must not cross a fork, and the settings that boto3 reads.
    with _creation:
        return _client(os.getpid(), tuple(sorted(_settings())))


def is_overloaded(error: Any) -> bool:
    """Whether a store refused a request because it is overloaded or failing, so that a retry may succeed."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # 501 says that the store lacks the operation, such as a conditional write, and will lack it in a minute too.
    return error_code(error) in _BUSY_CODES or (status >= 500 and status != 501)


def _settings() -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if name.startswith("AWS_") or name.lower().endswith("_proxy") or name == "HOME":
            yield name, value


@functools.lru_cache(maxsize=4)
def _client(process: int, settings: tuple[tuple[str, str], ...]) -> _Connection:  # noqa: ARG001 - the key of the cache
    core = botocore.session.get_session()
    config = Config(
        retries={
            "mode": "adaptive" if core.get_config_variable("retry_mode") == "adaptive" else "standard",
            "total_max_attempts": core.get_config_variable("max_attempts") or MAX_ATTEMPTS,
        },
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=POOL_CONNECTIONS,
        tcp_keepalive=True,
        # Many S3-compatible stores reject the trailing checksums that boto3 sends by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    connection = _Connection(boto3.session.Session(botocore_session=core).client("s3", config=config))
    connection.client.meta.events.register_first("needs-retry.s3", connection.count)
    return connection


def _from_response(uri: str, error: Any) -> StoreError:
    """The error for an error response of the store."""
    code = error_code(error)
    if code in NOT_FOUND_CODES:
        return ObjectNotFoundError(f"{uri}: no such object; check the URI")
    if code == "NoSuchBucket":
        return no_such_bucket(uri)
    if code in _DENIED_CODES:
        return ObjectDeniedError(
            f"{uri}: access denied; grant the credentials this right (without s3:ListBucket, S3 also denies access to "
            "objects that do not exist)"
        )
    if code in _CREDENTIAL_CODES:
        return StoreError(f"{uri}: the store rejected the credentials ({code}); renew them and check the clock")
    if code in _REGION_CODES:
        return StoreError(f"{uri}: the bucket is in another region ({code}); set AWS_DEFAULT_REGION to that region")
    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 501:
        return StoreError(
            f"{uri}: the store does not support this request ({code}); use a store with conditional writes "
            "(If-None-Match), which `uniad-ray doctor --store` checks"
        )
    if is_overloaded(error):
        return StoreError(f"{uri}: the store is overloaded or failing ({code}), after all retries; try again later")
    return StoreError(f"{uri}: the store responded with {_one_line(error)}")


def no_such_bucket(uri: str) -> StoreError:
    """The error for a URI whose bucket does not exist."""
    return BucketNotFoundError(f"{uri}: no such bucket at {endpoint()}; create it or correct the URI")


def _explain(error: Exception) -> str:
    """What failed before the store responded, and what to do."""
    reason = _one_line(error)
    if isinstance(error, _CREDENTIAL_ERRORS):
        return f"no usable AWS credentials ({reason}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, boto.ProfileNotFound):
        return f"{reason}; set AWS_PROFILE to a profile of your AWS configuration files"
    if isinstance(error, boto.ReadTimeoutError):
        return f"no response within {READ_SECONDS} s, after all retries; try again later"
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError | boto.IncompleteReadError):
        return f"the store cannot be reached ({reason}); check AWS_ENDPOINT_URL and the network"
    return f"{reason}; check the URI and the AWS configuration"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")

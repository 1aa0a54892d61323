"""Signed webhooks, by the open specification of Standard Webhooks (standardwebhooks.com).

Receivers verify `webhook-signature` and drop a `webhook-id` that they have seen; libraries for it exist in most
languages.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import time
from typing import TYPE_CHECKING, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from uniad_ray import __version__
from uniad_ray.alarms.message import Message
from uniad_ray.alarms.secrets import Secret
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError, DeliveryError

if TYPE_CHECKING:
    import urllib3

_PREFIX: Final = "whsec_"
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE: Final = 60.0

When = Literal["alarm", "always"]


class Webhook(StrictModel):
    """A receiver of JSON by HTTP POST.

    Attributes:
        url: Address of the receiver.
        url_from: Place of the address instead, if it contains a key.
        secret: Place of the signing key: `whsec_` and base64, or any text of 16 bytes or more.
        when: `alarm` sends nights with alarms; `always` sends every night.
        attempts: Attempts of one call; later calls of `uniad-ray nightly` try again.
        backoff_seconds: Half the pause before the third attempt; the second follows at once, later pauses double, up to
            a minute. `Retry-After` of the receiver counts too.
        timeout_seconds: Longest wait for a connection or a response.
    """

    url: str | None = None
    url_from: Secret | None = None
    secret: Secret
    when: When = "alarm"
    attempts: int = Field(default=5, ge=1, le=20)
    backoff_seconds: float = Field(default=1.0, ge=0, le=60)
    timeout_seconds: float = Field(default=15.0, gt=0, le=300)

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if (self.url is None) == (self.url_from is None):
            raise ValueError("give either url, or url_from with env or file")
        if self.url is not None and not _is_http(self.url):
            raise ValueError("url must begin with https:// or http:// and name a host, without a user or a password")
        return self

    def address(self, where: str) -> str:
        """The address.

        Raises:
            ConfigError: It cannot be read, or is no HTTP address.
        """
        if self.url is not None:
            return self.url
        found = self.url_from.read(f"{where}.url_from") if self.url_from else ""
        if not _is_http(found):
            raise ConfigError(f"{where}.url_from: the text is no address; it must begin with https:// or http://")
        return found

    def key(self, where: str) -> bytes:
        """The signing key.

        Raises:
            ConfigError: It cannot be read, is not base64 after `whsec_`, or is shorter than 16 bytes.
        """
        text = self.secret.read(f"{where}.secret")
        try:
            key = (
                base64.b64decode(text.removeprefix(_PREFIX), validate=True)
                if text.startswith(_PREFIX)
                else text.encode()
            )
        except binascii.Error as error:
            raise ConfigError(f"{where}.secret: not base64 after {_PREFIX}; write `openssl rand -base64 32`") from error
        if len(key) < 16:
            raise ConfigError(f"{where}.secret: shorter than 16 bytes; write `openssl rand -base64 32`")
        return key


def body(message: Message) -> bytes:
    """The JSON of a message as it is sent; equal messages have equal bytes."""
    return json.dumps(message.document, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def signature(key: bytes, identity: str, timestamp: int, data: bytes) -> str:
    """The value of `webhook-signature`: HMAC-SHA256 of `<id>.<timestamp>.<body>`.

    Args:
        key: Signing key.
        identity: Id of the message.
        timestamp: Time of sending, seconds since the epoch.
        data: The body.
    """
    digest = hmac.new(key, f"{identity}.{timestamp}.".encode() + data, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def send(webhook: Webhook, message: Message, *, where: str) -> None:
    """Sends a message, with retries after failures that may pass: no connection, no response, 408, 425, 429 and 5xx.

    Args:
        webhook: The receiver.
        message: The message.
        where: Key of the receiver in the configuration, for messages.

    Raises:
        ConfigError: A secret cannot be read.
        DeliveryError: The receiver refused the message, or could not be reached in all attempts.
    """
    import urllib3

    data, key = body(message), webhook.key(where)
    retries = urllib3.Retry(
        total=webhook.attempts - 1,
        # A redirect would take the message to a place that nobody configured.
        redirect=False,
        allowed_methods=None,
        status_forcelist=_RETRIED,
        backoff_factor=webhook.backoff_seconds,
        backoff_max=_LONGEST_PAUSE,
        raise_on_status=False,
        retry_after_max=int(_LONGEST_PAUSE),
    )
    address = webhook.address(where)
    # It logs the path of the address at each retry, and the path may be a secret.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    try:
        with urllib3.PoolManager(timeout=webhook.timeout_seconds) as pool:
            response = _post(pool, address, message.id, data, key, retries)
    except urllib3.exceptions.HTTPError as error:
        # The error of urllib3 holds the address, which may be a secret.
        raise DeliveryError(
            f"{where}: {urlsplit(address).hostname} cannot be reached in {webhook.attempts} attempts "
            f"({type(error).__name__})"
        ) from None
    if not 200 <= response.status < 300:
        raise DeliveryError(f"{where}: {urlsplit(address).hostname} responded with status {response.status}")


def _post(
    pool: urllib3.PoolManager, address: str, identity: str, data: bytes, key: bytes, retries: urllib3.Retry
) -> urllib3.BaseHTTPResponse:
    """Posts until a response is not to be retried, or no attempt is left; then returns or raises the last outcome.

    Receivers refuse old timestamps, and pauses may be minutes: so each attempt has its own, and is signed anew.
    """
    import urllib3

    while True:
        timestamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": f"uniad-ray/{__version__}",
            "webhook-id": identity,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(key, identity, timestamp, data),
        }
        response: urllib3.BaseHTTPResponse | None = None
        failure: urllib3.exceptions.HTTPError | None = None
        try:
            response = pool.request("POST", address, body=data, headers=headers, retries=False, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            failure = error
        if response is not None and not retries.is_retry("POST", response.status, "retry-after" in response.headers):
            return response
        if not retries.total:
            if response is not None:
                return response
            raise failure or urllib3.exceptions.HTTPError
        retries = retries.increment("POST", address, response=response, error=failure)
        retries.sleep(response)


def _is_http(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None

"""Captions by a server with the chat interface of OpenAI, such as `vllm serve`."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import numpy as np
import requests
from PIL import Image
from pydantic import Field, field_validator
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import CaptionError, ConfigError
from uniad_ray.perception.captions.base import MAX_CHARACTERS

_RETRIED: Final = (429, 500, 502, 503, 504)
_LONGEST_PAUSE: Final = 60
_MAX_ANSWER_BYTES: Final = 1 << 20
_SHOWN_CHARACTERS: Final = 200


class CaptionServerConfig(StrictModel):
    """A server with OpenAI's chat interface.

    Attributes:
        kind: A server with OpenAI's chat interface, such as `vllm serve`.
        url: Where the interface begins, such as `http://gpu-1:8000/v1`; without user, password or key.
        model: The model's name, as the server has it.
        max_tokens: Most tokens of an answer.
        seed: Sent with each request, whose temperature is 0.
        timeout: Seconds to wait for the server's answer.
        retries: Repeated requests where the server cannot be reached, is busy (429) or fails (500, 502, 503, 504).
        backoff: Seconds of the pause before the second repetition; each pause is twice the one before, at most 60.
        concurrency: Most requests of a worker at a time.
        api_key_variable: Name of the environment variable with the server's key, on every worker; null sends none.
    """

    kind: Literal["server"]
    url: str
    model: str = Field(min_length=1)
    max_tokens: int = Field(default=512, ge=1, le=4096)
    seed: int = 0
    timeout: float = Field(default=120.0, gt=0.0, le=3600.0)
    retries: int = Field(default=6, ge=0, le=20)
    backoff: float = Field(default=1.0, ge=0.0, le=60.0)
    concurrency: int = Field(default=8, ge=1, le=256)
    api_key_variable: str | None = None

    @field_validator("url")
    @classmethod
    def _without_credentials(cls, url: str) -> str:
        # A ValueError, whose message does not repeat what was given: it may be a secret.
        try:
            parts = urlsplit(url)
            secret = parts.username or parts.password or parts.query or parts.fragment
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            secret, usable = None, False
        if not usable or re.search(r"[\s\\]", url):
            raise ValueError("is no address; write it as http://HOST:PORT/v1")
        if secret:
            raise ValueError(
                "must hold no user, password, query or fragment; name the key's variable in api_key_variable"
            )
        return url.rstrip("/")

    @field_validator("api_key_variable")
    @classmethod
    def _name_of_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise ValueError(
                "is no name of an environment variable, such as VLM_API_KEY; never write the key itself here"
            )
        return name


class CaptionServer:
    """Sends each image with the prompt as one request of temperature 0.

    A server may still compute an image beside others in another order, so that now and then two answers to one image
    differ by a word.
    """

    def __init__(self, name: str, config: CaptionServerConfig) -> None:
        """Prepares the connection; nothing is sent before there are images.

        Args:
            name: The extractor, for messages.
            config: The server.
        """
        self._name = name
        self._config = config
        self._session = requests.Session()
        # Threads share the session, so that nothing in it may change; and no server is to recognise another request.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        retry = Retry(
            total=config.retries,
            status_forcelist=_RETRIED,
            allowed_methods=None,
            backoff_factor=config.backoff / 2,
            backoff_max=_LONGEST_PAUSE,
            retry_after_max=_LONGEST_PAUSE,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=config.concurrency, max_retries=retry))

    def captions(self, row_keys: Sequence[str], images: np.ndarray, prompt: str) -> list[str]:  # noqa: ARG002
        """Asks for each image by itself; see `Captioner`.

        Raises:
            CaptionError: The server cannot be reached, refuses, or answers without a text.
            ConfigError: The key's variable is not set.
        """
        key = self._key()
        with ThreadPoolExecutor(self._config.concurrency) as pool:
            # The first error cancels what has not begun.
            return list(pool.map(lambda image: self._caption(image, prompt, key), images))

    def lineage(self) -> dict[str, Any]:
        """The server and what it is asked for; not the key, nor what changes the speed alone."""
        return self._config.model_dump(mode="json", include={"kind", "url", "model", "max_tokens", "seed"})

    def _caption(self, image: np.ndarray, prompt: str, key: str | None) -> str:
        config = self._config
        question: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _data_url(image)}},
            {"type": "text", "text": prompt},
        ]
        request: dict[str, Any] = {
            "model": config.model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": config.max_tokens,
            "temperature": 0,
            "seed": config.seed,
        }
        try:
            with self._session.post(
                f"{config.url}/chat/completions",
                json=request,
                auth=_Bearer(key),
                timeout=config.timeout,
                allow_redirects=False,  # which would take the key and the image to somebody else
                stream=True,
            ) as response:
                status, body = response.status_code, _bounded_body(response)
        except requests.RequestException as error:
            raise CaptionError(
                f"{self._name}: {config.url} cannot be reached ({type(error).__name__}, {config.retries} retries); "
                "check that the server runs and that every worker can reach it"
            ) from error
        if status != requests.codes.ok:
            raise CaptionError(f"{self._name}: {self._refusal(status, body, key)}")
        return self._text(body)

    def _refusal(self, status: int, body: bytes, key: str | None) -> str:
        """One line on an answer that is no success."""
        config = self._config
        if status in (401, 403):
            # What the server says of a key may repeat it.
            given = "no key was sent; name its variable in api_key_variable"
            wanted = f"check the key in {config.api_key_variable}" if key else given
            return f"{config.url} refuses the request (HTTP {status}); {wanted}"
        said = _message(body)
        said = said.replace(key, "***") if key else said
        if status == requests.codes.not_found:
            return (
                f"{config.url} knows no model {config.model} or no such path (HTTP 404: {said}); {config.url}/models "
                "lists its models, and the url ends in /v1 as a rule"
            )
        if status in _RETRIED:
            return (
                f"{config.url} is busy or fails (HTTP {status} after {config.retries} retries: {said}); look at its "
                "log, or lower concurrency"
            )
        return f"{config.url} refuses the request (HTTP {status}: {said}); mend url, model or max_tokens"

    def _text(self, body: bytes) -> str:
        """The text of an answer, cut at `MAX_CHARACTERS`."""
        try:
            text = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise CaptionError(
                f"{self._name}: {self._config.url} answers in another form than OpenAI's chat interface; check the url"
            ) from error
        if not isinstance(text, str) or not text.strip():
            raise CaptionError(
                f"{self._name}: {self._config.model} answers without a text; raise max_tokens, or take a model that "
                "sees images and is tuned for chat"
            )
        return text.strip()[:MAX_CHARACTERS]

    def _key(self) -> str | None:
        """The key; read when it is needed, so that a plan can be made without it."""
        variable = self._config.api_key_variable
        if variable is None:
            return None
        key = os.environ.get(variable, "").strip()
        # requests would refuse such a header with a message that repeats it.
        if not re.fullmatch(r"[!-~]+", key):
            raise ConfigError(
                f"{self._name}: {variable} holds no key; set it, in ASCII without spaces, on every machine that works"
            )
        return key


class _Bearer(requests.auth.AuthBase):
    """Sends the key; and, with or without one, keeps requests from sending what a .netrc file says."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _data_url(image: np.ndarray) -> str:
    """An image, uint8 of shape (H, W, 3), as a PNG in a URL."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _bounded_body(response: requests.Response) -> bytes:
    """The body of an answer, and no more of it than an answer can need."""
    body = b""
    for block in response.iter_content(1 << 16):
        body += block
        if len(body) > _MAX_ANSWER_BYTES:
            break
    return body


def _message(body: bytes) -> str:
    """What a server says of an error, on one short line."""
    text = body.decode("utf-8", "replace")
    try:
        document = json.loads(text)
        inner = document.get("error", document)
        text = str(inner["message"] if isinstance(inner, dict) else inner)
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    return " ".join(text.split())[:_SHOWN_CHARACTERS] or "no message"

"""Captions by a server with an OpenAI-compatible chat API, such as `vllm serve`."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
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
from uniad_ray.perception.captions.base import Answer, Captions, captions_of, checked

_RETRIED: Final = (429, 500, 502, 503, 504)
_OF_ONE_IMAGE: Final = (400, 413, 422)
"""Statuses that can concern one request alone, such as an image with too many tokens."""
_LONGEST_PAUSE: Final = 60
_MAX_ANSWER_BYTES: Final = 1 << 20
_SHOWN_CHARACTERS: Final = 200


_DECISIVE: Final = {"kind", "url", "model", "max_tokens", "seed", "longest_side"}


class CaptionServerConfig(StrictModel):
    """Options of a server with an OpenAI-compatible chat API.

    Attributes:
        kind: A server with an OpenAI-compatible chat API, such as `vllm serve`.
        url: Base URL of the API, such as `http://gpu-1:8001/v1`; must not contain a user, password or key.
        model: Name of the model on the server.
        max_tokens: Maximum number of tokens of an answer.
        seed: Seed sent with each request; the temperature is 0.
        timeout: Seconds to wait for a response.
        retries: Retries if the server is unreachable, busy (429) or fails (500, 502, 503, 504).
        backoff: Seconds to wait before the second retry; the wait doubles with each retry, up to 60.
        concurrency: Maximum number of parallel requests per worker.
        api_key_variable: Environment variable with the API key, set on every worker; null sends no key.
        longest_side: Maximum height and width of an image, pixels; larger ones are reduced in their aspect ratio.
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
    longest_side: int = Field(default=1280, ge=32, le=4096)

    @field_validator("url")
    @classmethod
    def _without_credentials(cls, url: str) -> str:
        # The message must not repeat the input, which may contain a secret.
        try:
            parts = urlsplit(url)
            secret = parts.username or parts.password or parts.query or parts.fragment
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            secret, usable = None, False
        if not usable or re.search(r"[\s\\]", url):
            raise ValueError("is not a URL; use the form http://HOST:PORT/v1")
        if secret:
            raise ValueError(
                "must not contain a user, password, query or fragment; name the key's variable in api_key_variable"
            )
        return url.rstrip("/")

    @field_validator("api_key_variable")
    @classmethod
    def _name_of_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise ValueError(
                "is not the name of an environment variable, such as VLM_API_KEY; never write the key itself here"
            )
        return name


class CaptionServer:
    """Sends one request per image, with temperature 0.

    A server can still batch requests differently, so answers to the same image occasionally differ by a word.
    """

    def __init__(self, name: str, config: CaptionServerConfig) -> None:
        """Prepares the session; sends nothing before the first images.

        Args:
            name: Name of the extractor, for messages.
            config: The server.
        """
        self._name = name
        self._config = config
        self.longest_side: int | None = config.longest_side
        self._session = requests.Session()
        # Threads share the session, so it must not change: cookies are off, which also prevents tracking.
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

    def captions(self, row_keys: Sequence[str], images: Sequence[np.ndarray], prompt: str) -> Captions:  # noqa: ARG002
        """Sends one request per image; see `Captioner`.

        Raises:
            CaptionError: The server is unreachable, rejects a request, or its response is not a chat completion.
            ConfigError: The key's environment variable is not set.
        """
        return captions_of(self._ask(images, prompt, None, None, is_one_rejection_fatal=True))

    def answers(
        self,
        images: Sequence[np.ndarray],
        prompt: str,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
    ) -> list[Answer]:
        """Sends one request per image; see `VisionLanguageModel`.

        Raises:
            CaptionError: The server is unreachable, or its response is not a chat completion.
            ConfigError: The key's environment variable is not set.
        """
        return self._ask(images, prompt, schema, max_tokens, is_one_rejection_fatal=False)

    def lineage(self) -> dict[str, Any]:
        """The server and the options that affect the texts, without the key and options that only affect speed."""
        return self._config.model_dump(mode="json", include=_DECISIVE)

    def _ask(
        self,
        images: Sequence[np.ndarray],
        prompt: str,
        schema: Mapping[str, Any] | None,
        max_tokens: int | None,
        *,
        is_one_rejection_fatal: bool,
    ) -> list[Answer]:
        key = self._key()

        def ask(image: np.ndarray) -> Answer:
            answer = self._answer(image, prompt, schema, max_tokens or self._config.max_tokens, key)
            if is_one_rejection_fatal and answer.error_kind == "rejected":
                raise CaptionError(str(answer.error))
            return answer

        with ThreadPoolExecutor(self._config.concurrency) as pool:
            # The first error cancels all requests that have not started.
            return list(pool.map(ask, images))

    def _answer(
        self, image: np.ndarray, prompt: str, schema: Mapping[str, Any] | None, max_tokens: int, key: str | None
    ) -> Answer:
        config = self._config
        question: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _data_url(image)}},
            {"type": "text", "text": prompt},
        ]
        request: dict[str, Any] = {
            "model": config.model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": config.seed,
        }
        if schema is not None:
            structure = {"name": "caption", "schema": schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": structure}
        started = time.perf_counter()
        try:
            with self._session.post(
                f"{config.url}/chat/completions",
                json=request,
                auth=_Bearer(key),
                timeout=config.timeout,
                allow_redirects=False,  # a redirect could send the key and the image to another host
                stream=True,
            ) as response:
                status, body = response.status_code, _bounded_body(response)
        except requests.RequestException as error:
            raise CaptionError(
                f"{self._name}: cannot reach {config.url} ({type(error).__name__}, {config.retries} retries); "
                "check that the server runs and that every worker can reach it"
            ) from error
        seconds = time.perf_counter() - started
        if status != requests.codes.ok:
            message = f"{self._name}: {self._refusal(status, body, key)}"
            if status in _OF_ONE_IMAGE:
                return Answer("", "rejected", message, seconds=seconds)
            raise CaptionError(message)
        return self._read(body, seconds)

    def _refusal(self, status: int, body: bytes, key: str | None) -> str:
        """A one-line message for an unsuccessful response."""
        config = self._config
        if status in (401, 403):
            # The server's message may repeat the key.
            given = "no key was sent; name its variable in api_key_variable"
            wanted = f"check the key in {config.api_key_variable}" if key else given
            return f"{config.url} rejected the request (HTTP {status}); {wanted}"
        said = _message(body)
        said = said.replace(key, "***") if key else said
        if status == requests.codes.not_found:
            return (
                f"{config.url} has no model {config.model} or no chat API (HTTP 404: {said}); see {config.url}/models "
                "for its models, and check that the url ends in /v1"
            )
        if status in _RETRIED:
            return (
                f"{config.url} is busy or failing (HTTP {status} after {config.retries} retries: {said}); check its "
                "log, or lower concurrency"
            )
        return f"{config.url} rejected the request (HTTP {status}: {said}); check url, model and max_tokens"

    def _read(self, body: bytes, seconds: float) -> Answer:
        """The answer in a response."""
        try:
            document = json.loads(body)
            choice = document["choices"][0]
            text = choice["message"]["content"]
            usage = document.get("usage") or {}
            is_cut = choice.get("finish_reason") == "length"
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise CaptionError(
                f"{self._name}: the response of {self._config.url} is not an OpenAI chat completion; check the url"
            ) from error
        answer = Answer(
            text=text.strip() if isinstance(text, str) else "",
            prompt_tokens=_count(usage, "prompt_tokens"),
            tokens=_count(usage, "completion_tokens"),
            seconds=seconds,
        )
        return checked(answer, f"{self._name}: {self._config.model}", is_cut)

    def _key(self) -> str | None:
        """The API key, read on use: planning works without it."""
        variable = self._config.api_key_variable
        if variable is None:
            return None
        key = os.environ.get(variable, "").strip()
        # requests would reject such a header with a message that repeats the key.
        if not re.fullmatch(r"[!-~]+", key):
            raise ConfigError(
                f"{self._name}: {variable} holds no valid key; set it on every worker, in ASCII without spaces"
            )
        return key


class _Bearer(requests.auth.AuthBase):
    """Sends the key, if any, and keeps requests from sending credentials from a .netrc file."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _count(usage: Any, name: str) -> int | None:
    """A number of tokens that a server reports, if it does."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else None


def _data_url(image: np.ndarray) -> str:
    """An image, uint8 of shape (H, W, 3), as a PNG data URL."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _bounded_body(response: requests.Response) -> bytes:
    """The body of a response, read up to a size limit."""
    body = b""
    for block in response.iter_content(1 << 16):
        body += block
        if len(body) > _MAX_ANSWER_BYTES:
            break
    return body


def _message(body: bytes) -> str:
    """The error message of a server, shortened to one line."""
    text = body.decode("utf-8", "replace")
    try:
        document = json.loads(text)
        inner = document.get("error", document)
        text = str(inner["message"] if isinstance(inner, dict) else inner)
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    return " ".join(text.split())[:_SHOWN_CHARACTERS] or "no message"

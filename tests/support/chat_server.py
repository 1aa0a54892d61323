"""Fake server with OpenAI's chat API: gives the test's responses and records the requests."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.http_server import serving


@dataclass(frozen=True)
class Asked:
    """One request: its path, headers and JSON, and the prompt and pixels in it."""

    path: str
    headers: dict[str, str]
    document: dict[str, Any]
    prompt: str
    image: np.ndarray


Answer = Callable[[Asked], "str | tuple[int, bytes]"]
"""Text of the response, or a status and a body."""


@dataclass
class ChatServer:
    """Running fake server.

    Attributes:
        url: Base URL of the API.
        answer: Function that returns the response to a request.
        asked: Requests, in order of arrival.
        most_at_once: Maximum number of concurrent requests.
    """

    url: str
    answer: Answer
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0
    open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextlib.contextmanager
def chat_server(answer: Answer) -> Iterator[ChatServer]:
    """Runs a fake server on 127.0.0.1 within a `with` block; requests reach it without the machine's proxy."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    with serving(server) as url, pytest.MonkeyPatch.context() as patch:
        fake = ChatServer(f"{url}/v1", answer)
        server.fake = fake  # type: ignore[attr-defined]
        patch.setenv("NO_PROXY", "*")
        yield fake


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        fake: ChatServer = self.server.fake  # type: ignore[attr-defined]
        asked = _read(self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])))
        with fake.lock:
            fake.asked.append(asked)
            fake.open += 1
            fake.most_at_once = max(fake.most_at_once, fake.open)
        try:
            answered = fake.answer(asked)
        finally:
            with fake.lock:
                fake.open -= 1
        status, body = answered if isinstance(answered, tuple) else (200, completion(answered))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status in (301, 302, 307, 308):
            self.send_header("Location", body.decode())
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may close the connection early
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing to stderr."""


def completion(text: str | None, finish_reason: str = "stop", usage: dict[str, int] | None = None) -> bytes:
    """Returns a chat completion in the format of vLLM."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def refusal(message: str) -> bytes:
    """Returns an error in the format of vLLM."""
    return json.dumps({"error": {"message": message, "type": "NotFoundError", "param": None, "code": 404}}).encode()


def _read(path: str, headers: dict[str, str], body: bytes) -> Asked:
    document = json.loads(body)
    (message,) = document["messages"]
    image, prompt = message["content"]
    head, _, data = image["image_url"]["url"].partition(",")
    assert (message["role"], head) == ("user", "data:image/png;base64")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))
    return Asked(path, headers, document, prompt["text"], pixels)

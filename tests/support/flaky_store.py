"""A proxy before an S3 server that fails as overloaded and distant stores do."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from support.http_server import serving

_ERRORS = {503: "SlowDown", 500: "InternalError"}
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass
class FlakyStore:
    """What fails, and what has failed.

    Attributes:
        upstream: URL of the server.
        endpoint: URL of the proxy.
        error_share: Share of requests that are answered with 503 or 500; half of them are carried out all the same.
        cut_share: Share of downloads whose connection is cut inside the body.
        away_until: Until this time, on the monotonic clock, connections are closed without an answer.
        faults: Number of faults by kind.
    """

    upstream: str
    endpoint: str = ""
    error_share: float = 0.0
    cut_share: float = 0.0
    away_until: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    random: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - no secret
    requests: int = 0

    def go_away(self, seconds: float) -> None:
        """Is away from now on for some time."""
        self.away_until = time.monotonic() + seconds
        self.faults["away"] += 1

    @property
    def is_away(self) -> bool:
        """Whether it answers nothing now."""
        return time.monotonic() < self.away_until


@contextlib.contextmanager
def flaky_store(upstream: str) -> Iterator[FlakyStore]:
    """Runs a proxy on a free port before the S3 server at `upstream`."""
    store = FlakyStore(upstream)
    host = urlsplit(upstream).netloc
    lock = threading.Lock()

    def draw() -> tuple[int | None, bool, bool]:
        """Status of an error, whether the request is carried out all the same, and whether its body is cut."""
        with lock:
            store.requests += 1
            status = store.random.choice(list(_ERRORS)) if store.random.random() < store.error_share else None
            return status, store.random.random() < 0.5, store.random.random() < store.cut_share

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if store.is_away:
                self.close_connection = True
                return
            status, is_done, is_cut = draw()
            if status is not None:
                if is_done:
                    self.ask(body)
                store.faults[str(status)] += 1
                self.answer(status, {}, f"<Error><Code>{_ERRORS[status]}</Code></Error>".encode(), None)
                return
            found, headers, content = self.ask(body)
            cut = len(content) // 2 if is_cut and self.command == "GET" and len(content) > 1 else None
            if cut is not None:
                store.faults["cut"] += 1
            self.answer(found, headers, content, cut)

        def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(host, timeout=60)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                response = connection.getresponse()
                return response.status, dict(response.getheaders()), response.read()
            finally:
                connection.close()

        def answer(self, status: int, headers: dict[str, str], content: bytes, cut: int | None) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            length = headers.get("Content-Length", str(len(content))) if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content if cut is None else content[:cut])
            if cut is not None:
                self.close_connection = True

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer_request  # noqa: N815 - names of the library

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """Clients that are killed cut their connections."""

    with serving(Server(("127.0.0.1", 0), Handler)) as url:
        store.endpoint = url
        yield store

"""S3 specifics: pages, wrong settings, lost responses."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.s3_server import S3Server

from uniad_ray.archive.stores import s3 as s3_store
from uniad_ray.archive.stores import s3_client
from uniad_ray.archive.stores.base import StoredObject
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ObjectDeniedError, ObjectNotFoundError, StoreError


def assert_one_line(error: BaseException, *words: str) -> None:
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


class TestList:
    def test_more_than_a_page_of_s3(self, s3_prefix: str) -> None:
        root = Location.parse(s3_prefix)
        # This server lists `a/` before `a-b/`, which is not byte order.
        names = [f"a/{index:04d}" for index in range(1010)] + [f"a-b/{index}" for index in range(5)]
        with ThreadPoolExecutor(16) as pool:
            [*pool.map(lambda name: (root / name).write_bytes(b"1"), names)]
        assert [entry.relative for entry in (root / "a").list()] == [f"{index:04d}" for index in range(1010)]
        assert [entry.relative for entry in root.list()] == sorted(names)
        root.delete_tree()
        assert not root.has_children()

    def test_ordered_pages_are_streamed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def pages(path: str) -> Iterator[tuple[StoredObject, ...]]:
            for page in range(100):
                asked.append(page)
                yield (StoredObject(f"{page:03d}", 1, path),)

        monkeypatch.setattr(s3_store, "_pages", pages)
        monkeypatch.setattr(s3_store, "endpoint", lambda: "https://s3.eu-central-1.amazonaws.com")
        listing = Location.parse("s3://bucket/folder").list()
        assert next(listing).relative == "000"
        assert asked == [0, 1]
        assert len([*listing]) == 99

    def test_console_folder_markers_are_skipped(self, s3_prefix: str) -> None:
        root = Location.parse(s3_prefix)
        client = s3_client.s3_client()
        for key in (root.path + "/", root.path + "/empty/"):
            client.put_object(Bucket=root.bucket, Key=key, Body=b"")
        assert [*root.list()] == []
        assert not root.has_children()

    @pytest.mark.parametrize("key", ["a//b.png", "/b.png", "./b.png", "a/../b.png"])
    def test_key_that_is_no_path_is_unusable(self, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
        monkeypatch.setattr(
            s3_store, "_pages", lambda _: iter([(StoredObject(key, 1, "e"), StoredObject("c", 1, "e"))])
        )
        root = Location.parse("s3://bucket/folder")
        with pytest.raises(StoreError, match="is not a relative path"):
            [*root.list()]
        (found,) = [info for info in root.list(with_unusable=True) if info.problem]
        assert found.location.uri == f"s3://bucket/folder/{key}"
        assert found.problem == "its key has an empty, . or .. segment; rename it"

    def test_version_without_an_etag_is_the_time_of_the_change(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Client:
            def list_objects_v2(self, **_: str) -> dict[str, Any]:
                entry = {"Key": "folder/a", "Size": 7}
                return {"Contents": [{**entry, "ETag": '"5d41-2"'}, {**entry, "LastModified": "2026-11-21"}]}

        monkeypatch.setattr(s3_store, "s3_client", Client)
        assert [info.version for info in Location.parse("s3://bucket/folder").list()] == ["5d41-2", "7-2026-11-21"]


class TestOpenSeekable:
    def test_replaced_while_being_read(self, s3_prefix: str) -> None:
        location = Location.parse(s3_prefix) / "object"
        location.write_bytes(b"1" * 10)
        with location.open_seekable() as file:
            location.write_bytes(b"2" * 10)
            with pytest.raises(StoreError, match="replaced while it was being read"):
                file.read()


class TestS3Errors:
    def test_wrong_bucket(self, s3_server: S3Server) -> None:
        wrong = Location.parse("s3://no-such-bucket-here/key")
        operations: list[Callable[[], object]] = [
            wrong.read_bytes,
            wrong.exists,
            wrong.open_seekable,
            lambda: [*wrong.list()],
            wrong.delete_tree,
        ]
        for operation in operations:
            with pytest.raises(StoreError, match="no such bucket") as caught:
                operation()
            assert not isinstance(caught.value, ObjectNotFoundError)
            assert_one_line(caught.value, wrong.uri, s3_server.endpoint)

    def test_bucket_is_not_an_object(self, s3_server: S3Server) -> None:
        bucket = Location.parse(f"s3://{s3_server.bucket}")
        assert not bucket.exists()
        with pytest.raises(StoreError, match="is a bucket, not an object"):
            bucket.write_bytes(b"1")

    def test_unreachable(self, s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
            monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
            with pytest.raises(StoreError) as caught:
                Location.parse(s3_prefix).read_bytes()
        assert_one_line(caught.value, s3_prefix, "cannot be reached", "AWS_ENDPOINT_URL")

    def test_no_credentials(self, s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(StoreError) as caught:
            Location.parse(s3_prefix).exists()
        assert_one_line(caught.value, s3_prefix, "no usable AWS credentials", "AWS_PROFILE")

    @pytest.mark.parametrize(
        ("variable", "value", "word"),
        [
            ("AWS_SECRET_ACCESS_KEY", "wrong", "rejected the credentials"),
            ("AWS_ENDPOINT_URL", "nonsense", "AWS_ENDPOINT_URL"),
            ("AWS_PROFILE", "nobody", "AWS_PROFILE"),
        ],
    )
    def test_wrong_settings(
        self, s3_prefix: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, word: str
    ) -> None:
        monkeypatch.setenv(variable, value)
        with pytest.raises(StoreError) as caught:
            Location.parse(s3_prefix).read_bytes()
        assert_one_line(caught.value, s3_prefix, word)

    def test_not_a_bucket_name(self, s3_server: S3Server) -> None:
        with pytest.raises(StoreError, match="Invalid bucket name") as caught:
            Location.parse("s3://not a bucket/key").read_bytes()
        assert_one_line(caught.value)
        assert s3_server.bucket

    @pytest.mark.parametrize(
        ("code", "status", "word"),
        [
            ("AccessDenied", 403, "access denied"),
            ("403", 403, "access denied"),
            ("ExpiredToken", 400, "rejected the credentials"),
            ("PermanentRedirect", 301, "another region"),
            ("SlowDown", 503, "overloaded"),
            ("InternalError", 500, "overloaded or failing"),
            ("Strange", 400, "Strange"),
        ],
    )
    def test_error_responses_are_explained(self, code: str, status: int, word: str) -> None:
        with pytest.raises(StoreError) as caught, s3_client.store_errors("s3://bucket/key"):
            raise refusal(code, status)
        assert type(caught.value) is (ObjectDeniedError if word == "access denied" else StoreError)
        assert_one_line(caught.value, "s3://bucket/key", word)


def refusal(code: str, status: int) -> Any:
    response = {"Error": {"Code": code, "Message": "two\nlines"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutObject")


class TestS3Client:
    def test_one_client_per_environment(self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        with ThreadPoolExecutor(4) as pool:
            clients = {*pool.map(lambda _: s3_client.s3_client(), range(16))}
        assert len(clients) == 1
        assert s3_client.endpoint() == s3_server.endpoint
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
        assert s3_client.endpoint() == "http://127.0.0.1:1"
        monkeypatch.setattr(os, "getpid", lambda: -1)
        monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
        assert s3_client.s3_client() not in clients

    def test_attempts(self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        retries = s3_client.s3_client().meta.config.retries
        assert retries == {"mode": "standard", "total_max_attempts": s3_client.MAX_ATTEMPTS}
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
        assert s3_client.s3_client().meta.config.retries["total_max_attempts"] == 3
        assert s3_server.bucket

    @pytest.mark.parametrize("conflicts", [3, 1000])
    def test_write_waits_for_conflicting_writers(self, monkeypatch: pytest.MonkeyPatch, conflicts: int) -> None:
        calls = []

        class Client:
            def put_object(self, **arguments: object) -> None:
                calls.append(arguments)
                if len(calls) <= conflicts:
                    raise refusal("ConditionalRequestConflict", 409)

        monkeypatch.setattr(s3_store, "s3_client", Client)
        monkeypatch.setattr(s3_store, "_pause", lambda _: None)
        location = Location.parse("s3://bucket/key")
        if conflicts == 3:
            location.write_bytes(b"1", if_absent=True)
            assert calls == [{"Bucket": "bucket", "Key": "key", "Body": b"1", "IfNoneMatch": "*"}] * 4
        else:
            with pytest.raises(StoreError, match="ConditionalRequestConflict"):
                location.write_bytes(b"1", if_absent=True)
            assert len(calls) == s3_client.MAX_ATTEMPTS

    def test_broken_body_is_requested_again(self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", "10")
                self.end_headers()
                self.wfile.write(b"0123456789" if len(requests) > 2 else b"01234")

            def log_message(self, *_: object) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
            assert Location.parse("s3://bucket/key").read_bytes() == b"0123456789"
            server.shutdown()
        assert requests == ["/bucket/key"] * 3
        assert s3_server.bucket

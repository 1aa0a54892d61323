from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from support.served_runs import Key, endpoint_with_runs

from uniad_ray.serving.asgi import create_api
from uniad_ray.serving.web.pages import FOLDER

TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
PAGES = {"/": "index.html", "/runs": "runs.html"}


class Parts(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.inline: list[str] = []
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._inside = tag if tag in ("script", "style") else None

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - as its base has it
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside and data.strip():
            self.inline.append(data)


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    keys = {"line": Key("line-key", ("score",))}
    return TestClient(create_api(endpoint_with_runs(tmp_path, {}, keys=keys)), raise_server_exceptions=False)


def test_page_files_are_served_without_key(client: TestClient) -> None:
    pages = {name: path for path, name in PAGES.items()}
    for file in (file for file in FOLDER.iterdir() if file.suffix in TYPES):
        response = client.get(pages.get(file.name, f"/page/{file.name}"))
        assert response.status_code == 200, file.name
        assert response.headers["content-type"].partition(";")[0] == TYPES[file.suffix]
        assert response.content == file.read_bytes()
        assert "script-src 'self'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("name", ["index.html", "x", "..%2fapi.py", "%2e%2e/api.py", "../api.py", "style.css%00", ""])
def test_other_files_are_not_served(client: TestClient, name: str) -> None:
    response = client.get(f"/page/{name}")
    assert response.status_code == 404
    assert response.json()["type"] == "/problems/not-found"


def test_pages_are_not_in_openapi_document(client: TestClient) -> None:
    assert not any("page" in path or path in PAGES for path in client.get("/openapi.json").json()["paths"])


@pytest.mark.parametrize("path", PAGES)
def test_content_security_policy_allows_page_content(client: TestClient, path: str) -> None:
    parts = Parts(client.get(path).text)
    assert parts.inline == []
    for tag, name, value in parts.attributes:
        assert name != "style", tag
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href"):
            assert value.startswith(("/", "#")), value
            assert not value.startswith("//"), value
            if value.startswith("/"):
                assert client.get(value).status_code == 200, value
    ids = [value for _, name, value in parts.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    named = {value for tag, name, value in parts.attributes if tag == "label" and name == "for"}
    assert named <= set(ids)


def test_scripts_use_existing_files_and_elements() -> None:
    known = {
        page: set(re.findall(r' id="([^"]+)"', (FOLDER / page).read_text("utf-8")))
        for page in ("index.html", "runs.html")
    }
    used = {"score.js": ["index.html"], "common.js": list(known)}
    for script in FOLDER.glob("*.js"):
        text = script.read_text("utf-8")
        for imported in re.findall(r'from "([^"]+)"', text):
            assert (FOLDER / imported).is_file(), imported
            assert imported.startswith("./")
        assert not re.search(r"\beval\(|innerHTML|document\.write|https?://(?!www\.w3\.org/2000/svg)", text), script
        for page in used.get(script.name, ["runs.html"]):
            assert set(re.findall(r'byId\("([^"]+)"\)', text)) <= known[page], (script.name, page)

"""An endpoint with a run that is browsed and marked over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from support.served_runs import Key, endpoint_with_runs, run_images

from uniad_ray.archive.stores.location import Location
from uniad_ray.serving.asgi import create_api
from uniad_ray.serving.http.problems import MEDIA_TYPE

KEYS = {
    "anna": Key("anna-key", ("runs", "review")),
    "looker": Key("looker-key", ("runs",)),
    "trays only": Key("trays-key", ("runs", "review"), ("trays",)),
    "line": Key("line-key", ("score",)),
    "blind": Key("blind-key", ("review",)),
}
LIDS = {image.name: image for image in run_images() if image.category == "lids"}


class Served:
    """A served run, and requests about it."""

    def __init__(self, run: Location, root: Path, keys: dict[str, Key] | None = None) -> None:
        self.run = run
        endpoint = endpoint_with_runs(root, {"night": run.uri, "gone": f"{root}/gone"}, keys=keys)
        self.client = TestClient(create_api(endpoint), raise_server_exceptions=False)

    def get(self, path: str, token: str = "", **query: Any) -> Any:
        return self.client.get(f"/v1/runs{path}", params=query, headers=headers(token))

    def rows(self, **query: Any) -> list[dict[str, Any]]:
        response = self.get("/night/images", **{"category": "lids", **query})
        assert response.status_code == 200, response.text
        return list(response.json()["images"])

    def mark(self, *marks: dict[str, Any], by: str = "") -> Any:
        entries = [{"category": "lids", **mark} for mark in marks]
        return self.client.post("/v1/runs/night/marks", json={"marks": entries}, headers=headers(by))


def headers(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def problem(response: Any, kind: str) -> dict[str, Any]:
    document = response.json()
    assert document["type"] == f"/problems/{kind}", document
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.status_code == document["status"]
    return dict(document)


def key_of(number: int) -> str:
    return LIDS[f"{number:03d}.png"].row_key


def numbers(rows: list[dict[str, Any]]) -> list[str]:
    return [Path(row["source_uri"]).stem for row in rows]

"""Serve the web pages and their files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response

from uniad_ray.serving.http.problems import ProblemError

FOLDER: Final = Path(__file__).parent
_PAGES: Final = {"/": "index.html", "/runs": "runs.html"}
_FILES: Final = {
    "common.js": "text/javascript",
    "score.js": "text/javascript",
    "runs.js": "text/javascript",
    "tiles.js": "text/javascript",
    "detail.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}


def page_operations() -> APIRouter:
    """Build the routes of the pages; they need no key and are not in the OpenAPI document. Reads all files now."""
    router = APIRouter(include_in_schema=False)
    files = {name: ((FOLDER / name).read_bytes(), kind) for name, kind in _FILES.items()}
    for path, name in _PAGES.items():
        router.add_api_route(path, _page((FOLDER / name).read_bytes()), methods=["GET"])

    @router.get("/page/{name}")
    async def file(name: str) -> Response:
        if name not in files:
            raise ProblemError("not-found", f"no such page file {name[:100]!r}")
        content, kind = files[name]
        return Response(content, media_type=kind)

    return router


def _page(content: bytes) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return Response(content, media_type="text/html")

    return page

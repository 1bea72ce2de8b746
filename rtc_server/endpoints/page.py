"""The pages and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aiohttp import web

from rtc_server import bundled
from rtc_server.errors import NotFound
from rtc_server.web.routes import Policy, Routes, Who

FILES: Final = web.AppKey("files", dict[str, Path])
_INDEX: Final = "index.html"
_ROOMS: Final = "rooms.html"

# The page's own files hold nothing: behind a proxy that keeps Host to itself, the page must be able to say so.
_PAGE: Final = Policy(Who.ANYONE, any_origin=True)

routes = Routes()


def static_directory() -> Path:
    """Directory of the page's files."""
    return bundled.beside_or_inside("static", "static")


def files() -> dict[str, Path]:
    """All of them, by the path that follows ``/static/``."""
    static = static_directory()
    return {path.relative_to(static).as_posix(): path for path in static.rglob("*") if path.is_file()}


@routes.get("/", _PAGE)
async def index(request: web.Request) -> web.FileResponse:
    return web.FileResponse(_file(request, _INDEX), headers={"Cache-Control": "no-cache"})


@routes.get(f"/{_ROOMS}", _PAGE)
async def rooms(request: web.Request) -> web.FileResponse:
    return web.FileResponse(_file(request, _ROOMS), headers={"Cache-Control": "no-cache"})


@routes.get("/static/{path:.*}", _PAGE)
async def file(request: web.Request) -> web.FileResponse:
    return web.FileResponse(_file(request, request.match_info["path"]))


def _file(request: web.Request, name: str) -> Path:
    """Looked up, not resolved: a path that is not one of these leads nowhere, whatever it is made of."""
    path = request.app[FILES].get(name)
    if path is None:
        raise NotFound
    return path

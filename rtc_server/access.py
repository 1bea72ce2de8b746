"""The doorkeeper: which request is whose, and which get no further. Knows nothing of offers and sessions."""

from __future__ import annotations

from aiohttp import web

from rtc_server.auth import ANONYMOUS, Visitor


def visitor_of(request: web.Request) -> Visitor:
    """Who makes this request."""
    return Visitor(ANONYMOUS, request.remote or "")

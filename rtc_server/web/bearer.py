"""Where a request carries its credential, and how a browser sends one with a WebSocket."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from rtc_server.errors import BadRequest, Unauthorized
from rtc_server.web.routes import Policy

_BEARER: Final = "bearer"
PLAIN_PROTOCOL: Final = "rtc-server.v1"
"""What a page names beside ``bearer.KEY`` when it opens a WebSocket, so that the server has something to choose."""
_PROTOCOL_PREFIX: Final = "bearer."
_OPENAI_PREFIX: Final = "openai-insecure-api-key."
"""As OpenAI's clients in browsers send their key, beside a name that is none."""
_SECRETS: Final = (_PROTOCOL_PREFIX, _OPENAI_PREFIX)


def credential_of(request: web.Request, policy: Policy) -> str:
    """What it carries, or an empty text. Raises Unauthorized for more than one of them.

    In the address only where browsers send no headers: addresses are kept in histories, and in the logs of proxies.
    """
    named = request.headers.getall(hdrs.AUTHORIZATION, [])
    if len(named) > 1:
        raise Unauthorized
    if named:
        scheme, _, value = named[0].partition(" ")
        return value.strip() if scheme.lower() == _BEARER else ""
    if _is_websocket(request):
        return _protocol_credential(request) or _query_credential(request) or _kyutai_credential(request)
    if request.method == hdrs.METH_GET and policy.query_token:
        return _query_credential(request)
    return ""


def _protocol_credential(request: web.Request) -> str:
    for name in _offered_protocols(request):
        for prefix in _SECRETS:
            if name.startswith(prefix):
                return name.removeprefix(prefix)
    return ""


def _query_credential(request: web.Request) -> str:
    named = request.query.getall("token", [])
    if len(named) > 1:
        raise Unauthorized
    return named[0] if named else ""


def _kyutai_credential(request: web.Request) -> str:
    """As clients of Kyutai's moshi-server send their key."""
    return request.headers.get("kyutai-api-key", "") or request.query.get("auth_id", "")


def _is_websocket(request: web.Request) -> bool:
    return request.method == hdrs.METH_GET and request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"


def _offered_protocols(request: web.Request) -> list[str]:
    offered = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, [])).split(",")
    return [name.strip() for name in offered if name.strip()]


def socket_protocol(request: web.Request) -> tuple[str, ...]:
    """Which of the offered subprotocols to choose: one, or none where none is offered. What is spoken is said by the
    path, so any name will do; but a browser fails the connection if none is chosen of those that it offered.

    Our own name goes first, then the first that is no credential. One of our own that is goes back to the client that
    sent it only if there is nothing else; one of OpenAI's never, for their clients offer another name beside it.
    aiohttp logs what a client offers in vain, credentials included: here nothing is. Raises BadRequest.
    """
    everything = _offered_protocols(request)
    offered = [name for name in everything if not name.startswith(_OPENAI_PREFIX)]
    if everything and not offered:
        raise BadRequest("Offer a subprotocol beside the one that carries the key.")
    plain = [name for name in offered if not name.startswith(_PROTOCOL_PREFIX)]
    return (PLAIN_PROTOCOL,) if PLAIN_PROTOCOL in plain else tuple((plain or offered)[:1])

"""The HTTP door for WebRTC: JSON in, JSON out. No media logic: the registry does the work."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from aiohttp import web

from rtc_server.errors import BadRequest, ServerError, TooLarge, UnsupportedMediaType
from rtc_server.protocols.events import OfferOptions
from rtc_server.registry import Registry

MAX_BODY_BYTES: Final = 64 * 1024
REGISTRY: Final = web.AppKey("registry", Registry)

routes = web.RouteTableDef()


class OfferRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /api/offer``."""

    sdp: str
    type: Literal["offer"]
    service: str | None = None
    options: OfferOptions = OfferOptions()


_decoder: Final = msgspec.json.Decoder(OfferRequest)


@routes.post("/api/offer")
async def offer(request: web.Request) -> web.Response:
    body = await _read_offer(request)
    answer = await request.app[REGISTRY].open(body.sdp, body.service, body.options)
    return web.json_response(
        {"sdp": answer.sdp, "type": "answer", "session": answer.session},
        status=201,
        headers={"Location": f"/api/sessions/{answer.session}", "Cache-Control": "no-store"},
    )


@routes.get("/api/sessions/{id}")
async def session(request: web.Request) -> web.Response:
    call = request.app[REGISTRY].get(request.match_info["id"])
    return web.json_response(
        {
            "session": call.id.text,
            "service": call.service,
            "state": call.state,
            "age_ms": round(call.age_ms),
            "stats": msgspec.to_builtins(await call.stats()),
        },
        headers={"Cache-Control": "no-store"},
    )


@routes.delete("/api/sessions/{id}")
async def end_session(request: web.Request) -> web.Response:
    await request.app[REGISTRY].end(request.match_info["id"])
    return web.Response(status=204)


async def _read_offer(request: web.Request) -> OfferRequest:
    if request.content_type != "application/json":
        raise UnsupportedMediaType("application/json")
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(MAX_BODY_BYTES) from None
    except web.RequestPayloadError:
        raise BadRequest("The body cannot be read: it breaks off, or is not encoded as it says.") from None
    try:
        return _decoder.decode(raw)
    except msgspec.ValidationError as error:
        # msgspec's sentences name the field and the expected type, never the value.
        raise BadRequest(f"The offer is not as it should be: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("The body is not JSON.") from None


def error_response(error: ServerError) -> web.Response:
    """Any typed error as HTTP."""
    headers = {"Cache-Control": "no-store"}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return web.json_response({"error": error.as_dict()}, status=error.http_status, headers=headers)

"""Short-lived keys for pages and apps, as OpenAI's SDKs ask for them: ``POST /v1/realtime/client_secrets``."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web

from rtc_server.endpoints.openai_models import service_for
from rtc_server.errors import UnsupportedMediaType
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import MAX_PLAIN_BYTES, Head, read_event
from rtc_server.protocols.openai.ids import new_id
from rtc_server.protocols.openai.realtime_settings import RealtimeSettings
from rtc_server.signaling import REGISTRY
from rtc_server.web.envelopes import Envelope
from rtc_server.web.gate import ACCESS, visitor_of
from rtc_server.web.routes import NO_STORE, Policy, Routes

_JSON: Final = "application/json"

routes = Routes(errors=Envelope.OPENAI)


class ExpiresAfter(msgspec.Struct, frozen=True):
    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, msgspec.Meta(ge=10, le=7200)] = 600


class SecretRequest(msgspec.Struct, frozen=True):
    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = {}


_decoder: Final = msgspec.json.Decoder(SecretRequest)


@routes.add("POST", "/v1/realtime/client_secrets", Policy(is_offer=True, max_body_bytes=MAX_PLAIN_BYTES))
async def client_secret(request: web.Request) -> web.Response:
    """A key that acts for the client that asks, and opens the service of the model that it names."""
    request.app[REGISTRY].admission.require_open()  # none outlives this process
    asked = await _read(request)
    model = asked.session.get("model")
    if model is not None and not isinstance(model, str):
        raise BadEvent("invalid_value", "It must be a text.", "session.model")
    service = service_for(request, model)
    now, visitor = time.time(), visitor_of(request)
    longest_s = request.app[REGISTRY].admission.longest_s(visitor)
    settings = RealtimeSettings(new_id("sess"), model or service, int(now + longest_s), asked.session.get("type"))
    settings.update(asked.session)
    value, expires_at = request.app[ACCESS].ephemeral.issue(
        visitor.principal, now, asked.expires_after.seconds, service if model else None
    )
    return web.json_response(
        {"value": value, "expires_at": expires_at, "session": settings.as_dict()}, headers=NO_STORE
    )


async def _read(request: web.Request) -> SecretRequest:
    raw = await request.read()
    if not raw:
        return SecretRequest()
    if request.content_type != _JSON:
        raise UnsupportedMediaType(_JSON)
    return read_event(raw.decode(errors="replace"), Head(""), _decoder)

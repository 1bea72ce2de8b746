"""What is served, in OpenAI's form: ``GET /v1/models``. And what ``model`` means at each door of OpenAI's protocols."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from rtc_server.access.principals import Principal
from rtc_server.protocols.openai.models import ModelNames, Served, describe, names_of
from rtc_server.sessions.admission import Admission
from rtc_server.signaling import REGISTRY
from rtc_server.web.envelopes import Envelope
from rtc_server.web.gate import visitor_of
from rtc_server.web.routes import NO_STORE, Policy, Routes

MODEL_NAMES: Final = web.AppKey("model_names", ModelNames)
CREATED: Final = web.AppKey("created", int)
"""When this server started, in seconds since 1970: what it tells of all models."""

routes = Routes(errors=Envelope.OPENAI)


@routes.get("/v1/models", Policy())
async def models(request: web.Request) -> web.Response:
    served = _served(request.app[REGISTRY].admission, visitor_of(request).principal)
    listed = [describe(name, request.app[CREATED]) for name in names_of(served)]
    return web.json_response({"object": "list", "data": listed}, headers=NO_STORE)


@routes.get("/v1/models/{model:.+}", Policy())
async def model(request: web.Request) -> web.Response:
    """One of them, also by an alias. Raises UnknownModel."""
    name = request.match_info["model"].removesuffix("/")
    served = _served(request.app[REGISTRY].admission, visitor_of(request).principal)
    request.app[MODEL_NAMES].service_of(name, served)
    return web.json_response(describe(name, request.app[CREATED]), headers=NO_STORE)


def service_for(request: web.Request, name: str | None) -> str:
    """The service that a client of OpenAI's protocols asks for by the ``model`` that it names. ``name``: None or empty
    is the only service that its key opens, or else the default. Raises UnknownModel.
    """
    admission, principal = request.app[REGISTRY].admission, visitor_of(request).principal
    if name:
        return request.app[MODEL_NAMES].service_of(name, _all(admission))
    only = principal.services if principal.services is not None else frozenset[str]()
    return next(iter(only)) if len(only) == 1 else admission.default_service


def _served(admission: Admission, principal: Principal) -> list[Served]:
    return [each for each in _all(admission) if principal.may_use(each.service)]


def _all(admission: Admission) -> list[Served]:
    return [
        Served(name, None if engine.info is None else engine.info.name) for name, engine in admission.engines.items()
    ]

"""The doors for those who look after the server: health, readiness, status, metrics, and the page's configuration."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

from aiohttp import web

from rtc_server import __version__
from rtc_server.config import speaking_command
from rtc_server.endpoints.ice_servers import servers_for_anybody
from rtc_server.endpoints.rooms import LOBBY
from rtc_server.engine.engine import Engine
from rtc_server.engine.model import MemoryUse, ModelInfo, ServiceKind
from rtc_server.metrics import CONTENT_TYPE, Metrics, merged
from rtc_server.protocols.events import MAX_MESSAGE_BYTES
from rtc_server.rooms.lobby import Lobby
from rtc_server.services import ECHO, SIMULTANEOUS, TRANSLATE
from rtc_server.sessions.captioner import Captioner, Captioners
from rtc_server.signaling import REGISTRY, SETTINGS
from rtc_server.usage import invocation
from rtc_server.web.routes import NO_STORE, Policy, Routes, Who
from rtc_server.web.siblings import SIBLINGS, Siblings, came_from_sibling

METRICS: Final = web.AppKey("metrics", Metrics)
STARTED_AT: Final = web.AppKey("started_at", float)

_HEALTH: Final = Policy(Who.ANYONE, when_crowded=True)
_OPERATORS: Final = Policy(Who.OPERATOR)

routes = Routes()


@routes.get("/healthz", _HEALTH)
async def healthz(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"}, headers=NO_STORE)


@routes.get("/readyz", _HEALTH)
async def readyz(request: web.Request) -> web.Response:
    admission = request.app[REGISTRY].admission
    engine = admission.engines[admission.default_service]
    if admission.draining:
        return web.json_response({"status": "draining"}, status=503, headers=NO_STORE)
    status = "ready" if engine.ready else f"engine {engine.state}"
    return web.json_response({"status": status}, status=200 if engine.ready else 503, headers=NO_STORE)


@routes.get("/status", _OPERATORS)
async def status(request: web.Request) -> web.Response:
    told, siblings = _status(request), _siblings(request)
    if siblings is not None:
        others = {index: json.loads(text) for index, text in (await siblings.ask(request)).items()}
        everyone = {siblings.place.index: told, **others}
        told = _status_of_all(everyone, siblings.place.index, _services_of_all(request))
    return web.json_response(told, headers=NO_STORE)


@routes.get("/metrics", _OPERATORS)
async def metrics(request: web.Request) -> web.Response:
    body, siblings = request.app[METRICS].render(), _siblings(request)
    if siblings is not None:
        body = merged({siblings.place.index: body, **await siblings.ask(request)}, _services_of_all(request))
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE, **NO_STORE})


@routes.get("/api/config", Policy(Who.ANYONE))
async def config(request: web.Request) -> web.Response:
    registry = request.app[REGISTRY]
    admission, captioners = registry.admission, registry.captioners
    settings = request.app[SETTINGS]
    return web.json_response(
        {
            "version": __version__,
            "services": [_service(name, engine, captioners) for name, engine in admission.engines.items()],
            "default_service": admission.default_service,
            "notice": _no_model_notice() if admission.default_service == ECHO else None,
            "auth": "bearer" if settings.auth else "none",
            "ice_servers": servers_for_anybody(request),
            "limits": {
                "connect_timeout_s": settings.connect_timeout_s,
                "message_bytes": MAX_MESSAGE_BYTES,
                "resume_grace_s": settings.resume_grace_s,
                "max_session_s": settings.max_session_s,
            },
        },
        headers=NO_STORE,
    )


def _siblings(request: web.Request) -> Siblings | None:
    """The other processes of this server, if it has any and none of them asks."""
    return None if came_from_sibling(request) else request.app.get(SIBLINGS)


def _services_of_all(request: web.Request) -> set[str]:
    """Those with one engine for all processes of this server. Rooms are as many in all as in each."""
    engines = {**request.app[REGISTRY].admission.engines}
    lobby = request.app.get(LOBBY)
    if lobby is not None and lobby.simultaneous.engine is not None:
        engines[SIMULTANEOUS] = lobby.simultaneous.engine
    return {service for service, engine in engines.items() if engine.shared or service == TRANSLATE}


def _status(request: web.Request) -> dict[str, Any]:
    """Of this process."""
    registry = request.app[REGISTRY]
    admission = registry.admission
    return {
        "version": __version__,
        "uptime_s": round(time.monotonic() - request.app[STARTED_AT]),
        "draining": admission.draining,
        "sessions": {str(state): count for state, count in registry.count_by_state().items()},
        "loop": {
            "lag_p50_ms": round(admission.lag.window.quantile(0.5) * 1000, 1),
            "lag_p95_ms": round(admission.lag.window.quantile(0.95) * 1000, 1),
            "crowded": admission.lag.window.crowded,
        },
        "captions": _captions_status(registry.captioners.of_dialogues),
        "engines": {name: _engine_status(engine) for name, engine in admission.engines.items()},
        "translator": _translator_status(request.app.get(LOBBY)),
        "simultaneous": _simultaneous_status(request.app.get(LOBBY)),
    }


def _status_of_all(told: Mapping[int, dict[str, Any]], own: int, of_all: Collection[str]) -> dict[str, Any]:
    """What this process tells, with the counts of all, and beside it what each tells. ``of_all``: services with one
    engine for all."""
    sessions: Counter[str] = Counter()
    for each in told.values():
        sessions.update(each["sessions"])
    everyone = told.values()
    engines = {
        name: engine | _slots([each["engines"][name] for each in everyone], name in of_all)
        for name, engine in told[own]["engines"].items()
    }
    simultaneous = told[own]["simultaneous"]
    if simultaneous is not None:
        simultaneous = simultaneous | _slots([each["simultaneous"] for each in everyone], SIMULTANEOUS in of_all)
    sums = {"sessions": dict(sessions), "engines": engines, "simultaneous": simultaneous}
    return told[own] | sums | {"workers": {str(index): each for index, each in sorted(told.items())}}


def _slots(engines: Collection[dict[str, Any]], one: bool) -> dict[str, int]:
    """The slots of a service, by what each process tells of its engine. ``one``: it is the same for all."""
    used = {"slots_used": sum(each["slots_used"] for each in engines)}
    slots = [each["slots"] for each in engines if each["slots"] is not None]
    return used if one or not slots else used | {"slots": sum(slots)}


def _no_model_notice() -> dict[str, str]:
    return {
        "code": "no_model",
        "message": "No speech model is loaded: you hear yourself.",
        "hint": speaking_command(),
    }


def _service(name: str, engine: Engine, captioners: Captioners) -> dict[str, Any]:
    info = engine.info
    if info is None:
        return {"name": name, "ready": False}
    return {
        "name": name,
        "model": info.name,
        "device": info.device,
        "kind": info.kind,
        "slots": info.slots,
        "ready": engine.ready,
        "speaks": info.speaks,
        "writes": info.writes,
        "captions": info.kind is ServiceKind.DIALOGUE and captioners.of(info, "") is not None,
        "notice": _model_notice(info),
        "examples": [{"topic": example.topic, "say": example.say} for example in info.examples],
    }


def _model_notice(info: ModelInfo) -> dict[str, str | None] | None:
    """The notice of the model's makers."""
    return (
        {"code": "model", "message": info.notice, "hint": invocation.shown(info.hint) or None} if info.notice else None
    )


def _engine_status(engine: Engine) -> dict[str, Any]:
    info = engine.info
    return {
        "state": engine.state,
        "model": info.name if info else None,
        "device": info.device if info else None,
        "languages": info.languages if info else None,
        "slots": info.slots if info else None,
        "slots_used": engine.slots_used,
        "step_p50_ms": _rounded(engine.step_p50_ms),
        "step_p95_ms": _rounded(engine.step_p95_ms),
        "memory": _memory(engine.memory, info.slots) if info else None,
        "pages": None if engine.pages is None else {"free": engine.pages.free, "total": engine.pages.total},
        "restarts": engine.restarts,
    }


def _captions_status(captioner: Captioner | None) -> dict[str, int | bool] | None:
    """None where there are none. ``room``: whether the server's load leaves room for them."""
    return None if captioner is None else {"on": captioner.on, "room": captioner.room}


def _translator_status(lobby: Lobby | None) -> dict[str, Any] | None:
    """None where what members of rooms say is not translated by utterances. Between which languages, is known when it
    has loaded."""
    translator = None if lobby is None else lobby.interpreter.translator
    if lobby is None or translator is None:
        return None
    pairs = sorted(lobby.interpreter.pairs)
    return {"model": translator.name, "pairs": pairs, "notice": translator.notice or None}


def _simultaneous_status(lobby: Lobby | None) -> dict[str, Any] | None:
    """None where members of rooms are not translated while they speak."""
    if lobby is None or lobby.simultaneous.engine is None:
        return None
    told = {"pairs": sorted(lobby.simultaneous.pairs), "notice": lobby.simultaneous.notice or None}
    return told | _engine_status(lobby.simultaneous.engine)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _memory(memory: MemoryUse, slots: int) -> dict[str, int] | None:
    """None of a model that has nothing to tell of. ``session_bytes``: what each slot takes of the cache."""
    if not memory.weights_bytes:
        return None
    return dataclasses.asdict(memory) | {"session_bytes": memory.cache_bytes // slots}

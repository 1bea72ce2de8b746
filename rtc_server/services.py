"""Which services this server has, and the engine behind each: from settings to engine clients."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rtc_server import hardware
from rtc_server.config import DEFAULT_MODEL, Settings
from rtc_server.engine.client import EngineClient
from rtc_server.engine.factory import make_model
from rtc_server.engine.link import EngineLink
from rtc_server.engine.local import LocalLink
from rtc_server.engine.process import ChildSpec, ProcessLink
from rtc_server.metrics import Metrics

ECHO: Final = "echo"
DIALOGUE: Final = "dialogue"
_CPU_SLOTS: Final = 1
_CUDA_SLOTS: Final = 8


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One service: ``factory`` (``module:function``) called with ``options`` makes its model."""

    service: str
    factory: str
    options: dict[str, Any]
    in_process: bool


def resolve_model(settings: Settings, cuda_devices: int) -> str:
    """What ``--model auto`` means on a machine with so many CUDA devices."""
    if settings.model != "auto":
        return settings.model
    wants_cuda = settings.device == "auto" or settings.device.startswith("cuda")
    return DEFAULT_MODEL if cuda_devices and wants_cuda else ECHO


def plan(settings: Settings, cuda_devices: int) -> list[EngineSpec]:
    """The engines to start, the default service first. ``echo`` is always there: it is the sound check."""
    model = resolve_model(settings, cuda_devices)
    echo = EngineSpec(
        ECHO,
        "rtc_server.models.echo:load",
        {"slots": settings.echo_slots},
        in_process=settings.engine != "process" or model != ECHO,
    )
    if model == ECHO:
        return [echo]
    device = settings.device if settings.device != "auto" else ("cuda" if cuda_devices else "cpu")
    options = {
        "model": model,
        "slots": settings.slots or (_CPU_SLOTS if device == "cpu" else _CUDA_SLOTS),
        "device": device,
        "dtype": settings.dtype,
        "context": _unless(settings.context, 0),
        "temp": _unless(settings.temperature, -1),
        "temp_text": _unless(settings.text_temperature, -1),
        "top_k": _unless(settings.top_k, -1),
        "top_k_text": _unless(settings.text_top_k, -1),
        "seed": _unless(settings.seed, -1),
        "threads": _unless(settings.threads, 0),
    }
    factory = "rtc_server.models.kyutai:load_with"
    return [EngineSpec(DIALOGUE, factory, options, in_process=settings.engine == "thread"), echo]


def make_engines(settings: Settings, metrics: Metrics) -> dict[str, EngineClient]:
    """The engine clients by service, not started yet; the default service first."""
    specs = plan(settings, hardware.cuda_devices())
    return {spec.service: EngineClient(spec.service, _link_maker(spec, settings), metrics) for spec in specs}


def _link_maker(spec: EngineSpec, settings: Settings) -> Callable[[], EngineLink]:
    if spec.in_process:
        return lambda: LocalLink(lambda: make_model(spec.factory, spec.options))
    child = ChildSpec(spec.factory, spec.options, log_level=getattr(logging, settings.log_level.upper()))
    return lambda: ProcessLink(child)


def _unless(value: float, unset: float) -> float | None:
    return None if value == unset else value

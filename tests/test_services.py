"""One place plans the engines: what the command for files starts is what the server would have started, and no more."""

from __future__ import annotations

import pytest

from rtc_server import hardware, services
from rtc_server.config import Settings
from rtc_server.errors import ConfigError
from rtc_server.metrics import Metrics
from rtc_server.services import EngineSpec, make_transcriber, plan


def planned(monkeypatch: pytest.MonkeyPatch, settings: Settings, streams: int, cuda: int) -> EngineSpec:
    """The engine that :func:`make_transcriber` would start."""
    seen: list[EngineSpec] = []
    monkeypatch.setattr(hardware, "cuda_devices", lambda: cuda)
    monkeypatch.setattr(services, "_link_maker", lambda spec, _: seen.append(spec))
    make_transcriber(settings, Metrics(), streams)
    assert len(seen) == 1
    return seen[0]


@pytest.mark.parametrize(
    ("cuda", "stt_slots", "streams", "slots"),
    [(0, 0, 1, 1), (0, 0, 9, 4), (1, 0, 9, 9), (1, 0, 200, 64), (0, 2, 9, 2), (1, 100, 200, 100)],
)
def test_slots_are_those_that_fit_and_are_needed(
    monkeypatch: pytest.MonkeyPatch, cuda: int, stt_slots: int, streams: int, slots: int
) -> None:
    settings = Settings(stt="some/model", stt_slots=stt_slots)
    spec = planned(monkeypatch, settings, streams, cuda)
    served = next(spec for spec in plan(settings, cuda) if spec.service == "transcribe")
    assert spec.options == served.options | {"slots": slots}
    assert (spec.service, spec.factory, spec.in_process) == (served.service, served.factory, served.in_process)


def test_without_a_model_there_is_nothing_to_plan() -> None:
    with pytest.raises(ConfigError) as caught:
        make_transcriber(Settings(), Metrics(), 1)
    assert "--stt" in (caught.value.hint or "")

"""Microphones that send nothing, or what no microphone should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lab.sound.tones import Ear
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FloatArray, level_dbfs
from rtc_server.client import VoiceClient
from tests.conftest import running_server
from tests.support.calls import MuteTrack, assert_serves, get_json, track_client
from tests.support.leftovers import leaves_nothing
from tests.support.trouble import url_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["recvonly", "silent-track"])
async def test_a_client_that_sends_nothing_keeps_the_model_going(kind: str) -> None:
    """The model's time does not stop: it gets silence at the pace of real time, and the client stays."""
    ear = Ear()
    async with running_server("--model", "echo", "--peer-timeout-s", "2") as server, leaves_nothing(server):
        if kind == "recvonly":
            client = VoiceClient(url_of(server), None, on_voice=ear)
        else:
            client = track_client(url_of(server), MuteTrack(), on_voice=ear)
        async with client:
            await client.wait_for("connected")
            # A track that says it will send is waited for, a while: then the model begins without it.
            await until(lambda: client.events[-1].get("frames_in", 0) > 0, "the model to begin")
            first = client.events[-1]

            def keeps_pace() -> bool:
                """Two seconds on or later, when a loop that was held up has caught up."""
                seconds = (client.events[-1]["time_ms"] - first["time_ms"]) / 1000
                frames = client.events[-1].get("frames_in", 0) - first["frames_in"]
                return seconds > 1.9 and abs(frames - 12.5 * seconds) <= 3

            await until(keeps_pace, "frames at the pace of real time")
            last = client.events[-1]
            assert last["frames_filled"] - first["frames_filled"] == last["frames_in"] - first["frames_in"]
            assert last["level_in_dbfs"] == last["level_out_dbfs"] == -100
            assert level_dbfs(await ear.hear(0.5)) < -80
            assert (await get_json(f"{url_of(server)}/api/sessions/{client.session}"))[1]["state"] == "listening"


def _noise(seed: int) -> Callable[[int], FloatArray]:
    dice = np.random.default_rng(seed)
    return lambda samples: dice.uniform(-1, 1, samples).astype(np.float32)


def _square(samples: int) -> FloatArray:
    return np.where(np.arange(samples) // 48 % 2, 1.0, -1.0).astype(np.float32)


@pytest.mark.parametrize(
    "microphone",
    [_noise(1), _square, np.ones, lambda samples: np.full(samples, 1e30)],
    ids=["noise", "square", "constant", "overload"],
)
async def test_a_microphone_at_its_limits(server: Server, base_url: str, microphone: Any) -> None:
    """The session lives, its figures are numbers, and the next one hears nothing of it."""
    ear = Ear()
    options = {"stats_interval_ms": 250}
    async with leaves_nothing(server):
        mic = lambda samples: np.asarray(microphone(samples), np.float32)  # noqa: E731
        async with VoiceClient(base_url, mic, options=options, on_voice=ear) as client:
            await client.wait_for("connected")
            pcm = await ear.hear(1.0)
            await until(lambda: client.events[-1]["type"] == "stats", "figures")
            stats = client.events[-1]
        assert np.isfinite(pcm).all()
        assert -100 <= stats["level_in_dbfs"] <= 0.1
        assert -100 <= stats["level_out_dbfs"] <= 0.1
        await assert_serves(base_url)

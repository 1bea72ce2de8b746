"""A user speaks over a model that speaks: real speech, the real detector, in the engine's own place."""

from __future__ import annotations

import numpy as np
import pytest

from lab.speech.clips import SPEECH_HZ, speak
from lab.waiting import until
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray, silence
from rtc_server.client import VoiceClient
from rtc_server.engine.local import LocalLink
from rtc_server.engine.model import BoolArray, MemoryUse, ModelInfo, RowOutput, ServiceKind
from tests.conftest import need_commands, server_with
from tests.support.leftovers import leaves_nothing

pytestmark = pytest.mark.alone

QUIET_AT = 60


class Chatterbox:
    """Hums, whatever it hears, until its 60th frame."""

    def __init__(self) -> None:
        self.info = ModelInfo("chatterbox", ServiceKind.DIALOGUE, 1, "cpu", speaks=True, writes=False)
        self._steps = 0
        self._hum = (0.2 * np.sin(2 * np.pi * 200 * np.arange(FRAME_SAMPLES) / MODEL_RATE_HZ)).astype(np.float32)

    def warm_up(self) -> None:
        pass

    def reset(self, rows: BoolArray) -> None:
        self._steps = 0

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        self._steps += 1
        return [RowOutput(pcm=self._hum if self._steps < QUIET_AT else silence(FRAME_SAMPLES))]

    def memory(self) -> MemoryUse:
        return MemoryUse()

    def close(self) -> None:
        pass


async def test_speech_over_the_models_voice_is_an_interruption() -> None:
    """Told at once, and how long the model then went on is measured. In its silence, speech is just speech."""
    need_commands("espeak-ng")
    spoken = np.concatenate((silence(SPEECH_HZ), speak("Wait, stop, I have a question."), silence(2 * SPEECH_HZ)))
    at = 0

    def microphone(samples: int) -> FloatArray:
        nonlocal at
        at += samples
        return np.take(spoken, range(at - samples, at), mode="wrap")

    async with (
        server_with({"dialogue": lambda: LocalLink(Chatterbox)}, "--engine", "thread", "--vad", "on") as server,
        leaves_nothing(server),
        VoiceClient(f"http://127.0.0.1:{server.port}", microphone) as client,
    ):
        interrupted = await client.wait_for("interrupted")
        kinds = [event["type"] for event in client.events]
        assert kinds.index("speech-started") + 1 == kinds.index("interrupted")
        assert interrupted["at_ms"] == next(e["at_ms"] for e in client.events if e["type"] == "speech-started")
        await client.wait_for("speech-ended")
        await client.wait_for("state", state="listening")
        seconds = server.metrics.interruption_seconds.labels("dialogue")
        assert sum(bucket.get() for bucket in seconds._buckets) == 1
        count = sum(event["type"] == "speech-started" for event in client.events)
        await until(lambda: sum(e["type"] == "speech-started" for e in client.events) > count, "more speech")
        assert sum(event["type"] == "interrupted" for event in client.events) == 1
        assert not [event for event in client.events if event["type"] == "turn-ended"]

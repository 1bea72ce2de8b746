"""A real, if tiny, speech-to-text checkpoint behind WebRTC writes what a plain loop over the moshi package writes of
the very frames that reached it. Its weights are random, so the words mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lab.speech.clips import speak
from lab.waiting import until
from rtc_server.audio import FloatArray
from rtc_server.client import VoiceClient
from rtc_server.engine.client import EngineClient
from rtc_server.engine.stream import EngineStream, StreamListener
from rtc_server.models.tiny import write_tiny_checkpoint
from tests.conftest import need_commands, running_server
from tests.support.leftovers import leaves_nothing
from tests.support.stt_reference import transcribe


def microphone(pcm: FloatArray) -> Callable[[int], FloatArray]:
    """Speaks it over and over."""
    at = 0

    def speak_on(samples: int) -> FloatArray:
        nonlocal at
        at += samples
        return np.take(pcm, range(at - samples, at), mode="wrap")

    return speak_on


async def test_words_over_webrtc_are_those_of_a_plain_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_commands("espeak-ng")
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny-stt", "stt")
    pushed: list[FloatArray] = []
    streams: list[EngineStream] = []
    open_stream, push = EngineClient.open, EngineStream.push

    async def remember(client: EngineClient, listener: StreamListener, **how: bool) -> EngineStream:
        stream = await open_stream(client, listener, **how)
        if client.service == "transcribe":
            streams.append(stream)
        return stream

    def keep(stream: EngineStream, pcm: FloatArray) -> bool:
        taken = push(stream, pcm)
        if taken and stream in streams:
            pushed.append(pcm.copy())
        return taken

    monkeypatch.setattr(EngineClient, "open", remember)
    monkeypatch.setattr(EngineStream, "push", keep)
    arguments = ("--stt", str(checkpoint), "--stt-slots", "2", "--engine", "thread", "--threads", "1")
    async with running_server("--model", "echo", *arguments) as server, leaves_nothing(server):
        assert server.admission.default_service == "transcribe"
        spoken = microphone(speak("One two three, testing."))
        async with VoiceClient(f"http://127.0.0.1:{server.port}", spoken, service="transcribe") as client:
            words = lambda: [event for event in client.events if event["type"] == "word"]  # noqa: E731
            await until(lambda: len(words()) >= 12, "words", 40)
            client.send({"type": "bye"})
            await client.wait_for("disconnected", reason="bye")
            heard = words()
    plain = transcribe(checkpoint, np.concatenate(pushed))
    assert [word["text"] for word in heard] == [word.text for word in plain.words]
    starts = [word["start_ms"] / 1000 for word in heard]
    assert starts == pytest.approx([word.start_s for word in plain.words], abs=0.0805)

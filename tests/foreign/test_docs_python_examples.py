"""The documents' examples in Python run as they stand there."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.pico.phrases import NUMBERS
from lab.serving import started
from lab.sound.tones import pitch_hz
from rtc_server.app import Server
from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.protocols import events
from tests.conftest import ON_ONE_LOOP
from tests.support.docs_examples import HZ, RUN_S, cut, example
from tests.support.docs_programs import finished, program, write_tone
from tests.support.leftovers import leaves_nothing
from tests.support.rooms import api_of, create, join, require_translator, until_event

pytestmark = pytest.mark.alone


def heard_at_the_end(path: Path) -> float:
    """The pitch of the last half second that is not silent."""
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)[:: file.getnchannels()].astype(np.float32)
        rate = file.getframerate()
    end = int(np.flatnonzero(np.abs(pcm) > 2000)[-1])
    return pitch_hz(pcm[end - rate // 2 : end]) * rate / 24_000


@pytest.mark.parametrize("name", ["say.py", "say_aiortc.py"])
async def test_python_hears_what_it_says(server: Server, base_url: str, tmp_path: Path, name: str) -> None:
    write_tone(tmp_path / "question.wav", 3)
    async with (
        leaves_nothing(server),
        program(example("python", f"{name}:"), tmp_path, base_url, "question.wav", "answer.wav") as process,
    ):
        assert "connected" in await finished(process)
    assert heard_at_the_end(tmp_path / "answer.wav") == pytest.approx(HZ, abs=3)


def write_phrase(path: Path, text: str) -> None:
    subprocess.run(["espeak-ng", "-w", path, text], check=True)


def levels(path: Path) -> FloatArray:
    """The loudest sample of each tenth of a second, of full scale."""
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)[:: file.getnchannels()]
        tenth = file.getframerate() // 10
    loud = np.abs(pcm[: pcm.size // tenth * tenth].astype(np.float32)).reshape(-1, tenth).max(axis=1)
    return (loud / 32768).astype(np.float32)


@ON_ONE_LOOP
@pytest.mark.parametrize("name", ["say.py", "say_aiortc.py"])
async def test_python_hears_the_whole_answer_of_a_model(pico: Server, tmp_path: Path, name: str) -> None:
    """Which begins after the question, goes on for longer than that, and pauses between its words. The question is a
    file as espeak-ng writes it."""
    write_phrase(tmp_path / "question.wav", "count to ten")
    url, code = f"http://127.0.0.1:{pico.port}", example("python", f"{name}:")
    async with program(code, tmp_path, url, "question.wav", "answer.wav") as process:
        said = await finished(process)
    words = re.findall(r"'delta': '([^']*)'", said) or said.splitlines()[-1:]
    assert "".join(words).split() == NUMBERS[1:11]
    heard = levels(tmp_path / "answer.wav")
    assert np.count_nonzero(heard > 0.02) > 25
    assert np.all(heard[-10:] < 0.02), "it was cut off"


async def test_python_comes_back(server: Server, base_url: str, tmp_path: Path) -> None:
    write_tone(tmp_path / "question.wav", 11)
    async with (
        leaves_nothing(server),
        program(example("python", "say.py:"), tmp_path, base_url, "question.wav", "answer.wav") as process,
    ):
        assert process.stdout is not None
        async with asyncio.timeout(RUN_S):
            assert b"connected" in await process.stdout.readline()
        cut(server)
        assert "resumed" in await finished(process)
        assert server.metrics.sessions_resumed.labels("echo")._value.get() == 1
    assert heard_at_the_end(tmp_path / "answer.wav") == pytest.approx(HZ, abs=3)


async def test_python_is_a_member_of_a_room(tmp_path: Path) -> None:
    settings = Settings(port=0, model="echo", rooms="on", offers_per_minute=6000, max_lag_ms=10_000)
    async with started(Server(settings)) as running, api_of(running) as http:
        await require_translator(running)
        ann = await join(http, await create(http), "Ann", "en")
        async with ann.events() as events:
            await until_event(events, "room")
            url = f"http://127.0.0.1:{running.port}"
            async with program(example("python", "room.py:"), tmp_path, url, "Ana", "pt", "Bom dia") as process:
                read = await until_event(events, "message", name="Ana", state="ready")
                assert (read["original"], read["text"].casefold()) == ("Bom dia", "good morning")
                await ann.say("Good night")
                await until_event(events, "message", name="Ann", state="ready")
                assert await ann.leave() == 204
                said = (await finished(process)).splitlines()
    assert said[0] == "Ana: Bom dia"
    assert said[-1] == "Ann has left"


def test_both_sides_of_a_conversation_are_put_in_order() -> None:
    """Words come up to seconds late; the example sorts events as they come from the server."""
    came: list[events.ServerEvent] = [
        events.Text(" that", 2400),
        events.Word("what", 400, 640),
        events.Word("is", 700, 800),
        events.State("speaking"),
        events.Text(" is", 2560),
        events.Word("three", 1000, 1300),
    ]
    defined: dict[str, Any] = {}
    exec(example("python", "def transcript("), defined)
    lines = defined["transcript"]([json.loads(events.encode_event(event, 0.0)) for event in came])
    assert [line[1:] for line in lines] == [
        *(("user", word) for word in ("what", "is", "three")),
        *(("model", word) for word in ("that", "is")),
    ]

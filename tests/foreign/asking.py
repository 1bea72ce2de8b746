"""What the foreign clients are asked in speech: a sum, and a count that is interrupted."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from lab.pico.phrases import NUMBERS
from lab.pico.recogniser import Recogniser
from lab.speech.clips import SPEECH_HZ, write_wav
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, from_int16
from tests.support.script import spoken
from tests.support.server_process import ROOT
from tests.test_docs import blocks

QUESTION: Final = "what is three plus four"
ANSWER: Final = "that is seven"
COUNT: Final = "count to twelve"
STOP: Final = "stop"
PERIOD_S: Final = 8.0
ASKED: Final = 3
"""How often Chromium asks, at most, until the answer is written."""
SAID_WITHIN_S: Final = 3.0
"""Of an answer's beginning to be written down."""
_LEAD_S: Final = 1.0
_PATIENCE_S: Final = 90.0


def example(language: str, name: str) -> str:
    """The block of docs/doors.md that begins with its name."""
    doors = (ROOT / "docs" / "doors.md").read_text()
    (code,) = [block for block in blocks(language, doors) if f" {name}:" in block.split("\n", 1)[0]]
    return code


def is_cut_short(count: str) -> bool:
    """Whether the words of a count to twelve begin as they should and end before they should."""
    words = count.split()
    return 3 <= len(words) < 12 and words == NUMBERS[1 : len(words) + 1]


def sound_of(path: Path) -> FloatArray:
    with wave.open(str(path)) as file:
        return from_int16(np.frombuffer(file.readframes(file.getnframes()), "<i2"))


def write_microphone(path: Path) -> Path:
    """What Chromium says, over and over: the question, and time for the answer."""
    pcm = np.pad(spoken(QUESTION), (round(_LEAD_S * MODEL_RATE_HZ), 0))
    pcm = np.pad(pcm, (0, round(PERIOD_S * MODEL_RATE_HZ) - pcm.size))
    return write_wav(path, np.asarray(soxr.resample(pcm, MODEL_RATE_HZ, SPEECH_HZ), dtype=np.float32))


async def asked(pico: Server, directory: Path, *program: str | Path, url: str, interrupts: bool = False) -> None:
    """A program asks what is in one file, prints the words of the answer, and writes its sound into another.
    ``interrupts``: then it asks for a count, and says stop in the middle (see ``apart.py``)."""
    for text in (QUESTION, COUNT, STOP):
        lead_s = 0.0 if text == STOP else _LEAD_S
        pcm = np.pad(spoken(text), (round(lead_s * MODEL_RATE_HZ), 0))
        write_wav(directory / f"{text.split()[0]}.wav", pcm, MODEL_RATE_HZ)
    files = ["what.wav", "answer.wav", *(["count.wav+stop.wav", "counted.wav"] if interrupts else [])]
    process = await asyncio.create_subprocess_exec(
        *(*program, url, *files), cwd=directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        words, complaints = await asyncio.wait_for(process.communicate(), _PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{words.decode()} {complaints.decode()}"
    answer, _, counted = words.decode().strip().partition("\n")
    assert answer.strip() == ANSWER, words.decode()
    assert Recogniser().hear(sound_of(directory / "answer.wav")) == ANSWER
    assert is_cut_short(counted) if interrupts else not counted, counted
    await until(lambda: len(pico.registry) == 0, "the end")

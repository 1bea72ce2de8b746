"""What the foreign clients are asked in speech: a sum, and a count that is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import wave
from pathlib import Path
from typing import Final

import numpy as np
import soxr
from playwright.async_api import Page
from playwright.async_api import TimeoutError as TooLate

from lab.browsers.chromium import Recording, finish_recording, say, start_recording, until_quiet
from lab.pico.phrases import NUMBERS
from lab.pico.recogniser import Recogniser
from lab.speech.clips import SPEECH_HZ, write_wav
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, from_int16
from tests.browser.test_pico_in_chromium import answers_in
from tests.support.script import spoken
from tests.support.server_process import ROOT
from tests.test_docs import blocks

QUESTION: Final = "what is three plus four"
ANSWER: Final = "that is seven"
COUNT: Final = "count to twelve"
STOP: Final = "stop"
_LEAD_S: Final = 1.0
_PATIENCE_S: Final = 90.0
_ANSWER_S: Final = 10.0
_QUIET_S: Final = 1.5
_TRIES: Final = 3
"""As a person does, a question is asked again that was not understood."""
_WORDS: Final = 3
_MORE_WORDS: Final = 4
"""After "stop", it was not heard, and is said again."""


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


async def asked_in_page(page: Page) -> None:
    """A page with a mouth, in conversation, whose ``window.words`` are the model's: it asks for the sum, and for the
    count, which it interrupts. Words and sound of the answers."""
    await page.wait_for_function("window.__voice.pc.connectionState === 'connected'")
    await _ask_in_page(page, QUESTION, ANSWER)
    await until_quiet(page, _QUIET_S)
    answered = await finish_recording(page)
    begun = " ".join(NUMBERS[1 : _WORDS + 1])
    await _ask_in_page(page, COUNT, begun)
    for more in range(_WORDS + _MORE_WORDS, len(NUMBERS), _MORE_WORDS):
        await say(page, spoken(STOP))
        if await until_quiet(page, _QUIET_S, unless=f"window.words.includes('{NUMBERS[more]}')"):
            break
    count = (await page.evaluate("window.words")).strip()
    assert is_cut_short(count), count
    counted = await finish_recording(page)
    # Only now, and in a thread: it takes seconds, in which the server could not hear.
    heard = await asyncio.to_thread(_recognised, answered)
    assert ANSWER in heard, heard
    heard = await asyncio.to_thread(_recognised, counted)
    assert set(" ".join(heard).split()) >= set(begun.split()), heard


async def _ask_in_page(page: Page, question: str, answer: str) -> None:
    """Until the answer is written. It is recorded from here on."""
    answers: list[str] = []
    for _ in range(_TRIES):
        await start_recording(page)
        await page.evaluate("window.words = ''")
        await say(page, spoken(question))
        with contextlib.suppress(TooLate):
            await page.wait_for_function(f"window.words.includes('{answer}')", timeout=_ANSWER_S * 1000)
            return
        await until_quiet(page, _QUIET_S)
        await finish_recording(page)
        answers.append(await page.evaluate("window.words"))
    raise AssertionError(f"{question}: {answers}")


def _recognised(recording: Recording) -> list[str]:
    """What was played, by the pauses in it: an answer that was not understood may stand before the right one."""
    return answers_in(np.asarray(soxr.resample(recording.played, SPEECH_HZ, MODEL_RATE_HZ), dtype=np.float32))


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
    assert answer.split() == ANSWER.split(), words.decode()
    assert Recogniser().hear(sound_of(directory / "answer.wav")) == ANSWER
    assert is_cut_short(counted) if interrupts else not counted, counted
    await until(lambda: len(pico.registry) == 0, "the end")

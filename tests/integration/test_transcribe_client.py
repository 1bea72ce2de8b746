"""Programs get the words of some audio: each promptly, the last one always, and a typed error when it does not work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from lab.waiting import until
from rtc_server import audio, client
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.client import MICROPHONE_HZ, TranscriptionFailed, Word, transcribe
from rtc_server.endpoints.asr_socket import SocketLimits
from tests.support.asr import asr_server, asr_tasks
from tests.support.parrot import BREAK, Parrot, numbered

FRAME_S = audio.FRAME_MS / 1000
HALF_A_FRAME = FRAME_SAMPLES // 2
"""The second of silence that the client puts first is twelve frames and a half."""


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with asr_server(Parrot) as running:
        yield running


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def spoken(count: int, first: int = 1) -> FloatArray:
    return np.concatenate((audio.silence(HALF_A_FRAME), numbered(count, first)))


def in_blocks(pcm: FloatArray, samples: int) -> Iterator[FloatArray]:
    for start in range(0, pcm.size, samples):
        yield pcm[start : start + samples]


@pytest.mark.parametrize("samples", [700, FRAME_SAMPLES, MODEL_RATE_HZ, 15 * MODEL_RATE_HZ])
async def test_all_words_come_with_their_times(server: Server, samples: int) -> None:
    words = [word async for word in transcribe(url(server), in_blocks(spoken(200), samples))]
    assert [word.text for word in words] == [str(n) for n in range(1, 201)]
    assert [word.start_s for word in words] == pytest.approx([0.04 + n * FRAME_S for n in range(200)])
    # A word ends where the next begins.
    assert [word.end_s for word in words[:-1]] == pytest.approx([word.start_s for word in words[1:]])
    assert words[-1].end_s is not None
    assert words[-1].end_s == pytest.approx(words[-1].start_s + FRAME_S, abs=1.1 * FRAME_S)


async def test_audio_of_any_length_has_its_last_word(server: Server) -> None:
    for samples in (1, FRAME_SAMPLES // 3, FRAME_SAMPLES - 1):
        pcm = spoken(3)[: HALF_A_FRAME + 2 * FRAME_SAMPLES + samples]
        assert [word.text async for word in transcribe(url(server), [pcm])] == ["1", "2", "3"]


async def test_no_audio_has_no_words(server: Server) -> None:
    assert [word async for word in transcribe(url(server), [])] == []


async def test_words_come_while_the_audio_still_does(server: Server) -> None:
    heard = asyncio.Event()

    async def source() -> AsyncIterator[FloatArray]:
        yield spoken(10)
        await asyncio.wait_for(heard.wait(), 20)
        yield numbered(10, first=11)

    words = []
    async for word in transcribe(url(server), source()):
        words.append(word.text)
        heard.set()
    assert words == [str(n) for n in range(1, 21)]


async def test_a_word_whose_end_is_not_told_comes_without_one(server: Server) -> None:
    """The model has heard it, and nothing after it that would end it."""
    heard = asyncio.Event()

    async def source() -> AsyncIterator[FloatArray]:
        # Four frames on, word 2 begins, which completes word 1, and word 2 is never completed.
        yield np.concatenate((spoken(2), audio.silence(3 * FRAME_SAMPLES)))
        await asyncio.wait_for(heard.wait(), 20)

    words = []
    async for word in transcribe(url(server), source(), patience_s=0.05):
        words.append(word)
        heard.set()
    assert words[0] == Word("1", pytest.approx(0.04), None)  # type: ignore[arg-type]
    assert [word.text for word in words] == ["1", "2"]


async def test_a_microphone_is_asked_at_the_pace_of_real_time(server: Server) -> None:
    asked_at: list[float] = []
    pcm = np.repeat(spoken(400), MICROPHONE_HZ // MODEL_RATE_HZ)

    def microphone(samples: int) -> FloatArray:
        at = len(asked_at) * samples
        asked_at.append(time.monotonic())
        assert samples == MICROPHONE_HZ * FRAME_S
        return pcm[at : at + samples]

    started_at = time.monotonic()
    async with contextlib.aclosing(transcribe(url(server), microphone)) as words:
        async for word in words:
            if word.text == "5":
                break
    lasted_s = time.monotonic() - started_at
    # Asked for the first at once, and never ahead of time.
    assert len(asked_at) <= lasted_s / FRAME_S + 1
    assert lasted_s >= 8 * FRAME_S
    await until(lambda: not asr_tasks())


async def test_leaving_early_leaves_nothing(server: Server) -> None:
    async with contextlib.aclosing(transcribe(url(server), in_blocks(spoken(400), FRAME_SAMPLES))) as words:
        assert (await anext(words)).text == "1"
    await until(lambda: not asr_tasks() and server.engines["transcribe"].slots_used == 0)


async def test_a_slow_consumer_misses_nothing(server: Server) -> None:
    server.asr_sockets.limits = SocketLimits(buffered_s=1.0)
    words = []
    async for word in transcribe(url(server), in_blocks(spoken(50), FRAME_SAMPLES)):
        await asyncio.sleep(0.01)
        words.append(word.text)
    assert words == [str(n) for n in range(1, 51)]


async def test_what_the_source_raises_comes_through(server: Server) -> None:
    def source() -> Iterator[FloatArray]:
        yield spoken(3)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async for _ in transcribe(url(server), source()):
            pass
    await until(lambda: not asr_tasks())


async def test_the_servers_own_words_are_in_the_error(server: Server) -> None:
    async def first_word(source: FloatArray) -> Word | None:
        async with contextlib.aclosing(transcribe(url(server), [source])) as words:
            return await anext(words, None)

    async def endless() -> AsyncIterator[FloatArray]:
        yield spoken(5)
        await asyncio.Event().wait()

    async with contextlib.aclosing(transcribe(url(server), endless())) as words:
        assert (await anext(words)).text == "1"
        with pytest.raises(TranscriptionFailed, match="Every slot is taken"):
            await first_word(spoken(1))
    await until(lambda: server.engines["transcribe"].slots_used == 0)
    broken = np.full(2 * FRAME_SAMPLES, BREAK, dtype=np.float32)
    with pytest.raises(TranscriptionFailed, match="The model failed"):
        await first_word(broken)


async def test_a_server_that_stops_is_an_error(server: Server) -> None:
    async def endless() -> AsyncIterator[FloatArray]:
        yield spoken(5)
        await asyncio.Event().wait()

    async with contextlib.aclosing(transcribe(url(server), endless())) as words:
        await anext(words)
        stopping = asyncio.create_task(server.stop(0.0), name="stop")
        with pytest.raises(TranscriptionFailed, match="shutting down"):
            async for _ in words:
                pass
        await stopping


async def test_a_server_without_the_service(server: Server) -> None:
    del server.admission.engines["transcribe"]
    with pytest.raises(TranscriptionFailed) as failed:
        await anext(transcribe(url(server), []))
    assert failed.value.status == 404


async def test_no_server_at_all() -> None:
    with pytest.raises(TranscriptionFailed, match="cannot be reached"):
        await anext(transcribe("http://127.0.0.1:9", []))


def test_it_is_where_clients_look_for_it() -> None:
    assert {"transcribe", "TranscriptionFailed", "Word"} <= set(client.__all__)

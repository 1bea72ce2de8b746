"""Speech-to-text by WebSocket with a real model."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.waiting import until
from rtc_server import audio
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.config import parse
from tests.conftest import UNLIMITED
from tests.support.asr import (
    AsrClosed,
    asr_client,
    asr_server,
    kyutai_file_script,
    noise,
    running,
)
from tests.support.asr_words import FRAME_S
from tests.support.parrot import Parrot

pytestmark = pytest.mark.slow


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with asr_server(lambda: Parrot(slots=2, heads=4)) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def stt_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rtc_server.models.tiny import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-stt", "stt")


@contextlib.asynccontextmanager
async def real_server(checkpoint: Path, slots: int) -> AsyncIterator[Server]:
    arguments = ["--port", "0", "--model", "echo", "--vad", "off", "--threads", "1", *UNLIMITED]
    stt = ["--stt", str(checkpoint), "--stt-slots", str(slots), "--device", "cpu"]
    async with running(Server(parse([*arguments, *stt], environment={}))) as server:
        yield server


def by_the_moshi_package(checkpoint: Path, *streams: FloatArray) -> list[list[tuple[str, float]]]:
    """The words of each stream and their starts, by plain loops of one stream, as the package's own tools make them."""
    import torch
    from moshi.models.lm import LMGen
    from moshi.utils.compile import no_compile

    from rtc_server.models.kyutai.checkpoint import open_checkpoint

    found = open_checkpoint(str(checkpoint))
    mimi, lm, tokenizer = found.get_mimi("cpu"), found.get_moshi("cpu", torch.float32), found.get_text_tokenizer()
    delay_s = found.stt_config["audio_delay_seconds"]
    lm_gen = LMGen(lm, temp=0.0, temp_text=0.0)

    def text_tokens(pcm: FloatArray) -> list[int]:
        with torch.no_grad(), no_compile(), mimi.streaming(1), lm_gen.streaming(1):
            made = []
            for index, frame in enumerate(pcm.reshape(-1, FRAME_SAMPLES)):
                codes = mimi.encode(torch.from_numpy(frame)[None, None])
                if index == 0:
                    mimi.reset_streaming()
                tokens = lm_gen.step(codes)
                made.append(3 if tokens is None else int(tokens[0, 0, 0]))
            return made

    def words(tokens: list[int]) -> list[tuple[str, float]]:
        found: list[tuple[str, float]] = []
        in_word = False
        for index, token in enumerate(tokens):
            piece = "" if token in (0, 3) else tokenizer.id_to_piece(token)
            if piece and (piece.startswith("▁") or not in_word):
                found.append(("", max(0.0, index * FRAME_S - delay_s)))
            if piece:
                found[-1] = (found[-1][0] + piece.replace("▁", ""), found[-1][1])
            in_word = bool(piece)
        return found

    return [words(text_tokens(pcm)) for pcm in streams]


def assert_same_words(messages: list[dict[str, Any]], expected: list[tuple[str, float]]) -> None:
    assert [message["text"] for message in messages] == [text for text, _ in expected]
    for message, (_, start_s) in zip(messages, expected, strict=True):
        assert message["start_time"] == pytest.approx(start_s, abs=FRAME_S + 1e-6)


@pytest.mark.timeout(300)
async def test_words_are_those_of_a_plain_loop_over_the_moshi_package(stt_checkpoint: Path) -> None:
    """By hand, and by the script of Kyutai, whose silence is part of the stream."""
    pcm = noise(3.2, seed=5)
    # What the model makes of the marker's silence comes only as far as the marker.
    tail = audio.silence(20 * FRAME_SAMPLES)
    second = audio.silence(MODEL_RATE_HZ)
    by_script = whole_frames(second, pcm, *[second] * 6)
    expected, expected_of_script = by_the_moshi_package(stt_checkpoint, np.concatenate((pcm, tail)), by_script)
    assert len(expected) > 5
    async with real_server(stt_checkpoint, slots=2) as server:
        async with asr_client(server) as client:
            await client.send_audio(pcm)
            await client.send_audio(whole_frames(tail, audio.silence(FRAME_SAMPLES)))
            await client.until("Step", step_idx=(pcm.size + tail.size) // FRAME_SAMPLES + 1)
            assert all(len(step["prs"]) == 4 for step in client.of("Step"))
            assert_same_words(client.of("Word"), expected[: len(client.words)])
            assert len(expected) - len(client.words) <= 1  # one may still be open
        transcript = await kyutai_file_script(server, pcm)
        told = [{"text": word["text"], "start_time": word["timestamp"][0]} for word in transcript]
        assert len(told) > 5
        assert_same_words(told, expected_of_script[: len(told)])


def whole_frames(*parts: FloatArray) -> FloatArray:
    pcm = np.concatenate(parts)
    return pcm[: pcm.size // FRAME_SAMPLES * FRAME_SAMPLES]


@pytest.mark.timeout(300)
async def test_streams_through_one_batch_have_each_its_own_words(stt_checkpoint: Path) -> None:
    spoken = [noise(2.0 + 0.16 * number, seed=number) for number in range(4)]
    tail = audio.silence(8 * FRAME_SAMPLES)
    expected = by_the_moshi_package(stt_checkpoint, *(np.concatenate((pcm, tail)) for pcm in spoken))
    assert len({tuple(words) for words in expected}) == len(spoken)

    async def stream(server: Server, number: int) -> list[dict[str, Any]]:
        pcm = np.concatenate((spoken[number], tail, audio.silence(FRAME_SAMPLES)))
        async with asr_client(server) as client:
            for start in range(0, pcm.size, 1000 + 300 * number):
                await client.send_audio(pcm[start : start + 1000 + 300 * number])
            await client.until("Step", step_idx=pcm.size // FRAME_SAMPLES)
            return client.of("Word")

    async with real_server(stt_checkpoint, slots=4) as server:
        told = await asyncio.gather(*(stream(server, number) for number in range(len(spoken))))
    for messages, words in zip(told, expected, strict=True):
        assert len(words) - len(messages) <= 1
        assert_same_words(messages, words[: len(messages)])


@pytest.mark.timeout(300)
async def test_an_engine_that_is_killed_is_told_and_comes_back(stt_checkpoint: Path) -> None:
    async with real_server(stt_checkpoint, slots=2) as server:
        engine = server.engines["transcribe"]
        async with asr_client(server) as client:
            await client.send_audio(noise(1.0, seed=1))
            await client.until("Step", step_idx=3)
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            assert "failed" in (await client.until("Error"))["message"]
            with pytest.raises(AsrClosed):
                await client.next()
        await until(lambda: engine.ready, timeout_s=60)
        async with asr_client(server) as client:
            await client.send_audio(noise(1.0, seed=1))
            await client.until("Step", step_idx=12)

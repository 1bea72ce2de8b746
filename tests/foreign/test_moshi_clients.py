"""Clients of Moshi that others wrote, unchanged: each asks Pico for a sum and hears and reads the answer."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest

from lab.pico.recogniser import Recogniser
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FloatArray
from tests.conftest import ON_ONE_LOOP
from tests.foreign.asking import ANSWER, QUESTION
from tests.support.script import spoken

pytestmark = [pytest.mark.alone, ON_ONE_LOOP]


async def answered(server: Server, client: asyncio.subprocess.Process, answer: Path) -> FloatArray:
    """What a client has recorded when it has written the answer, and some time after it, and was told to end."""
    assert client.stdin is not None
    assert client.stdout is not None
    text = ""
    async with asyncio.timeout(60):
        while "".join(ANSWER.split()) not in "".join(text.split()):  # one of them leaves the spaces out
            more = await client.stdout.read(100)
            assert more, f"it ended: {text!r}"
            text += more.decode()
    # Words are written as they begin to be said, and its loudspeaker is some frames behind.
    (session,) = server.registry
    said = session._stats.frames_out
    await until(lambda: session._stats.frames_out > said + 30, "the rest of the answer")
    client.stdin.close()
    assert await client.wait() == 0
    return np.asarray(np.load(answer), dtype=np.float32)


@pytest.mark.parametrize("kind", ["moshi", "fujielab"])
async def test_clients_in_python(pico: Server, tmp_path: Path, kind: str) -> None:
    """Kyutai's own, of the moshi package, with a stand-in for the sound card; and a library with a codec of its own."""
    question, answer = tmp_path / "question.npy", tmp_path / "answer.npy"
    np.save(question, spoken(QUESTION))
    url = [f"ws://127.0.0.1:{pico.port}/api/chat"] if kind == "fujielab" else ["127.0.0.1", str(pico.port)]
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.foreign.{kind}_client_apart", str(question), str(answer), *url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        heard = await answered(pico, client, answer)
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    assert Recogniser().hear(heard) == ANSWER

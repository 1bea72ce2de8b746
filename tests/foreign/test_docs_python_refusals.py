"""The documents' examples in Python say what is wrong, and how they are used."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rtc_server.app import Server
from rtc_server.client import VoiceClient
from tests.conftest import running_server
from tests.support.docs_examples import RUN_S, example
from tests.support.docs_programs import finished, program, write_tone
from tests.support.leftovers import leaves_nothing
from tests.support.server_process import ROOT

pytestmark = pytest.mark.slow


async def test_aiortc_says_why_it_was_refused(tmp_path: Path) -> None:
    write_tone(tmp_path / "question.wav", 1)
    async with running_server("--model", "echo", "--echo-slots", "1") as server:
        url = f"http://127.0.0.1:{server.port}"
        async with (
            VoiceClient(url) as other,
            program(example("python", "say_aiortc.py:"), tmp_path, url, "question.wav", "answer.wav") as process,
        ):
            await other.wait_for("connected")
            async with asyncio.timeout(RUN_S):
                _, error = await process.communicate()
    assert (process.returncode, b"server_full: " in error) == (1, True), error.decode()


async def test_the_example_beside_it_runs(server: Server, base_url: str, tmp_path: Path) -> None:
    code = (ROOT / "examples" / "echo_client.py").read_text()
    async with leaves_nothing(server), program(code, tmp_path, base_url) as process:
        said = await finished(process)
    assert "'reason': 'bye'" in said


async def test_the_example_beside_it_says_what_it_is_and_what_is_wrong(tmp_path: Path) -> None:
    code = (ROOT / "examples" / "echo_client.py").read_text()
    async with program(code, tmp_path, "--help") as process:
        assert "http://localhost:8080" in await finished(process)
    for url, sentence in (("http://127.0.0.1:9", "No server answers"), ("localhost", "is no address of a server")):
        async with program(code, tmp_path, url) as process:
            _, error = await process.communicate()
        assert process.returncode == 1
        assert error.decode().startswith("error: ")
        assert sentence in error.decode()
        assert "Traceback" not in error.decode()

"""The words of both sides of a conversation: the bundled models hear one microphone, and one may fail without the
other."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lab.network.vanishing import vanish
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from tests.conftest import need_commands, running_server
from tests.support.calls import get_json
from tests.support.leftovers import leaves_nothing
from tests.support.script import Speaker, say_until

pytestmark = pytest.mark.alone

QUESTION, ANSWER = "what is three plus four", "that is seven"
COUNT, WALLET = "count to three", "the captain lost his wallet"


@contextlib.asynccontextmanager
async def captioned(*arguments: str) -> AsyncIterator[Server]:
    """However busy this machine is: load would end captions."""
    need_commands("espeak-ng")
    limits = ("--device", "cpu", "--slots", "2", "--stt-slots", "1", "--max-step-ms", "100000", "--allow-slow")
    async with running_server("--model", "pico", *limits, *arguments) as server, leaves_nothing(server):
        yield server


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def of_kind(client: VoiceClient, kind: str) -> list[dict[str, Any]]:
    return [event for event in client.events if event["type"] == kind]


def said(client: VoiceClient) -> str:
    return " ".join(event["text"] for event in of_kind(client, "word"))


def answered(client: VoiceClient) -> str:
    return "".join(event["delta"] for event in of_kind(client, "text")).strip()


def in_order(client: VoiceClient) -> list[str]:
    """The words of both sides, by their times."""
    pieces = [(word["start_ms"], f" {word['text']}") for word in of_kind(client, "word")]
    pieces += [(text["at_ms"], text["delta"]) for text in of_kind(client, "text")]
    return "".join(piece for _, piece in sorted(pieces, key=lambda piece: piece[0])).split()


def captions(client: VoiceClient) -> list[tuple[str, str | None]]:
    return [(event["state"], event.get("reason")) for event in of_kind(client, "captions")]


async def until_captions(client: VoiceClient, *states: tuple[str, str | None]) -> None:
    await until(lambda: captions(client) == list(states), f"{states}, not {captions(client)}", 30.0)


async def test_a_question_is_written_down_beside_its_answer() -> None:
    async with captioned() as server:
        speaker = Speaker()
        async with VoiceClient(url_of(server), speaker) as client:
            await client.wait_for("captions", state="on")
            both = f"{QUESTION} {ANSWER}".split()
            await say_until(speaker, QUESTION, lambda: in_order(client)[-len(both) :] == both, "question and answer")
            _, status = await get_json(f"{url_of(server)}/status")
            assert status["captions"] == {"on": 1, "room": True}
            assert [status["engines"][name]["slots_used"] for name in ("dialogue", "transcribe")] == [1, 1]
            assert sum(status["sessions"].values()) == 1, "it counts once"


async def test_an_engine_of_captions_that_is_killed_or_hangs_leaves_the_conversation_alone() -> None:
    async with captioned() as server:
        speaker = Speaker()
        async with VoiceClient(url_of(server), speaker) as client:
            await until_captions(client, ("on", None))
            stt = server.engines["transcribe"]
            assert stt.pid is not None
            os.kill(stt.pid, signal.SIGKILL)
            await say_until(speaker, QUESTION, lambda: answered(client).endswith(ANSWER), "the answer")
            ended = [("on", None), ("off", "engine_unavailable")]
            await until_captions(client, *ended, ("on", None))
            both = f"{COUNT} one two three".split()
            await say_until(speaker, COUNT, lambda: in_order(client)[-len(both) :] == both, "the words and the count")

            assert stt.pid is not None
            os.kill(stt.pid, signal.SIGSTOP)
            try:
                await until_captions(client, *ended, *ended)
                await say_until(speaker, QUESTION, lambda: answered(client).endswith(ANSWER), "the answer")
            finally:
                os.kill(stt.pid, signal.SIGCONT)
            await until_captions(client, *ended, *ended, ("on", None))
            assert not of_kind(client, "error")
            assert server.engines["dialogue"].restarts == 0


async def test_a_client_that_transcribes_comes_before_captions() -> None:
    async with captioned() as server:
        speaker, other = Speaker(), Speaker()
        async with VoiceClient(url_of(server), speaker) as client:
            await until_captions(client, ("on", None))
            async with VoiceClient(url_of(server), other, service="transcribe") as transcribing:
                await transcribing.wait_for("connected")
                await until_captions(client, ("on", None), ("off", "server_full"))
                await say_until(speaker, QUESTION, lambda: answered(client).endswith(ANSWER), "the answer")
                await say_until(other, WALLET, lambda: said(transcribing).endswith(WALLET), "the other's words")
            await until_captions(client, ("on", None), ("off", "server_full"), ("on", None))
            assert said(client) == ""


async def test_they_go_on_after_a_loss_of_the_connection() -> None:
    async with captioned() as server:
        speaker = Speaker()
        async with VoiceClient(url_of(server), speaker) as client:
            await until_captions(client, ("on", None))
            await say_until(speaker, QUESTION, lambda: said(client).endswith(QUESTION), "the question")
            before = said(client)
            vanish(client)
            await until(lambda: server.registry.count_by_state()["waiting"] == 1, "the loss to be noticed")  # type: ignore[index]
            assert server.engines["transcribe"].slots_used == 1
            await client.resume()
            await client.wait_for("connected", resumed=True)
            await say_until(speaker, COUNT, lambda: said(client).endswith(COUNT), "what is said since")
            assert said(client).startswith(before)
            starts = [word["start_ms"] for word in of_kind(client, "word")]
            assert starts == sorted(starts)
            assert captions(client) == [("on", None)]

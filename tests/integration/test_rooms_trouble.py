"""A room whose models die in the middle of an utterance, and a member whose network loses packets."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio

from lab.network.profiles import PROFILES
from lab.network.proxy import proxied
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import level_dbfs
from rtc_server.translation.client import Translator
from tests.conftest import ON_ONE_LOOP
from tests.support.room_talk import LOUD_DBFS, SAID, Talker, ann_and_ana, say_until_told
from tests.support.rooms import talking_rooms

pytestmark = [pytest.mark.alone, ON_ONE_LOOP, pytest.mark.timeout(300)]
TRIES: Final = 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    """One that gets over each trouble, before the next."""
    async with talking_rooms() as running:
        yield running


def has_stayed(talker: Talker) -> bool:
    """In one session, on one connection."""
    ends = [event for event in talker.told if event["type"] in ("disconnected", "interrupted")]
    return not ends and len([event for event in talker.told if event["type"] == "connected"]) == 1


async def test_a_translator_that_dies_in_the_middle_of_an_utterance_costs_that_one_alone(server: Server) -> None:
    """Its message says what has happened, the next is translated and heard, and all are still connected."""
    async with ann_and_ana(server) as (ann, ana):
        assert server.rooms is not None
        translator = server.rooms.lobby.interpreter.translator
        assert translator is not None
        for _ in range(TRIES):
            failed = await killed_at_work(translator, ann, ana)
            assert failed["text"] == failed["original"]
            await translator.wait_ready()
            if failed["reason"] == "engine_failed":
                break
            assert failed["reason"] == "engine_unavailable", "it was missed before the words were there"
        assert failed["reason"] == "engine_failed"
        read = await say_until_told(ann, ana, state="ready")
        await ana.client.wait_for("playing", 30, message=read["id"], state="ended")
        assert has_stayed(ann)
        assert has_stayed(ana)


async def killed_at_work(translator: Translator, ann: Talker, ana: Talker) -> dict[str, Any]:
    """The message of which the translation was under way when its process was killed."""
    quiet = {"type": "speaking", "on": False}
    before, pauses = len(ana.messages()), ana.count(**quiet)
    ann.say(SAID)
    await until(lambda: ana.count(**quiet) > pauses, "the end of what Ann says")
    assert translator.pid is not None
    os.kill(translator.pid, signal.SIGSTOP)  # so that it does not get to an end
    await until(lambda: len(ana.messages()) > before, "a message")
    os.kill(translator.pid, signal.SIGKILL)
    return await ana.client.wait_for("message", 30, id=ana.messages()[before]["id"], state="failed")


async def test_a_recogniser_that_dies_in_the_middle_of_an_utterance_costs_that_one_alone(server: Server) -> None:
    """Its speaker is told that no more is written down, and when it is again."""
    async with ann_and_ana(server) as (ann, ana):
        assert server.rooms is not None
        recogniser = server.rooms.lobby.recogniser("en")
        assert recogniser is not None
        ann.say(SAID)
        await ana.client.wait_for("speaking", 30, on=True)
        process = recogniser.pid
        assert process is not None
        os.kill(process, signal.SIGKILL)
        off = await ann.client.wait_for("captions", 30, state="off")
        assert off["reason"] == "engine_unavailable"
        await until(lambda: ann.count(type="captions", state="on") > 1, "captions again", 90)
        await until(lambda: not ann.mouth.speaks)
        read = await say_until_told(ann, ana, state="ready")
        await ana.client.wait_for("playing", 30, message=read["id"], state="ended")
        assert has_stayed(ann)
        assert has_stayed(ana)


async def test_a_member_on_five_percent_loss_gets_every_message_and_hears_the_translation(server: Server) -> None:
    """Each way, at 20 ms and some jitter."""
    async with (
        proxied(f"http://127.0.0.1:{server.port}", PROFILES["lossy-wifi"]) as network,
        ann_and_ana(server, f"http://127.0.0.1:{network.port}") as (ann, ana),
    ):
        texts = [f"message number {number}" for number in range(10)]
        for text in texts:
            ann.client.send({"type": "say", "text": text})
        await until(lambda: len(ana.messages(kind="text", state="ready")) == len(texts), "all messages", 60)
        read = sorted(ana.messages(kind="text", state="ready"), key=lambda message: int(message["id"]))
        assert [each["original"] for each in read] == texts
        before = ana.ear.samples
        heard = await say_until_told(ann, ana, kind="speech", state="ready")
        await ana.client.wait_for("playing", 30, message=heard["id"], state="ended")
        assert level_dbfs(ana.ear.since(before)) > LOUD_DBFS - 10
        ana.client.send({"type": "say", "text": "obrigado"})
        await ann.client.wait_for("message", 30, original="obrigado", state="ready")
        lost = sum(link.counts.lost for relay in network.relays for link in (relay.up, relay.down))
        assert lost > 10
        assert has_stayed(ana)

"""An engine of a pool that drains: its conversations go on at another, with what the model remembers."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest
from moshi.utils.compile import no_compile

from lab.pico.phrases import NUMBERS
from lab.waiting import until
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.models.kyutai import model as kyutai
from rtc_server.models.kyutai.options import KyutaiOptions
from tests.cluster.test_pooled import MediaNode, media_node, used
from tests.conftest import need_commands
from tests.support.engines import Ear, frame
from tests.support.fake_models import CountingModel, MovingModel
from tests.support.pools import pool
from tests.support.script import spoken
from tests.support.served import ServedEngine, served


class Talk:
    """A conversation, frame by frame."""

    def __init__(self, node: MediaNode) -> None:
        self._node = node
        self.ear = Ear()

    async def begin(self, frames: int = 3) -> None:
        self.stream = await self._node.engine.open(self.ear)
        await self.say(frames)

    async def say(self, frames: int = 1) -> None:
        for _ in range(frames):
            assert await self.stream.feed(frame())
            await self.stream.drained()

    @property
    def remembered(self) -> bool:
        """Whether each of its frames was counted once, from the first on, and is in the sum of what was heard."""
        told = self.ear.texts == [f" {number}" for number in range(1, len(self.ear.texts) + 1)]
        sums = [None if pcm is None else float(pcm[1]) for pcm in self.ear.pcm]
        return told and not self.ear.errors and sums == [(0.5 * (number + 1)) % 1.0 for number in range(len(sums))]


def moved(node: MediaNode, outcome: str = "moved") -> float:
    return node.sample("rtc_streams_moved_total", outcome=outcome)


def serving(node: MediaNode, *engines: ServedEngine) -> ServedEngine:
    """The one of these at which the node's conversations are."""
    at = next(address for address, client in node.by_address.items() if client.slots_used)
    return next(engine for engine in engines if engine.address == at)


async def test_conversations_of_an_engine_that_drains_go_on_at_another() -> None:
    async with pool() as here:
        one, two = (served(pool=here.address, model=MovingModel(3)) for _ in range(2))
        with one as first, two as second:
            async with media_node(here.address, 2) as node, media_node(here.address, 2) as other:
                talks = [Talk(node), Talk(node), Talk(other)]
                for talk in talks:
                    await talk.begin()
                    await until(
                        lambda: any(client.slots_taken for client in other.clients), "what others have is known"
                    )
                serving(node, first, second).drain()
                while moved(node) + moved(other) < len(talks):
                    await asyncio.gather(*(talk.say() for talk in talks))
                for talk in talks:
                    await talk.say(3)
                    assert talk.remembered
                await until(lambda: node.engine.info is not None and node.engine.info.slots == 3, "it has ended")
                assert node.engine.slots_used == 2
                assert not moved(node, "failed") + moved(other, "failed")


async def test_those_for_whom_there_is_no_room_wait_for_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with pool() as here:
        with served(pool=here.address, model=MovingModel(1)) as only:
            async with media_node(here.address, 1) as node:
                talk = Talk(node)
                await talk.begin()
                only.drain()
                await until(lambda: "no other with the same model has room" in caplog.text, "it says so")
                await talk.say(3)
                with served(pool=here.address, model=MovingModel(1)):
                    await until(lambda: moved(node), "there is another engine")
                    await talk.say(3)
                    assert talk.remembered
                    talk.stream.close()


async def test_a_model_that_lets_no_row_go_keeps_its_conversations_until_they_end() -> None:
    async with pool() as here:
        one, two = (served(pool=here.address, model=CountingModel(2)) for _ in range(2))
        with one as first, two as second:
            async with media_node(here.address, 2) as node:
                talk = Talk(node)
                await talk.begin()
                serving(node, first, second).drain()
                await until(lambda: node.engine.info is not None and node.engine.info.slots == 2, "it drains")
                await talk.say(3)
                assert talk.ear.texts[-1] == " 6"
                assert used(node) == [0, 1]
                assert not moved(node)
                talk.stream.close()
                await until(lambda: len(node.engine._members) == 1, "it has ended")


async def test_one_that_cannot_be_moved_is_tried_again_and_then_stays(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtc_server.cluster.pooled._MOVE_AGAIN_S", 0.01)
    async with pool() as here:
        with served(pool=here.address, model=MovingModel(1)) as first:
            async with media_node(here.address, 1) as node:
                talk = Talk(node)
                await talk.begin()
                with served(pool=here.address, model=MovingModel(1, padding=7)):
                    await until(lambda: len(node.engine._members) == 2, "the other is known")
                    first.drain()
                    await until(lambda: "stay at an engine that drains" in caplog.text, "it is given up")
                    assert moved(node, "failed") == 3
                    await talk.say(3)
                    assert talk.remembered
                    talk.stream.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_pico_counts_on_at_another_engine() -> None:
    """Its engine drains at "seven"; "eight" comes from another."""
    need_commands("espeak-ng")
    asked = spoken("count to ten")
    frames = [asked[at : at + FRAME_SAMPLES] for at in range(0, len(asked) - FRAME_SAMPLES + 1, FRAME_SAMPLES)]
    quiet = np.zeros(FRAME_SAMPLES, dtype=np.float32)
    ear = Ear()
    async with pool() as here:
        models = [kyutai.load(KyutaiOptions("pico", 1, threads=1)) for _ in range(2)]
        one, two = (served(pool=here.address, model=model) for model in models)
        with no_compile(), one as first, two as second:  # two threads in one process would else switch it on
            async with media_node(here.address, 2) as node:
                stream = await node.engine.open(ear)
                for frame_of in [quiet] * 2 + frames:
                    assert await stream.feed(frame_of)
                while "seven" not in ear.text:
                    assert await stream.feed(quiet)
                    assert len(ear.texts) < 200, ear.text
                at = serving(node, first, second)
                at.drain()
                await until(lambda: moved(node), "it has moved")
                await until(lambda: len(node.engine._members) == 1, "its engine has ended")
                assert "eight" not in ear.text
                while "ten" not in ear.text:
                    assert await stream.feed(quiet)
                    assert len(ear.texts) < 400, ear.text
                assert ear.text.split() == NUMBERS[1:11]
                assert not ear.errors

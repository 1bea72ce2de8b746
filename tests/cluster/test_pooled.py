"""Several engines of a pool, as one engine to a media node."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncIterator
from functools import partial

import pytest

from lab.waiting import until
from rtc_server.cluster.directory import Directory
from rtc_server.cluster.messages import PROTOCOL, Beat, Roster
from rtc_server.cluster.policy import Phase, Terms
from rtc_server.cluster.pooled import PooledEngine
from rtc_server.engine.client import EngineClient
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.engine import Engine
from rtc_server.engine.remote import RemoteLink
from rtc_server.engine.supervisor import EngineState
from rtc_server.errors import (
    EngineFailed,
    EngineStarting,
    EngineUnavailable,
    ResumedElsewhere,
    ResumeRefused,
    ServerFull,
)
from rtc_server.metrics import Metrics
from tests.cluster.test_pool import Shelf
from tests.support.engines import Ear, frame
from tests.support.fake_models import GatedModel, PagedModel
from tests.support.pools import Node, pool
from tests.support.served import KEY, served


class MediaNode:
    """``engine``: of the pool at ``address``. ``passed_s``: how much later it is for it than it is."""

    def __init__(self, address: str, key: ClusterKey = KEY) -> None:
        self.metrics = Metrics()
        self.by_address: dict[str, EngineClient] = {}
        self.passed_s = 0.0
        directory = self.directory = Directory(address, key, self._clock)
        self.engine = PooledEngine("fake", directory, partial(self._make, key), self.metrics, self._clock)

    def _clock(self) -> float:
        return time.monotonic() + self.passed_s

    def _make(self, key: ClusterKey, service: str, address: str) -> EngineClient:
        client = self.by_address[address] = EngineClient(service, partial(RemoteLink, address, key), self.metrics)
        return client

    @property
    def clients(self) -> list[EngineClient]:
        return list(self.by_address.values())

    def sample(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(metric, {"service": "fake", **labels}) or 0.0


class Reader:
    """Of all that a media node is told, how many engines were named each time."""

    service = "of the test"

    def __init__(self) -> None:
        self.named: list[int] = []

    def on_roster(self, roster: Roster) -> None:
        self.named.append(len(roster.engines))

    def waiting(self) -> int:
        return 0


@contextlib.asynccontextmanager
async def media_node(address: str, engines: int | None = None, key: ClusterKey = KEY) -> AsyncIterator[MediaNode]:
    """``engines``: so many can be used; None does not wait for any."""
    node = MediaNode(address, key)
    node.engine.start()
    try:
        if engines is not None:
            await until(lambda: sum(client.ready for client in node.clients) == engines, "its engines")
        yield node
    finally:
        await node.engine.close()


def used(node: MediaNode) -> list[int]:
    return sorted(client.slots_used for client in node.clients)


async def test_it_is_an_engine_to_the_rest_of_the_media_plane() -> None:
    def as_engine(engine: Engine) -> Engine:
        return engine

    node = MediaNode("127.0.0.1:1")
    assert as_engine(node.engine).state is EngineState.LOADING
    assert as_engine(EngineClient("fake", partial(RemoteLink, "127.0.0.1:1", KEY), node.metrics)).pid is None


async def test_conversations_go_to_the_fullest_engine_that_has_room() -> None:
    async with pool() as here:
        with served(slots=2, pool=here.address), served(slots=2, pool=here.address):
            async with media_node(here.address, 2) as node, media_node(here.address, 2) as other:
                theirs = await other.engine.open(Ear())
                await until(lambda: any(client.slots_taken for client in node.clients), "what others have is known")
                await node.engine.open(Ear())
                assert used(node) == [0, 1]
                assert max(client.slots_taken for client in node.clients) == 2
                ears = Ear(), Ear()
                streams = [await node.engine.open(ear) for ear in ears]
                assert used(node) == [1, 2]
                for stream, ear in zip(streams, ears, strict=True):
                    assert stream.push(frame())
                    await until(lambda ear=ear: ear.texts == [" 1"])
                with pytest.raises(ServerFull):
                    await node.engine.open(Ear())
                assert not node.engine.has_room
                theirs.close()
                await until(lambda: node.engine.has_room)
                info = node.engine.info
                assert info is not None
                assert (info.slots, node.engine.slots_used) == (4, 3)
                assert (node.sample("rtc_slots"), node.sample("rtc_slots_used")) == (4, 3)


async def test_those_who_open_at_once_do_not_all_ask_the_same_engine() -> None:
    async with pool() as here:
        with served(slots=3, pool=here.address), served(slots=3, pool=here.address):
            async with media_node(here.address, 2) as node:
                opened = await asyncio.gather(*(node.engine.open(Ear()) for _ in range(8)), return_exceptions=True)
                assert sum(isinstance(each, ServerFull) for each in opened) == 2
                assert used(node) == [3, 3]


async def test_an_engine_whose_memory_is_short_is_passed_over() -> None:
    """Although it has slots. The fuller one that has memory is asked; when none has, the server is full."""
    async with pool() as here:
        short, roomy = PagedModel(4, pages=9, most=8), PagedModel(4, pages=16, most=8)
        with (
            served(model=short, pool=here.address) as first,
            served(model=roomy, pool=here.address) as second,
        ):
            async with media_node(here.address, 2) as node:
                at_first = await node.by_address[first.address].open(Ear())
                assert not node.by_address[first.address].has_room
                await asyncio.gather(*(node.engine.open(Ear()) for _ in range(2)))
                assert {each: client.slots_used for each, client in node.by_address.items()} == {
                    first.address: 1,
                    second.address: 2,
                }
                with pytest.raises(ServerFull):
                    await node.engine.open(Ear())
                assert not node.engine.has_room
                at_first.close()
                await until(lambda: node.engine.has_room, "what the engine says of its memory")
                pages = node.engine.pages
                assert pages is not None
                assert (pages.free, pages.total) == (25, 25)
                assert (node.sample("rtc_pages", kind="free"), node.sample("rtc_pages", kind="total")) == (25, 25)


async def test_an_engine_that_ends_costs_its_own_conversations_alone() -> None:
    """They are told at once, and not after three seconds of silence: the engine said that it ended, and the pool passed
    it on."""
    async with pool() as here, contextlib.AsyncExitStack() as stack:
        first = stack.enter_context(served(slots=1, pool=here.address, name="first"))
        stack.enter_context(served(slots=1, pool=here.address, name="second"))
        async with media_node(here.address, 2) as node:
            ears = Ear(), Ear()
            streams = [await node.engine.open(ear) for ear in ears]
            first.stop()
            await until(lambda: any(ear.errors for ear in ears), timeout_s=2.5)
            lost = next(ear for ear in ears if ear.errors)
            assert [type(error) for error in lost.errors] == [EngineFailed]
            (left,) = (stream for stream in streams if not stream.closed)
            assert left.push(frame())
            await until(lambda: any(ear.texts == [" 1"] for ear in ears))
            assert (node.engine.restarts, node.engine.state, node.engine.slots_used) == (1, EngineState.READY, 1)


async def test_an_engine_that_hangs_is_of_its_own_conversations_alone() -> None:
    model = GatedModel(1)
    async with pool() as here:
        with served(model=model, pool=here.address), served(slots=1, pool=here.address):
            async with media_node(here.address, 2) as node:
                stalls: list[tuple[bool, list[object]]] = []
                ears = Ear(), Ear()
                for client in node.clients:
                    client.on_stall = lambda stalled, listeners: stalls.append((stalled, list(listeners)))
                streams = [await node.engine.open(ear) for ear in ears]
                for stream in streams:
                    stream.push(frame())
                try:
                    await until(lambda: stalls)
                    hung = next(ear for ear in ears if not ear.texts)
                    assert stalls == [(True, [hung])]
                finally:
                    model.gate.release()
                await until(lambda: len(stalls) == 2)
                assert stalls[1] == (False, [hung])


async def test_an_engine_that_is_silent_to_all_is_given_up_for_another() -> None:
    """It, or its whole machine, may be gone without a word: its conversations need not wait until it comes back, or is
    known not to. When it does come back, it is one that takes conversations."""
    model = GatedModel(2)
    async with pool() as here:
        with served(model=model, pool=here.address):
            async with media_node(here.address, 1) as node:
                ear = Ear()
                stream = await node.engine.open(ear)
                stream.push(frame())
                try:
                    with served(slots=1, pool=here.address):
                        await until(lambda: ear.errors, "that it is given up")
                        assert [type(error) for error in ear.errors] == [EngineFailed]
                        assert (node.engine.restarts, node.engine.slots_used) == (1, 0)
                        another = Ear()
                        (await node.engine.open(another)).push(frame())
                        await until(lambda: another.texts == [" 1"])
                        assert ear.texts == []
                finally:
                    model.gate.release()
                await until(lambda: node.engine.has_room, "that it is back")


async def test_an_engine_that_is_silent_is_waited_for_where_there_is_no_other() -> None:
    """What it remembers is worth more than nothing."""
    model = GatedModel(2)
    async with pool() as here:
        with served(model=model, pool=here.address), served(slots=1, pool=here.address):
            async with media_node(here.address, 2) as node:
                reader = Reader()
                node.directory.join(reader)
                ears = [Ear() for _ in range(3)]
                streams = [await node.engine.open(ear) for ear in ears]
                for stream in streams:
                    stream.push(frame())
                try:
                    await until(lambda: any(client.state is EngineState.STALLED for client in node.clients))
                    reader.named.clear()
                    await until(lambda: reader.named.count(1) >= 2, "its pool does not hear it either")
                    assert not any(ear.errors for ear in ears)
                finally:
                    model.gate.release(2)  # of a step for each, if their frames came apart
                await until(lambda: all(ear.texts for ear in ears), "their answers")
                assert node.engine.restarts == 0


async def test_a_conversation_is_adopted_wherever_it_is() -> None:
    other, key = b"o" * 24, b"k" * 24
    async with pool() as here:
        with served(slots=1, pool=here.address), served(slots=1, pool=here.address):
            async with media_node(here.address, 2) as one, media_node(here.address, 2) as two:
                ears = Ear(), Ear()
                for ear, its_key in zip(ears, (other, key), strict=True):
                    stream = await one.engine.open(ear)
                    # Before the frame: its answer says that the engine has the lock, and the other node may ask for it.
                    stream.lock(hashlib.sha256(its_key).digest())
                    stream.push(frame())
                    await until(lambda ear=ear: ear.texts == [" 1"])
                ear = Ear()
                adopted = await two.engine.adopt(key, ear)
                adopted.push(frame())
                await until(lambda: ear.texts == [" 2"])
                await until(lambda: ears[1].errors, "that it is elsewhere, by the way to the first node")
                assert [type(error) for error in ears[1].errors] == [ResumedElsewhere]
                with pytest.raises(ResumeRefused):
                    await two.engine.adopt(key, Ear())


async def test_a_pool_that_is_away_costs_no_one_anything(caplog: pytest.LogCaptureFixture) -> None:
    """Those who talk go on, and the engines that are known take new ones, be it for a minute."""
    caplog.set_level(logging.WARNING)
    async with pool() as first:
        address = first.address
        async with contextlib.AsyncExitStack() as engines:
            engines.enter_context(served(slots=2, pool=address))
            node = await engines.enter_async_context(media_node(address, 1))
            ear = Ear()
            talking = await node.engine.open(ear)
            await first.stop()
            node.passed_s = 60.0
            await until(lambda: any("does not answer" in line for line in caplog.messages))
            assert talking.push(frame())
            await until(lambda: ear.texts == [" 1"])
            await node.engine.open(Ear())
            with pytest.raises(ServerFull):
                await node.engine.open(Ear())
            async with pool(address=address):
                await until(lambda: any("answers again" in line for line in caplog.messages))
                assert (node.engine.ready, len(node.clients)) == (True, 1)
                assert not talking.closed


async def test_an_engine_that_drains_takes_no_more() -> None:
    async with pool() as here:
        with served(slots=2, pool=here.address) as one, served(slots=2, pool=here.address) as two:
            async with media_node(here.address, 2) as node:
                stream = await node.engine.open(Ear())
                (address,) = (at for at, client in node.by_address.items() if client.slots_used)
                (one if one.address == address else two).drain()
                await until(lambda: node.engine.info is not None and node.engine.info.slots == 2)
                for _ in range(2):
                    await node.engine.open(Ear())
                assert node.by_address[address].slots_used == 1
                with pytest.raises(ServerFull):
                    await node.engine.open(Ear())
                assert not stream.closed


async def test_while_an_engine_starts_clients_are_told_when_it_will_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what it took before; until then what it is guessed to take. That they wait is told before it is told again."""
    monkeypatch.setattr("rtc_server.cluster.directory.EVERY_S", 4.0)
    shelf = Shelf()
    async with pool({"fake": Terms(0, 1)}, shelf) as here, media_node(here.address) as node:
        await node.engine.wait_settled()
        assert node.engine.ready
        assert node.engine.info is None
        with pytest.raises(EngineStarting) as at_the_door:
            node.engine.require_ready()
        with pytest.raises(EngineStarting) as within:
            await node.engine.open(Ear())
        assert {at_the_door.value.retry_after_s, within.value.retry_after_s} <= {29, 30}
        await until(lambda: shelf.started == 1, "an engine for those who wait", timeout_s=3.0)
        with pytest.raises(ServerFull):
            await node.engine.open(Ear(), spare=True)
        with served(slots=1, pool=here.address, name="fake-1"):
            await node.engine.wait_ready()
            node.engine.require_ready()
            await node.engine.open(Ear())
            with pytest.raises(ServerFull):  # there may be no more
                await node.engine.open(Ear())


async def test_two_hundred_who_open_at_once_have_as_many_engines_started_as_there_may_be() -> None:
    shelf = Shelf()
    async with pool({"fake": Terms(0, 3)}, shelf) as here, media_node(here.address) as node:
        await node.engine.wait_settled()
        opened = await asyncio.gather(*(node.engine.open(Ear()) for _ in range(200)), return_exceptions=True)
        assert {type(each) for each in opened} == {EngineStarting}
        assert node.engine.waiting() == 200
        await until(lambda: shelf.started == 1, "how many slots an engine has, the first one tells")
        with served(slots=2, pool=here.address, name="fake-1"):
            await until(lambda: shelf.started == 3)
            await node.engine.wait_ready()
            streams = [await node.engine.open(Ear()) for _ in range(2)]
            assert node.engine.waiting() == 198
            assert len({stream.slot for stream in streams}) == 2
        assert shelf.started == 3


async def test_an_engine_that_is_not_there_is_not_full() -> None:
    """Its machine is gone, and no one has noticed yet."""
    async with pool() as here, Node.at(here.address) as asking:
        with served() as engine:
            await asking.say(Beat(PROTOCOL, "one", "one", "fake", engine.address, Phase.READY, 2))
            async with media_node(here.address, 1) as node:
                engine.stop()
                with pytest.raises(EngineUnavailable) as told:
                    await node.engine.open(Ear())
                assert told.value.code == "engine_unavailable"


async def test_captions_start_no_engine() -> None:
    shelf = Shelf()
    async with pool({"fake": Terms(0, 1)}, shelf) as here, media_node(here.address) as node:
        await node.engine.wait_settled()
        with pytest.raises(ServerFull):
            await node.engine.open(Ear(), spare=True)
        assert node.engine.waiting() == 0


async def test_without_a_pool_there_is_no_engine(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with (
        pool() as here,
        media_node(here.address, key=ClusterKey.of(b"another secret of thirty-two bytes")) as node,
    ):
        await until(lambda: any("is its --cluster-key the same?" in line for line in caplog.messages))
        assert not node.engine.ready
        with pytest.raises(EngineUnavailable):
            await node.engine.open(Ear())


async def test_a_pool_of_another_version_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr("rtc_server.cluster.directory.PROTOCOL", PROTOCOL + 1)
    async with pool() as here, media_node(here.address) as node:
        await until(lambda: any("install the same release" in line for line in caplog.messages))
        assert not node.engine.ready

"""A pool at its port: engines that tell of themselves, media nodes that ask, strangers, and a pool that comes back."""

from __future__ import annotations

import logging

import pytest

from lab.waiting import until
from rtc_server.cluster.messages import PROTOCOL, Ask, Beat, Gone, OtherProtocol, encode
from rtc_server.cluster.policy import Phase, Terms
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.errors import ConfigError
from tests.support.engines import Ear, frame, running
from tests.support.fake_models import GatedModel
from tests.support.pools import Node, pool
from tests.support.served import KEY, node, served


class Shelf:
    """A launcher whose engines are started by the test."""

    def __init__(self) -> None:
        self.there: list[str] = []
        self.started = 0
        self.stopped: list[str] = []
        self.discarded: list[str] = []

    def names(self, service: str) -> list[str]:
        return self.there

    def start(self, service: str) -> str:
        self.started += 1
        self.there.append(f"{service}-{self.started}")
        return self.there[-1]

    def stop(self, name: str) -> None:
        self.stopped.append(name)

    def discard(self, name: str) -> None:
        self.discarded.append(name)
        self.there.remove(name)


async def test_an_engine_tells_its_pool_of_itself_and_media_nodes_hear_of_it() -> None:
    async with pool() as here, Node.at(here.address) as asking:
        await asking.ask()
        await until(lambda: asking.roster is not None)
        assert asking.lives == []
        with served(pool=here.address, name="one/first") as engine:
            await until(lambda: asking.lives == ["one/first"], "it is told at once, without being asked")
            assert asking.roster is not None
            (listed,) = asking.roster.engines
            assert (listed.service, listed.address, listed.phase) == ("fake", engine.address, Phase.READY)
            async with running(node(listed.address)) as client:
                await client.open(Ear())
        await until(lambda: asking.lives == [], "it said that it ended")
        assert asking.roster.gone == ["one/first"]


async def test_an_engine_that_hangs_is_silent() -> None:
    """What it says comes from its step loop: another thread of it that lives on says nothing of it."""
    model = GatedModel(2)
    async with pool() as here, Node.at(here.address) as asking:
        with served(model=model, pool=here.address):
            await asking.ask()
            await until(lambda: len(asking.lives) == 1)
            assert asking.roster is not None
            async with running(node(asking.roster.engines[0].address)) as client:
                (await client.open(Ear())).push(frame())
                try:
                    await until(lambda: asking.lives == [], "three seconds of silence")
                finally:
                    model.gate.release()
                await until(lambda: len(asking.lives) == 1, "it is back")


async def test_an_engine_that_drains_says_so() -> None:
    async with pool() as here, Node.at(here.address) as asking:
        with served(pool=here.address) as engine:
            await asking.ask()
            await until(lambda: len(asking.lives) == 1)
            async with running(node(engine.address)) as client:
                stream = await client.open(Ear())
                engine.drain()
                await until(lambda: bool(asking.roster and asking.roster.engines[0].phase is Phase.DRAINING))
                stream.close()
            await until(lambda: asking.lives == [])


async def test_a_pool_that_is_started_again_knows_all_within_seconds() -> None:
    async with pool() as here, Node.at(here.address) as asking:
        address = here.address
        await asking.ask()
    with served(pool=address, name="one"):
        for _ in range(2):
            async with pool(address=address), Node.at(address) as asking:
                await asking.ask()
                await until(lambda asking=asking: asking.lives == ["one"])


async def test_engines_are_started_for_clients_that_wait_and_stopped_when_they_are_not_used() -> None:
    shelf = Shelf()
    async with pool({"fake": Terms(0, 2, idle_s=0.5)}, shelf) as here, Node.at(here.address) as asking:
        await asking.ask(fake=3)
        await until(lambda: shelf.started == 1)
        assert asking.roster is None or asking.roster.outlooks[0].starts_in_s
        with served(slots=2, pool=here.address, name="fake-1"):
            await until(lambda: asking.lives == ["fake-1"])
            await asking.ask(fake=3)
            await until(lambda: shelf.started == 2, "three do not fit into the first")
            await asking.ask(fake=0)
            await until(lambda: shelf.stopped == ["fake-1"])
        assert shelf.discarded == []


async def test_strangers_get_no_further_than_the_handshake(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with pool() as here, Node.at(here.address, ClusterKey.of(b"another secret, which is long enough")) as other:
        await until(lambda: any("is its --cluster-key the same?" in line for line in caplog.messages))
        assert not other.try_to_say(Ask(PROTOCOL, {}))
        async with Node.at(here.address) as asking:
            await asking.ask()
            await until(lambda: asking.roster is not None)
        assert not other.told


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" * 100,
        encode(Beat(PROTOCOL, "n" * 65, "l", "s", "a:1", Phase.READY)),
        encode(Beat(PROTOCOL, "n", "l", "s", "a:1", Phase.READY, -1)),
        encode(Ask(PROTOCOL, {"s": -1})),
        encode(Ask(PROTOCOL, {str(number): 1 for number in range(17)})),
        encode(Gone("unheard of")),
    ],
)
async def test_what_is_no_message_costs_no_one_else_anything(raw: bytes) -> None:
    async with pool() as here, Node.at(here.address) as asking:
        await asking.say(raw)
        await asking.ask()
        await until(lambda: asking.roster is not None)
        assert asking.lives == []


async def test_another_version_is_told_so() -> None:
    async with pool() as here, Node.at(here.address) as asking:
        for message in (Ask(PROTOCOL + 1, {}), Beat(PROTOCOL + 1, "n", "l", "s", "a:1", Phase.READY)):
            await asking.say(message)
        await until(lambda: asking.told == [OtherProtocol(PROTOCOL)] * 2)


async def test_a_port_that_is_taken_is_said() -> None:
    async with pool() as here:
        with pytest.raises(ConfigError, match="Cannot listen"):
            async with pool(address=here.address):
                pass


def test_all_pairs_of_the_cluster_have_their_own_place() -> None:
    assert len({KEY.engine.public, KEY.node.public, KEY.pool.public}) == 3

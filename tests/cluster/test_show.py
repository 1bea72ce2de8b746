"""What the show of the cluster breaks and expects, under a model that counts without being heard: which parts die, what
it tells of a conversation that goes on, and that it fails when one does not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, cast

import psutil
import pytest

from lab.cluster import show as shown
from lab.cluster.running import Cluster
from lab.cluster.talker import Talker
from lab.pico.phrases import NUMBERS


class Talk:
    """A model that counts to four, and on by four whenever something has been broken, and a client that is told of it.
    ``skips``: so many numbers are lost when its media node is killed. ``forgets``: then it begins again."""

    def __init__(self, skips: int = 0, forgets: bool = False) -> None:
        self.session = "a-0-xyz"
        self.events: Sequence[Mapping[str, Any]] = []
        self.number = 0
        self._skips = skips
        self._forgets = forgets

    def tell(self, **event: Any) -> None:
        self.events = [*self.events, event]

    def count_on(self) -> None:
        for _ in range(4):
            self.number += 1
            self.tell(type="text", delta=f" {NUMBERS[self.number]}")

    def move(self) -> None:
        self.session = f"{'b' if self.session[0] == 'a' else 'a'}-0-xyz"

    async def begin(self) -> None:
        self.number = 0

    async def ask(self) -> None:
        self.count_on()

    async def come_back(self) -> None:
        self.move()
        self.number = 0 if self._forgets else self.number + self._skips
        self.count_on()

    async def hear(self) -> None:
        return


class Part:
    """A process of the pretended cluster; ``on_end``: called with how it has ended."""

    def __init__(self, name: str, broken: list[str], on_end: Callable[[str], None]) -> None:
        self._name = name
        self._broken = broken
        self._on_end = on_end
        self._runs = True

    def _end(self, how: str) -> None:
        self._runs = False
        self._broken.append(f"{self._name} {how}")
        self._on_end(how)

    def stop(self) -> None:
        self._end("stopped")

    terminate = stop

    def kill(self) -> None:
        self._end("killed")

    def is_running(self) -> bool:
        return self._runs

    def kill_head(self) -> None:
        self.kill()

    async def wait_ready(self) -> None:
        return


class Pretended:
    """In place of :class:`lab.cluster.running.Cluster`."""

    url = "http://nowhere"

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.broken: list[str] = []
        self.nodes = {name: Part(f"node {name}", self.broken, self._on_node) for name in ("a", "b")}
        self.pool = Part("pool", self.broken, self._unnoticed)
        self.ray = Part("head", self.broken, self._unnoticed)

    def _unnoticed(self, _how: str) -> None:
        self.talk.count_on()

    def _on_node(self, how: str) -> None:
        if how == "stopped":
            self.talk.tell(type="moving")
            self.talk.move()
            self.talk.count_on()

    def _on_engine(self, how: str) -> None:
        if how == "stopped":
            self.talk.count_on()
        else:
            self.talk.tell(type="error", code="engine_failed")
            self.talk.tell(type="state", reason="restarted")

    async def engine_in_use(self) -> Part:
        return Part("engine", self.broken, self._on_engine)

    async def wait_engines(self) -> None:
        return


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Callable[[Talk], Pretended]:
    @contextlib.asynccontextmanager
    async def another(_url: str) -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(shown, "by_client", another)
    monkeypatch.setattr(shown, "_FORGOTTEN_S", 0.01)

    def make(talk: Talk) -> Pretended:
        made = Pretended(talk)

        @contextlib.asynccontextmanager
        async def talking(*_: object) -> AsyncIterator[Talker]:
            yield cast("Talker", talk)

        def machine_of(engine: psutil.Process) -> list[psutil.Process]:
            return [cast("psutil.Process", Part("machine", made.broken, lambda _: None)), engine]

        monkeypatch.setattr(shown, "talking", talking)
        monkeypatch.setattr(shown, "machine_of", machine_of)
        return made

    return make


async def told_by(cluster: Pretended) -> list[str]:
    told: list[str] = []
    await shown.show(cast("Cluster", cluster), told.append)
    return told


@pytest.mark.parametrize("skips", [0, 1, 2])
async def test_each_part_is_broken_and_what_the_client_noticed_is_told(
    pretended: Callable[[Talk], Pretended], skips: int
) -> None:
    """Numbers that a killed media node had not sent are missing, and the model remembers all the same."""
    cluster = pretended(Talk(skips))
    told = await told_by(cluster)
    assert cluster.broken == [
        *("node a stopped", "engine stopped", "node b killed", "engine killed", "pool killed"),
        *("machine killed", "engine killed", "head killed"),
    ]
    assert [line.rpartition(" ")[2] for line in told if "memory" in line] == ["kept", "kept", "kept", "lost", "lost"]
    assert [line for line in told if "notices nothing" in line and "killed" in line] == [
        "the pool is killed: the conversation notices nothing",
        "Ray's head is killed: the conversation notices nothing",
    ]
    assert "a second client comes" in told[-1]


@pytest.mark.parametrize(
    ("talk", "said"), [(Talk(skips=3), "numbers are missing"), (Talk(forgets=True), "does not count on")]
)
async def test_a_model_that_has_lost_its_place_ends_it(
    pretended: Callable[[Talk], Pretended], talk: Talk, said: str
) -> None:
    with pytest.raises(AssertionError, match=said):
        await told_by(pretended(talk))


async def test_a_conversation_that_notices_the_death_of_the_pool_ends_it(
    pretended: Callable[[Talk], Pretended],
) -> None:
    cluster = pretended(Talk())

    def noticed(_how: str) -> None:
        cluster.talk.tell(type="error", code="engine_failed")
        cluster.talk.count_on()

    cluster.pool = Part("pool", cluster.broken, noticed)
    with pytest.raises(AssertionError, match="the client is told"):
        await told_by(cluster)
    assert cluster.broken[-1] == "pool killed"

"""A conversation while the parts of the cluster die: what its client notices, and what the model still knows."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import psutil

from lab.cluster.by_client import by_client
from lab.cluster.running import Cluster, machine_of
from lab.cluster.talker import PATIENCE_S, Talker, node_of
from lab.pico.phrases import NUMBERS
from lab.waiting import until

PAGE: Final = "page"
CLIENT: Final = "client"
_KILL_AT: Final = 4
_FEW: Final = 3
"""So many more numbers: it goes on."""
_UNSENT: Final = 2
"""Numbers that a media node which is killed had from the model, and had not sent: on a busy machine."""
_ANSWER_S: Final = 10.0
_ASKING_S: Final = 120.0
"""On a busy machine the question is misheard, and asked again."""
_FORGOTTEN_S: Final = 2.0
"""A model that says no number for so long does not count on."""
_NO_BROWSER: Final = (
    "there is no page in this, for which it takes Chromium and the package playwright ({}): a client for programs talks"
)


async def show(cluster: Cluster, tell: Callable[[str], None], by: str = PAGE) -> None:
    """Break one part after the other under a conversation, and tell what became of it: while an engine is started
    again, something else is broken. Ray's head is the last, for nothing starts engines without it. Raises
    AssertionError if the conversation does not go on as it has to."""
    async with talking(cluster.url, tell, by) as talker:
        conversation = _Conversation(cluster, talker, tell)
        tell(f'Pico counts, by media node {conversation.node}, and something is broken whenever it says "four"')
        await conversation.leave_node()
        await conversation.leave_engine()
        await conversation.lose_node()
        await conversation.lose_engine("its engine", lambda engine: [engine])
        await conversation.lose_unnoticed("the pool", cluster.pool.kill)
        await cluster.pool.wait_ready()
        await cluster.wait_engines()
        tell("the pool is back, and knows both engines again")
        # Not more: under three engines that die within a minute a session ends.
        await conversation.lose_engine("its engine's machine, with what runs it there,", machine_of)
        await conversation.lose_unnoticed("Ray's head", cluster.ray.kill_head)
        async with by_client(cluster.url):
            tell("a second client comes, and has a slot of the engines that there are")


@contextlib.asynccontextmanager
async def talking(url: str, tell: Callable[[str], None], by: str = PAGE) -> AsyncIterator[Talker]:
    """The page, if it is wanted and can be shown here; else a client."""
    if by == CLIENT:
        tell("a client for programs talks with Pico")
    elif importlib.util.find_spec("playwright") is None:
        tell(_NO_BROWSER.format("pip install playwright"))
    else:
        pages = importlib.import_module("lab.cluster.by_page")
        browser = pages.browser_here()
        if browser is not None:
            async with pages.by_page(url, browser) as page:
                tell(f"the page, in {browser}, talks with Pico: its user says a sentence, all else it does by itself")
                yield page
            return
        tell(_NO_BROWSER.format(f"none of {', '.join(pages.PROGRAMS)} is here"))
    async with by_client(url) as client:
        yield client


class _Conversation:
    def __init__(self, cluster: Cluster, talker: Talker, tell: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._talker = talker
        self._tell = tell
        self._from = 0
        self._known = 0

    @property
    def node(self) -> str:
        return node_of(self._talker.session)

    async def leave_node(self) -> None:
        await self._count_until_broken()
        left, before, began_at = self.node, len(self._talker.events), time.monotonic()
        self._cluster.nodes[left].stop()
        told_s = await self._event(before, began_at, type="moving")
        left_at = time.monotonic()
        await until(lambda: self.node != left, "it goes to the other by itself", PATIENCE_S)
        silent_s = await self._sound(left_at)
        next_number = await self._goes_on()
        self._tell(
            f"media node {left} is told to end: its client is told after {told_s:.1f} s, back by node {self.node}, "
            f"next sound {silent_s:.1f} s later. The model goes on at {next_number}: memory kept"
        )

    async def lose_node(self) -> None:
        await asyncio.gather(*(node.wait_ready() for node in self._cluster.nodes.values()))
        await self._count_until_broken()
        lost = self.node
        killed_at = self._kill(self._cluster.nodes[lost].kill)
        await self._talker.come_back()
        back_s = time.monotonic() - killed_at
        heard_s = await self._sound(killed_at)
        assert self.node != lost
        next_number = await self._goes_on(unsent=_UNSENT)
        self._tell(
            f"media node {lost} is killed: back by node {self.node} after {back_s:.1f} s, next sound {heard_s:.1f} s "
            f"after the kill. The model goes on at {next_number}: memory kept"
        )

    async def leave_engine(self) -> None:
        """Two that are moved: the engine drains while it counts."""
        await self._cluster.wait_engines()
        await self._count_until_broken()
        left, before = await self._cluster.engine_in_use(), len(self._talker.events)
        left.terminate()
        await until(lambda: not left.is_running(), "it ends when none is in use", PATIENCE_S)
        next_number = await self._goes_on(_FEW)
        self._expect_nothing_told(before)
        self._tell(
            "its engine is told to end: the conversation is moved to the other one, and notices nothing. The model "
            f"goes on at {next_number}: memory kept"
        )

    async def lose_engine(self, named: str, victims: Callable[[psutil.Process], list[psutil.Process]]) -> None:
        await self._cluster.wait_engines()
        await self._count_until_broken()
        killed = victims(await self._cluster.engine_in_use())
        before = len(self._talker.events)
        killed_at = self._kill(*(each.kill for each in killed))
        told_s = await self._event(before, killed_at, type="error", code="engine_failed")
        back_s = await self._event(before, killed_at, type="state", reason="restarted")
        said = len(self._said())
        await asyncio.sleep(_FORGOTTEN_S)  # a model that remembered would count on
        assert len(self._said()) == said, f"it counts on: {self._said()}"
        self._tell(
            f"{named} is killed: told so after {told_s:.1f} s, another engine after {back_s:.1f} s, by the same "
            "connection. The model does not count on: memory lost"
        )

    async def lose_unnoticed(self, named: str, kill: Callable[[], None]) -> None:
        await self._count_until_broken()
        before = len(self._talker.events)
        kill()
        await self._goes_on(_FEW)
        self._expect_nothing_told(before)
        self._tell(f"{named} is killed: the conversation notices nothing")

    async def _goes_on(self, least: int = 1, unsent: int = 0) -> str:
        """Until it has said ``least`` more numbers, of which ``unsent`` at most may be missing; the next one."""
        known = self._known
        await until(lambda: len(self._said()) >= known + least, "the count to go on", PATIENCE_S)
        said = self._said()
        counted = [NUMBERS.index(word) if word in NUMBERS else 0 for word in said]
        assert counted[:known] == list(range(1, known + 1)), f"it does not count: {said}"
        assert all(before < after for before, after in itertools.pairwise(counted)), f"it does not count on: {said}"
        assert counted[-1] - len(counted) <= unsent, f"numbers are missing: {said}"
        return f'"{said[known]}"'

    def _expect_nothing_told(self, before: int) -> None:
        told = [event for event in self._talker.events[before:] if event["type"] in ("error", "moving", "connected")]
        assert not told, f"the client is told {told}"

    async def _count_until_broken(self) -> None:
        """Ask it to count, from the beginning, and wait until it is at the number at which it is to be broken."""
        deadline = time.monotonic() + _ASKING_S
        while not await self._counts():
            assert time.monotonic() < deadline, f"asked to count, it says: {self._said()}"
        await until(lambda: len(self._said()) >= _KILL_AT, "the number at which it is to be broken", PATIENCE_S)
        self._known = len(self._said())

    async def _counts(self) -> bool:
        """Whether it has begun to count, after it was asked to. On a busy machine it may have misheard."""
        await self._talker.begin()
        self._from = len(self._talker.events)
        await self._talker.ask()
        try:
            await until(self._said, "an answer", _ANSWER_S)
        except AssertionError:
            return False
        return self._said()[0] == NUMBERS[1]

    @staticmethod
    def _kill(*kills: Callable[[], None]) -> float:
        """When."""
        for kill in kills:
            kill()
        return time.monotonic()

    def _said(self) -> list[str]:
        """What the model has said since it was asked to count."""
        events = self._talker.events[self._from :]
        return "".join(str(event["delta"]) for event in events if event["type"] == "text").split()

    async def _sound(self, since: float) -> float:
        """How long after ``since`` something is heard again: of what comes from now on."""
        await self._talker.hear()
        return time.monotonic() - since

    async def _event(self, after: int, since: float, **fields: str) -> float:
        """How long after ``since`` the client is told."""

        def told() -> bool:
            return any(fields.items() <= event.items() for event in self._talker.events[after:])

        await until(told, f"{fields}", PATIENCE_S)
        return time.monotonic() - since

"""A conversation while the parts of the cluster die: what its client notices, and what the model still knows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import av
import numpy as np

from lab.cluster.running import Cluster
from lab.coming_back import come_back
from lab.pico.phrases import NUMBERS
from lab.sound.mouth import Mouth
from lab.sound.tones import Ear
from lab.waiting import until
from rtc_server.audio import level_dbfs
from rtc_server.client import MICROPHONE_HZ, VoiceClient

_QUESTION: Final = Path(__file__).with_name("count.opus")
"""A voice that says "count to twenty"."""
_KILL_AT: Final = 4
_SILENT_S: Final = 4.0
"""A client that hears nothing of its server for so long comes back, as the page does."""
_PATIENCE_S: Final = 60.0
_ANSWER_S: Final = 10.0
_LOOK_S: Final = 0.05
_AUDIBLE_DBFS: Final = -45.0
_FORGOTTEN_S: Final = 3.0
"""A model that says no number for so long does not count on."""


async def show(cluster: Cluster, tell: Callable[[str], None]) -> None:
    """Kill one part after the other under a conversation, and tell what became of it. Raises AssertionError if the
    conversation does not go on as it has to."""
    conversation = _Conversation(cluster, tell)
    async with conversation.client:
        await conversation.client.wait_for("connected")
        tell(f'a conversation with Pico, by media node {conversation.node}: it counts, and is broken at "four"')
        await conversation.leave_node()
        await conversation.lose_node()
        await conversation.lose_engine("its engine", host=False)
        await conversation.lose_engine("what runs its engine on its machine", host=True)
        await conversation.lose_pool()


class _Conversation:
    def __init__(self, cluster: Cluster, tell: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._tell = tell
        self._microphone, self._ear = _Question(), Ear()
        self._from = 0
        self.client = VoiceClient(cluster.url, self._microphone, on_voice=self._ear)

    @property
    def node(self) -> str:
        return str(self.client.session).partition("-")[0]

    async def leave_node(self) -> None:
        await self._count_until_broken()
        left, before, began_at = self.node, len(self.client.events), time.monotonic()
        self._cluster.nodes[left].stop()
        told_s = await self._event(before, began_at, type="moving")
        left_at = time.monotonic()
        await until(lambda: self.node != left, "its client goes to the other by itself", _PATIENCE_S)
        silent_s = await self._sound(left_at)
        await self._goes_on_elsewhere(left)
        self._tell(
            f"media node {left} is told to end: its client is told after {told_s:.1f} s, back by node {self.node}, "
            f'next sound {silent_s:.1f} s later. The model goes on at "{NUMBERS[_KILL_AT + 1]}": memory kept'
        )
        await self._cluster.nodes[left].wait_ready()

    async def lose_node(self) -> None:
        await self._count_until_broken()
        lost = self.node
        killed_at = self._kill(self._cluster.nodes[lost].kill)
        await self._until_silent()
        noticed_s = time.monotonic() - killed_at
        await come_back(self.client)
        heard_s = await self._sound(killed_at)
        await self._goes_on_elsewhere(lost)
        self._tell(
            f"media node {lost} is killed: noticed by silence after {noticed_s:.1f} s, back by node {self.node}, next "
            f'sound {heard_s:.1f} s after the kill. The model goes on at "{NUMBERS[_KILL_AT + 1]}": memory kept'
        )
        await self._cluster.nodes[lost].wait_ready()

    async def lose_engine(self, named: str, host: bool) -> None:
        await self._cluster.wait_engines()
        await self._count_until_broken()
        engine = await self._cluster.engine_in_use()
        victim = engine.parent() if host else engine
        assert victim is not None
        before = len(self.client.events)
        killed_at = self._kill(victim.kill)
        told_s = await self._event(before, killed_at, type="error", code="engine_failed")
        back_s = await self._event(before, killed_at, type="state", reason="restarted")
        said = len(self._said())
        await asyncio.sleep(_FORGOTTEN_S)  # a model that remembered would count on
        assert len(self._said()) == said, f"it counts on: {self._said()}"
        self._tell(
            f"{named} is killed: told so after {told_s:.1f} s, another engine after {back_s:.1f} s, by the same "
            "connection. The model does not count on: memory lost"
        )

    async def lose_pool(self) -> None:
        await self._count_until_broken()
        before = len(self.client.events)
        self._kill(self._cluster.pool.kill)
        await until(lambda: len(self._said()) > _KILL_AT + 3, "the count to go on", _PATIENCE_S)
        told = [event for event in list(self.client.events)[before:] if event["type"] == "error"]
        assert not told, f"the client is told {told}"
        self._tell("the pool is killed: the conversation notices nothing")
        await self._cluster.pool.wait_ready()
        await self._cluster.wait_engines()
        self._tell("the pool is back, and knows both engines again")

    async def _goes_on_elsewhere(self, before: str) -> None:
        assert self.node != before
        await until(lambda: len(self._said()) > _KILL_AT + 1, "the count to go on", _PATIENCE_S)
        assert self._said() == NUMBERS[1 : len(self._said()) + 1], f"it does not count on: {self._said()}"

    async def _count_until_broken(self) -> None:
        """Ask it to count, from the beginning, and wait until it is at the number at which it is to be broken."""
        deadline = time.monotonic() + _PATIENCE_S
        while not await self._counts():
            assert time.monotonic() < deadline, f"asked to count, it says: {self._said()}"
        await until(lambda: len(self._said()) >= _KILL_AT, "the number at which it is to be broken", _PATIENCE_S)
        assert self._said()[:_KILL_AT] == NUMBERS[1 : _KILL_AT + 1], f"it does not count: {self._said()}"

    async def _counts(self) -> bool:
        """Whether it has begun to count, after it was asked to. On a busy machine it may have misheard."""
        self.client.send({"type": "reset"})
        await self._ear.until_level(below=_AUDIBLE_DBFS)
        self._from = len(self.client.events)
        self._microphone.say()
        try:
            await until(self._said, "an answer", _ANSWER_S)
        except AssertionError:
            return False
        return self._said()[0] == NUMBERS[1]

    def _kill(self, kill: Callable[[], None]) -> float:
        """When."""
        kill()
        return time.monotonic()

    def _said(self) -> list[str]:
        """What the model has said since it was asked to count."""
        events = list(self.client.events)[self._from :]
        return "".join(event["delta"] for event in events if event["type"] == "text").split()

    async def _until_silent(self) -> None:
        heard, since = len(self.client.events), time.monotonic()
        while time.monotonic() - since < _SILENT_S:
            await asyncio.sleep(_LOOK_S)
            if len(self.client.events) != heard:
                heard, since = len(self.client.events), time.monotonic()

    async def _sound(self, since: float) -> float:
        """How long after ``since`` something is heard again: of what comes from now on."""
        first = self._ear.samples
        await until(lambda: level_dbfs(self._ear.since(first)) > _AUDIBLE_DBFS, "the voice", _PATIENCE_S)
        return time.monotonic() - since

    async def _event(self, after: int, since: float, **fields: str) -> float:
        """How long after ``since`` the client is told."""

        def told() -> bool:
            return any(fields.items() <= event.items() for event in list(self.client.events)[after:])

        await until(told, f"{fields}", _PATIENCE_S)
        return time.monotonic() - since


class _Question(Mouth):
    """A microphone that says the question."""

    def __init__(self) -> None:
        super().__init__()
        resampler = av.AudioResampler("flt", "mono", MICROPHONE_HZ)
        with av.open(str(_QUESTION)) as container:
            frames = [resampled for frame in container.decode(audio=0) for resampled in resampler.resample(frame)]
        self._pcm = np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32)

    def say(self) -> None:
        self.utter(self._pcm)

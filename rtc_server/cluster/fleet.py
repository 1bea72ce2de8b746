"""What a pool knows of its engines and media nodes, from what they said, and what follows from it.

Pure: times are arguments, in seconds of one clock that does not go back. Nothing here has to outlive the pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from rtc_server.cluster.messages import MAX_ENGINES, MAX_NODES, Beat, Listed, Outlook, Peers, Roster
from rtc_server.cluster.policy import Decision, EngineView, Phase, Terms, decide
from rtc_server.cluster.starts import StartTimes

HEALTHY_S: Final = 3.0
"""An engine that was heard longer ago takes no conversation."""
LOADING_HEALTHY_S: Final = 15.0
"""One that loads its model may be busy for longer than one that steps it."""
FIRST_WORD_S: Final = 900.0
"""An engine that was started and has not been heard for so long never will be: until then there may be no machine."""
FORGOTTEN_S: Final = 60.0
"""After so long a silence an engine, or a node, is no more."""
_NODE_SILENT_S: Final = 5.0
"""Clients of a node that has been silent for longer do not wait."""
_GONE_S: Final = 30.0
"""For so long it is said that a life has ended."""


@dataclass(slots=True)
class _Engine:
    """``beat``: the last; None if it was not heard yet. ``since``: when its start began."""

    name: str
    service: str
    managed: bool
    heard_at: float
    since: float
    beat: Beat | None = None

    @property
    def phase(self) -> Phase:
        return Phase.STARTING if self.beat is None else self.beat.phase

    def silent_s(self, now: float) -> float:
        return now - self.heard_at

    def healthy(self, now: float) -> bool:
        if self.beat is None:
            return self.silent_s(now) <= FIRST_WORD_S
        return self.silent_s(now) <= (LOADING_HEALTHY_S if self.phase is Phase.STARTING else HEALTHY_S)

    def view(self, now: float) -> EngineView:
        beat = self.beat
        if beat is None:
            return EngineView(self.name, Phase.STARTING, managed=self.managed)
        idle_s = 0.0 if beat.used else beat.idle_s + self.silent_s(now)
        return EngineView(self.name, beat.phase, beat.slots, beat.used, idle_s, self.managed)


@dataclass(frozen=True, slots=True)
class _Node:
    """``process``, ``url``: as it says; empty if it does not."""

    heard_at: float
    waiting: Mapping[str, int]
    process: str
    url: str


@dataclass(slots=True)
class _Service:
    terms: Terms | None
    slots: int | None = None
    starts: StartTimes = field(default_factory=StartTimes)


class Fleet:
    """``terms``: of the services whose engines the pool starts and stops. Engines of others may come by themselves.
    ``slots``: of an engine of each service, where that is known before one has told. ``edition``: a number that no
    other pool begins with, of what it tells of media nodes."""

    def __init__(self, terms: Mapping[str, Terms], slots: Mapping[str, int] | None = None, edition: int = 1) -> None:
        known = slots or {}
        self._services = {service: _Service(each, known.get(service)) for service, each in terms.items()}
        self._engines: dict[str, _Engine] = {}
        self._nodes: dict[bytes, _Node] = {}
        self._peers = Peers(edition, {})
        self._gone: dict[str, float] = {}

    def heard(self, beat: Beat, now: float) -> None:
        """An engine has said that it is there."""
        if beat.life in self._gone:  # said before it ended, and overtaken; or it lives on beside what took its place
            self._gone[beat.life] = now
            return
        engine = self._engines.get(beat.name)
        if engine is None:
            if len(self._engines) >= MAX_ENGINES:
                return
            engine = self._engines[beat.name] = _Engine(beat.name, beat.service, False, now, now)
        before = engine.beat
        if before is not None and before.life != beat.life:
            self._gone[before.life] = now
            engine.since = now
        service = self._service(beat.service)
        if beat.phase is Phase.READY:
            service.slots = beat.slots or service.slots
            self._time(service, engine, beat, now)
        engine.beat, engine.heard_at, engine.service = beat, now, beat.service

    def gone(self, life: str, now: float) -> None:
        """A process of an engine has ended. What started it may start another: that is awaited for a while."""
        for engine in list(self._engines.values()):
            if engine.beat is None or engine.beat.life != life or life in self._gone:
                continue
            self._gone[life] = now
            if not engine.managed:
                del self._engines[engine.name]
                continue
            phase = Phase.DRAINING if engine.phase is Phase.DRAINING else Phase.STARTING
            ended = Beat(engine.beat.protocol, engine.name, life, engine.service, "", phase)
            engine.beat, engine.heard_at, engine.since = ended, now, now

    def asked(self, node: bytes, waiting: Mapping[str, int], now: float, process: str = "", url: str = "") -> bool:
        """A media node has said that it is there, and how many clients wait; and which of its processes has said so,
        where others find that. False if there are too many nodes."""
        before = self._nodes.get(node)
        if before is None and len(self._nodes) >= MAX_NODES:
            return False
        self._nodes[node] = _Node(now, waiting, process, url)
        if before is None or (before.process, before.url) != (process, url):
            self._look_at_peers()
        return True

    @property
    def own_services(self) -> list[str]:
        """Those whose engines the pool starts and stops."""
        return [service for service, known in self._services.items() if known.terms is not None]

    @property
    def nodes(self) -> Iterable[bytes]:
        """Those that are to hear of a change."""
        return self._nodes

    def launched(self, service: str, names: Iterable[str], now: float) -> None:
        """All engines of ``service`` that the pool has started and not stopped, heard or not."""
        there = set(names)
        for engine in list(self._engines.values()):
            if engine.service == service and engine.managed and engine.name not in there:
                self._drop(engine, now)
        for name in there:
            engine = self._engines.setdefault(name, _Engine(name, service, True, now, now))
            engine.managed = True

    def stopping(self, name: str) -> None:
        """The engine has been told to drain: it counts no more, unless it says otherwise."""
        engine = self._engines.get(name)
        if engine is not None and engine.beat is not None:
            engine.beat = msgspec.structs.replace(engine.beat, phase=Phase.DRAINING)

    def forget(self, now: float) -> None:
        """Forget those that have been silent for so long that they are no more. To be called every now and then."""
        for engine in list(self._engines.values()):
            if not engine.managed and engine.silent_s(now) > FORGOTTEN_S:
                del self._engines[engine.name]
        left = {name: node for name, node in self._nodes.items() if now - node.heard_at <= FORGOTTEN_S}
        if len(left) < len(self._nodes):
            self._nodes = left
            self._look_at_peers()
        self._gone = {life: at for life, at in self._gone.items() if now - at <= _GONE_S}

    def decide(self, now: float) -> dict[str, Decision]:
        """What to do about each service of the pool's own."""
        return {
            service: decide(known.terms, self._views(service, now), self._waiting(service, now), known.slots)
            for service, known in self._services.items()
            if known.terms is not None
        }

    def lost(self, now: float) -> list[str]:
        """Engines of the pool's own that have been silent for so long that they are to be ended by force."""
        return [
            engine.name
            for engine in self._engines.values()
            if engine.managed and not engine.healthy(now) and engine.silent_s(now) > FORGOTTEN_S
        ]

    def roster(self, now: float, known: int | None = None) -> Roster:
        """What media nodes are told. ``known``: the edition of the peers that one knows; None: it is told of none."""
        usable = [
            Listed(engine.beat.life, engine.service, engine.beat.address, engine.phase)
            for engine in self._engines.values()
            if engine.beat is not None and engine.phase is not Phase.STARTING and engine.healthy(now)
            if engine.beat.life not in self._gone
        ]
        outlooks = [Outlook(service, self._starts_in_s(service, now)) for service in self._services]
        news = None if known in (None, self._peers.edition) else self._peers
        return Roster(usable, outlooks, list(self._gone), news)

    def _look_at_peers(self) -> None:
        urls = {node.process: node.url for node in self._nodes.values() if node.url}
        if urls != self._peers.urls:
            self._peers = Peers(self._peers.edition + 1, urls)

    def _service(self, name: str) -> _Service:
        return self._services.setdefault(name, _Service(None))

    def _time(self, service: _Service, engine: _Engine, beat: Beat, now: float) -> None:
        """Learn how long a start took from an engine that has just become ready."""
        service.starts.told(beat.load_s)
        before = engine.beat
        seen_starting = engine.managed if before is None else before.phase is Phase.STARTING or before.life != beat.life
        if seen_starting:
            service.starts.measured(max(now - engine.since, beat.load_s))

    def _drop(self, engine: _Engine, now: float) -> None:
        if engine.beat is not None:
            self._gone[engine.beat.life] = now
        del self._engines[engine.name]

    def _views(self, service: str, now: float) -> list[EngineView]:
        of_it = (engine for engine in self._engines.values() if engine.service == service)
        return [engine.view(now) for engine in of_it if engine.healthy(now)]

    def _waiting(self, service: str, now: float) -> int:
        return sum(
            node.waiting.get(service, 0) for node in self._nodes.values() if now - node.heard_at <= _NODE_SILENT_S
        )

    def _starts_in_s(self, service: str, now: float) -> float | None:
        known = self._services[service]
        of_it = [engine for engine in self._engines.values() if engine.service == service and engine.healthy(now)]
        expected_s = known.starts.expected_s
        begun = [engine.since for engine in of_it if engine.phase is Phase.STARTING]
        if begun:
            return max(1.0, expected_s - (now - min(begun)))
        may_grow = known.terms is not None and len(of_it) < known.terms.most
        return expected_s if may_grow else None

"""The ICE agent of a connection: its sockets, the selected pair, and consent of the peer.

All that touches aioice's private parts. What is assumed of them is said in ``tests/webrtc/test_ice_agent.py``. Knows
nothing of sessions: that a silent path is dead is for others to decide.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from aioice import Candidate, Connection, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import (
    CandidatePair,
    StunProtocol,
    TransportPolicy,
    relayed_candidate,
    server_reflexive_candidate,
)
from aioice.turn import TurnClientUdpProtocol

from rtc_server.errors import NoPort
from rtc_server.system.rate_limit import TokenBucket
from rtc_server.webrtc.datagrams import MAX_SOURCES, Gate, Kind, Source, kind_of
from rtc_server.webrtc.faults import FAULTS
from rtc_server.webrtc.ice import MediaAddresses

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 4.0
"""For how long a peer may answer nothing before its path is taken for dead, unless a caller says otherwise."""
MAX_WAITING: Final = 256
"""Datagrams that wait to be read; five seconds of audio."""
MAX_PAIRS: Final = 20
MAX_PAIRS_AN_ADDRESS: Final = 6
"""Pairs that are checked because the peer names an address; beyond them, those from which it sends checks itself. RFC
8445, section 6.1.2.5, allows 100."""
_RECEIVE_BUFFER_BYTES: Final = 512 * 1024
_RETRANSMISSIONS: Final = 3
"""Of a check, within 7.5 s. RFC 8489 has six; but a check that fails is made again when one comes from there."""
_ASK_RETRANSMISSIONS: Final = 2
"""Of the question whether the peer is there, within 3.5 s, so that the answer may be late by as much."""
_ASKS_A_PATIENCE: Final = 4
_ASKS_WHEN_UNANSWERED: Final = 10
"""How often the peer is asked in the time in which it must answer. More often while it does not answer: at 30 % of
packets lost each way, one of twenty tries gets through in all but one case of a million."""
_MAX_ASKS: Final = 12
_OTHER_WAYS: Final = 3
_SILENT_S: Final = 1.0
"""After so long without a sign from the path in use, another one that works is taken."""
_PROBES_PER_S: Final = 1.0
_PROBE_BURST: Final = 2
_MOST_ROLE_CONFLICTS: Final = 8
_CONSENT_LIFETIME_S: Final = 30.0
"""RFC 7675, section 5.1: consent to send expires 30 s after it was last given."""


class MediaSocket(StunProtocol):
    """aioice's socket behind a gate. What it cannot read costs the datagram, and no line of log."""

    receiver: IceConnection

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        assert isinstance(data, bytes)
        source = (addr[0], addr[1])  # of IPv6, four
        kind = kind_of(data)
        try:
            if kind is Kind.STUN:
                self._stun_received(data, source)
            elif kind is not None:
                self.receiver.datagram_received(data, source, self)
        except Exception as error:  # the border to strangers: aioice reads some of what they send and then raises
            FAULTS.on_useless(error)

    def _stun_received(self, data: bytes, source: Source) -> None:
        if not self.receiver.gate.takes_stun(data, source, self.transactions, time.monotonic()):
            return
        message = stun.parse_message(data)
        if message.message_class is stun.Class.REQUEST:
            self.receiver.request_received(message, source, self)
        else:
            self.transactions[message.transaction_id].response_received(message, source)

    async def request(
        self,
        request: stun.Message,
        addr: tuple[str, int],
        integrity_key: bytes | None = None,
        retransmissions: int | None = None,
    ) -> tuple[stun.Message, tuple[str, int]]:
        tries = _RETRANSMISSIONS if retransmissions is None else retransmissions
        return await super().request(request, addr, integrity_key, tries)


class IceConnection(Connection):
    """aioice's connection, on the addresses and ports of this server if there are any, behind a gate.

    It follows a peer whose address changes: RFC 8445 moves to another pair only when the controlling agent nominates
    it, but a peer whose NAT gives it a new port does not know, and goes on as before. So a pair that has answered is
    taken when the one in use is silent. And it asks the peer whether it is there: ``patience_s`` is for how long the
    peer may answer nothing before its path is taken for dead, ``answers`` counts what it has answered.
    """

    def __init__(self, addresses: MediaAddresses | None, patience_s: float = PATIENCE_S, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        now = time.monotonic()
        self.gate = Gate(self.local_username, now)
        self.answers = 0
        """How often the peer has answered whether it is there: signed by it, so proof that both ways work. What merely
        arrives proves that one of them does."""
        self.on_media: Callable[[bytes], bool] | None = None
        """Takes an SRTP packet at once, in the socket's callback. False: the datagram waits to be read, as all others
        do."""
        self._addresses = addresses
        self._patience_s = patience_s
        self._heard_at = now
        self._answered_at = now
        self._checked_at: dict[CandidatePair, float] = {}
        self._probes = TokenBucket(_PROBES_PER_S, _PROBE_BURST, now)
        self._role_conflicts = 0

    @classmethod
    def in_place_of(cls, other: Connection, addresses: MediaAddresses | None, patience_s: float) -> IceConnection:
        """One that has not begun yet, with the settings of another."""
        policy: TransportPolicy = other._transport_policy
        return cls(
            addresses,
            patience_s,
            ice_controlling=other.ice_controlling,
            stun_server=other.stun_server,
            turn_server=other.turn_server,
            turn_username=other.turn_username,
            turn_password=other.turn_password,
            turn_ssl=other.turn_ssl,
            turn_transport=other.turn_transport,
            transport_policy=policy,
            local_username=other.local_username,
            local_password=other.local_password,
        )

    # Gathering.

    def _add_remote_candidate(self, remote_candidate: Candidate, network_host: str) -> None:
        """A name may turn out to be any address."""
        if self._addresses is None or self._addresses.may_check(network_host):
            super()._add_remote_candidate(remote_candidate, network_host)

    def _pair_remote_candidate(self, remote_candidate: Candidate) -> None:
        """Each pair is some requests to an address of the peer's choice, of which one may have few ports, too."""
        same = [
            pair for pair in self._check_list if pair.remote_candidate._network_host == remote_candidate._network_host
        ]
        if len(self._check_list) < MAX_PAIRS and len(same) < MAX_PAIRS_AN_ADDRESS:
            super()._pair_remote_candidate(remote_candidate)

    async def get_component_candidates(
        self,
        component: int,
        addresses: list[str],
        timeout: int = 5,  # noqa: ASYNC109 - aioice's
    ) -> list[Candidate]:
        """Those of a server are host candidates alone; none are left of a connection that is closed meanwhile. Raises
        NoPort when a range is set and taken."""
        hosts = addresses if self._addresses is None else self._addresses.hosts()
        candidates = [candidate for host in hosts for candidate in await self._host_candidates(component, host)]
        if self._closing:
            return []
        if self._addresses is not None and not candidates:
            raise NoPort
        return candidates + await self._candidates_of_servers(component, timeout)

    async def _host_candidates(self, component: int, host: str) -> list[Candidate]:
        protocol = None if self._closing else await self._bind(host)
        if protocol is None:
            return []
        if self._closing:  # which has closed those sockets that there were
            await protocol.close()
            return []
        self._protocols.append(protocol)
        own = protocol.local_candidate = _host_candidate(component, host, protocol)
        shown = host if self._addresses is None else self._addresses.shown(host)
        return [own if shown == host else _host_candidate(component, shown, protocol)]

    async def _bind(self, host: str) -> MediaSocket | None:
        """A socket on a free port; None if there is none on this address."""
        ports = None if self._addresses is None else self._addresses.ports
        first = 0 if ports is None else random.randrange(len(ports))  # noqa: S311 - spreads them, no more
        tries = [0] if ports is None else [*ports[first:], *ports[:first]]
        loop = asyncio.get_running_loop()
        for port in tries:
            try:
                transport, protocol = await loop.create_datagram_endpoint(
                    lambda: MediaSocket(self), local_addr=(host, port)
                )
            except OSError:
                continue
            sock = transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            return protocol
        logger.warning("no free UDP port on one of this machine's addresses")
        return None

    async def _candidates_of_servers(self, component: int, timeout_s: float) -> list[Candidate]:
        """Gather candidates of STUN and TURN servers, which only clients have."""
        questions: list[Coroutine[Any, Any, tuple[Candidate, StunProtocol | None]]] = []
        if self.stun_server is not None:
            # aioice looks for the address of a STUN server by IPv4 alone.
            sockets = [each for each in self._protocols if ":" not in each.local_candidate.host]
            questions += [server_reflexive_candidate(each, self.stun_server) for each in sockets]
        if self.turn_server is not None:
            questions.append(self._relayed_candidate(component, self.turn_server))
        if not questions:
            return []
        tasks = [asyncio.create_task(question, name="gather") for question in questions]
        try:
            done, _ = await asyncio.wait(tasks, timeout=timeout_s)
        finally:
            for task in tasks:
                task.cancel()
        found = [task.result() for task in tasks if task in done and task.exception() is None]
        relays = [protocol for _, protocol in found if protocol is not None]
        if self._closing:
            await asyncio.gather(*(relay.close() for relay in relays))
            return []
        self._protocols += relays
        return [candidate for candidate, _ in found]

    async def _relayed_candidate(self, component: int, server: tuple[str, int]) -> tuple[Candidate, StunProtocol]:
        candidate, relay = await relayed_candidate(
            component=component,
            hide_related_address=self._transport_policy is TransportPolicy.RELAY,
            protocol_factory=lambda: MediaSocket(self),
            turn_server=server,
            turn_username=self.turn_username,
            turn_password=self.turn_password,
            turn_ssl=self.turn_ssl,
            turn_transport=self.turn_transport,
        )
        _shield(relay.transport)
        return candidate, relay

    # What comes in.

    def datagram_received(self, data: bytes, source: Source, protocol: MediaSocket) -> None:
        """DTLS or media, from any source, by a socket of this machine or by a TURN server."""
        if self._closing:
            return
        now = time.monotonic()
        if self.gate.is_proven(source):
            if self.gate.has_room(now):
                self._heard(source, protocol, now)
                # Not past those that wait: they came before it.
                if self.on_media is None or self._queue.qsize() or not self.on_media(data):
                    self.data_received(data, 1)
        elif self.gate.hold(data, source):
            self._check_back(source, protocol)
        elif self._nominated and self._is_silent(now) and self._probes.allow(now):
            # This may be the peer, with a new address; only it can answer. Rarely, for any stranger can make it happen.
            self._check_back(source, protocol)

    def data_received(self, data: bytes, component: int) -> None:
        """Keep what is to be read. If there is too much, the oldest goes."""
        waiting = self._queue
        if self._closing:
            return
        if waiting.qsize() >= MAX_WAITING and waiting.get_nowait() is None:
            waiting.put_nowait(None)  # the end, which must be read
            return
        waiting.put_nowait((data, component))

    async def recv(self) -> bytes:
        """The next datagram. Raises ConnectionError when there will be none."""
        if not self._nominated:
            raise ConnectionError("not connected")
        waiting = self._queue
        item = waiting.get_nowait() if waiting.qsize() else await waiting.get()
        if item is None:
            raise ConnectionError("the connection is closed")
        return item[0]

    def request_received(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        """A check. One that the peer has not signed gets no answer: who asks is not known, nor where from."""
        signed = self._valid_username(message.attributes.get("USERNAME", "")) and message.check_message_integrity(
            self.local_password.encode()
        )
        if signed:
            self.gate.check(addr)
            super().request_received(message, addr, protocol)

    def check_incoming(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        self._make_room(addr)
        super().check_incoming(message, addr, protocol)
        now = time.monotonic()
        # Pairs that aioice has dropped are forgotten here too.
        self._checked_at = {pair: self._checked_at.get(pair, 0.0) for pair in self._check_list}
        for pair in self._pairs(addr, protocol):
            self._checked_at[pair] = now
        self._heard(addr, protocol, now)

    def _check_back(self, source: Source, protocol: StunProtocol) -> None:
        """See to it that a source which sends is checked. aioice gives up the checks that are under way when a pair is
        nominated, and the peer may have nominated another."""
        if not self._early_checks_done or self._closing:
            return
        for pair in self._pairs(source, protocol):
            if pair.task is not None and not pair.task.done():
                return
            pair.task, pair.state = None, CandidatePair.State.FAILED
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        request.attributes["PRIORITY"] = candidate_priority(1, "prflx")
        self.check_incoming(request, source, protocol)

    def _make_room(self, addr: Source) -> None:
        """Forget the oldest of the addresses that only showed themselves, if there are too many and another comes."""
        learnt = [each for each in self._remote_candidates if each.type == "prflx"]
        used = {id(pair.remote_candidate) for pair in self._nominated.values()}
        if len(learnt) < MAX_SOURCES or any((each.host, each.port) == addr for each in learnt):
            return
        oldest = next(each for each in learnt if id(each) not in used)
        self._remote_candidates.remove(oldest)
        for pair in [pair for pair in self._check_list if pair.remote_candidate is oldest]:
            if pair.task is not None:
                pair.task.cancel()
            self._check_list.remove(pair)

    # Checks.

    def check_start_task(self, pair: CandidatePair) -> None:
        if pair.task is None:
            pair.task = asyncio.create_task(self._check(pair), name="ice-check")

    async def _check(self, pair: CandidatePair) -> None:
        try:
            await self.check_start(pair)
        except Exception as error:  # the border of a task: what the peer answers may be anything
            logger.debug("a check failed (%s)", type(error).__name__)
            pair.task = None
            pair.state = CandidatePair.State.FAILED

    def switch_role(self, ice_controlling: bool) -> None:
        """Raises ConnectionError when the peer cannot make up its mind: each switch is another check."""
        self._role_conflicts += 1
        if self._role_conflicts > _MOST_ROLE_CONFLICTS:
            raise ConnectionError("too many role conflicts")
        super().switch_role(ice_controlling)

    def check_complete(self, pair: CandidatePair) -> None:
        if pair.state is CandidatePair.State.SUCCEEDED:
            for datagram in self.gate.prove(pair.remote_addr):
                self.data_received(datagram, pair.component)
        super().check_complete(pair)
        now = time.monotonic()
        if pair is self._nominated.get(pair.component):
            self._heard_at = now
        else:
            self._use_if_silent(pair, now)

    # The path in use.

    def _heard(self, source: Source, protocol: StunProtocol, now: float) -> None:
        """The peer has sent something from there."""
        pair = self._nominated.get(1)
        if pair is None:
            return
        if pair.protocol is protocol and pair.remote_addr == source:
            self._heard_at = now
        elif self._is_silent(now):
            for other in self._pairs(source, protocol):
                self._use_if_silent(other, now)

    def _pairs(self, source: Source, protocol: StunProtocol) -> list[CandidatePair]:
        """One, if any."""
        return [pair for pair in self._check_list if pair.protocol is protocol and pair.remote_addr == source]

    def _is_silent(self, now: float) -> bool:
        return now - max(self._heard_at, self._answered_at) > _SILENT_S

    def _use_if_silent(self, pair: CandidatePair, now: float) -> None:
        """Move to a pair that has answered, if there is no sign from the one in use."""
        if self._nominated and pair.state is CandidatePair.State.SUCCEEDED and self._is_silent(now):
            self._use(pair, now)

    def _use(self, pair: CandidatePair, now: float) -> None:
        self._nominated[pair.component] = pair
        self._heard_at = self._answered_at = now
        logger.debug("the path moves to another pair")

    # Consent.

    async def query_consent(self) -> None:
        """Ask for consent to send (RFC 7675) until it expires; more often than that wants, so that a peer that has gone
        is noticed within seconds."""
        self._answered_at = self._heard_at = time.monotonic()
        asks: set[asyncio.Task[None]] = set()
        try:
            while (unanswered_s := time.monotonic() - self._answered_at) <= _CONSENT_LIFETIME_S:
                often = _ASKS_WHEN_UNANSWERED if asks and unanswered_s < self._patience_s else _ASKS_A_PATIENCE
                interval_s = min(self._patience_s, PATIENCE_S) / often
                await asyncio.sleep(interval_s * (0.8 + 0.4 * random.random()))  # noqa: S311 - RFC 7675
                for pair in self._worth_asking():
                    if len(asks) < _MAX_ASKS:
                        ask = asyncio.create_task(self._ask(pair), name="ice-ask")
                        asks.add(ask)
                        ask.add_done_callback(asks.discard)
        finally:
            for ask in asks:
                ask.cancel()
            await asyncio.gather(*asks, return_exceptions=True)
        self._query_consent_task = None
        await self.close()

    def _worth_asking(self) -> list[CandidatePair]:
        """The pair in use; and if that does not answer, those that the peer has checked last."""
        used = list(self._nominated.values())
        if time.monotonic() - self._answered_at <= _SILENT_S:
            return used
        others = [
            pair
            for pair in sorted(self._checked_at, key=lambda pair: self._checked_at[pair], reverse=True)
            if pair.state is CandidatePair.State.SUCCEEDED and pair not in used
        ]
        return used + others[:_OTHER_WAYS]

    async def _ask(self, pair: CandidatePair) -> None:
        assert self.remote_password is not None, "it has connected"
        request = self.build_request(pair, nominate=False)
        try:
            await pair.protocol.request(
                request, pair.remote_addr, self.remote_password.encode(), retransmissions=_ASK_RETRANSMISSIONS
            )
        except Exception as error:  # the border of a task: no answer, or one that is of no use
            logger.debug("no answer (%s)", type(error).__name__)
            return
        now = time.monotonic()
        self.gate.prove(pair.remote_addr)
        if pair is not self._nominated.get(pair.component):
            if now - self._answered_at <= _SILENT_S:
                return
            self._use(pair, now)
        self._answered_at = now
        self.answers += 1


def _shield(relay: Any) -> None:
    """What comes from a TURN server's address may be of one who gives datagrams any source: it may fail for itself,
    too."""
    inner: Any = relay._TurnTransport__inner_protocol
    if not isinstance(inner, TurnClientUdpProtocol):
        return
    receive = inner.datagram_received

    def shielded(data: bytes | str, addr: tuple[str, int]) -> None:
        try:
            receive(data, addr)
        except Exception as error:  # the border to strangers
            FAULTS.on_useless(error)

    inner.datagram_received = shielded  # type: ignore[method-assign]


def _host_candidate(component: int, host: str, protocol: StunProtocol) -> Candidate:
    return Candidate(
        foundation=candidate_foundation("host", "udp", host),
        component=component,
        transport="udp",
        priority=candidate_priority(component, "host"),
        host=host,
        port=protocol.transport.get_extra_info("sockname")[1],
        type="host",
    )

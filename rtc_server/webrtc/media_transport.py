"""Reads what arrives over ICE: DTLS records, SRTP packets and their payloads. A failure costs one datagram.

aiortc's transport reads one datagram after the other and ends when one cannot be read; this one drops it and goes on.
What ends it is the peer, by a message that only the peer can send, or the loss of its path, and it tells the two apart.
What is assumed of aiortc is said in ``tests/webrtc/test_aiortc_contract.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, cast

import pylibsrtp
from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import State
from aiortc.rtcicetransport import RTCIceTransport
from aiortc.rtp import RtpPacket, is_rtcp
from OpenSSL import SSL

from rtc_server.system.rate_limit import TokenBucket
from rtc_server.webrtc.dtls import DtlsTransport
from rtc_server.webrtc.faults import FAULTS
from rtc_server.webrtc.rtp_packet import read_packet

MAX_SOURCES: Final = 8
"""SSRCs that are kept account of. libsrtp keeps a context for each and looks for it one by one."""
_SOURCES_PER_S: Final = 1.0
_REPORTS_PER_S: Final = 50
REPORT_BURST: Final = 100
"""Datagrams of RTCP, of which a peer with one microphone sends a few in a second (RFC 3550, section 6.2). In one there
is room for 5,000 numbers of lost packets, which take as long to list as twenty packets of audio to decode."""
_DTLS_PER_S: Final = 300
DTLS_BURST: Final = 1200
"""Datagrams of DTLS behind the handshake: somewhat more than the chunks of data channels that are read
(:mod:`rtc_server.webrtc.data_transport`), of which each has one of its own. There is room for 38 records in one."""
_MAX_RECORD_BYTES: Final = 2**14
"""RFC 6347, section 4.1.1."""
_LAST_RECORD_TYPE: Final = 63
"""RFC 7983, section 7: what begins with 20 to 63 is DTLS; with 128 to 191, RTP."""


class MediaTransport(DtlsTransport):
    """aiortc's transport, in which a datagram that cannot be read costs nothing but itself."""

    def __init__(self, transport: RTCIceTransport, certificates: list[RTCCertificate]) -> None:
        super().__init__(transport, certificates)
        self.closed_by_peer = False
        """Whether the peer has said goodbye (close_notify), which is signed."""
        self._sources: dict[bytes, None] = {}
        now = time.monotonic()
        self._new_sources = TokenBucket(_SOURCES_PER_S, MAX_SOURCES, now)
        self._reports = TokenBucket(_REPORTS_PER_S, REPORT_BURST, now)
        self._dtls = TokenBucket(_DTLS_PER_S, DTLS_BURST, now)

    def _set_state(self, state: State) -> None:
        """Take packets as they come from the moment at which there are keys for them, until either side ends."""
        connection: Any = self.transport._connection
        connection.on_media = self._take_packet if state is State.CONNECTED else None
        super()._set_state(state)

    async def stop(self) -> None:
        connection: Any = self.transport._connection
        connection.on_media = None
        await super().stop()

    def _take_packet(self, data: bytes) -> bool:
        """Take an SRTP packet in the socket's callback, without a queue, a task or a packet object of aiortc's. False
        for RTCP and DTLS, which are read in the transport's task. Raises what the receiver's sink raises."""
        if data[0] <= _LAST_RECORD_TYPE or is_rtcp(data):
            return False
        self._count(data)
        self._read_media(data)
        return True

    def _count(self, data: bytes) -> None:
        """Count a datagram that has come, as aiortc's statistics have it."""
        private: Any = self
        private._RTCDtlsTransport__rx_bytes += len(data)
        private._RTCDtlsTransport__rx_packets += 1

    async def _recv_next(self) -> None:
        """Wait for a datagram, or for a timer of the handshake. Raises ConnectionError at the end."""
        private: Any = self
        data: bytes | None
        if private._RTCDtlsTransport__handshake_done:
            data = await self.transport._recv()
        elif (data := await self._next_in_handshake()) is None:
            return
        self._count(data)
        try:
            if data[0] <= _LAST_RECORD_TYPE:
                if not self.encrypted or self._dtls.allow(time.monotonic()):
                    await self._on_records(data)
            elif self._rx_srtp:
                await self._on_packet(data)
        except _Over:
            raise
        except Exception as error:  # the border to peers: aiortc answers what is not as it should be with any exception
            FAULTS.on_useless(error)

    async def _next_in_handshake(self) -> bytes | None:
        """None when a timer of the handshake has run out; in DTLS 1.3 the last flight may be repeated after its end."""
        private: Any = self
        ssl: Any = self._ssl
        timeout_s: float | None = ssl.DTLSv1_get_timeout()
        if timeout_s is None:
            private._RTCDtlsTransport__handshake_done = self.encrypted
            return await self.transport._recv()
        try:
            async with asyncio.timeout(timeout_s):
                return await self.transport._recv()
        except TimeoutError:
            ssl.DTLSv1_handle_timeout()
            await self._write_ssl()
            return None

    async def _on_records(self, data: bytes) -> None:
        """Read all records of a datagram: what is left in OpenSSL's memory would stay there."""
        ssl: Any = self._ssl
        ssl.bio_write(data)
        try:
            while True:
                plain = ssl.recv(_MAX_RECORD_BYTES)
                if plain and self._data_receiver:
                    await self._data_receiver._handle_data(plain)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.closed_by_peer = self.encrypted
            raise _Over from None
        except SSL.Error:
            # A fatal alert. During the handshake, that fails with it.
            if self.encrypted and ssl.get_shutdown() & SSL.RECEIVED_SHUTDOWN:
                raise _Over from None
        finally:
            await self._write_ssl()

    async def _on_packet(self, data: bytes) -> None:
        """Read one that waited: RTCP, and media that came before there were keys or before its source was proven."""
        if not is_rtcp(data):
            self._read_media(data)
            return
        plain = self._unprotected(data, data[4:8], self._rx_srtp.unprotect_rtcp)
        if plain is not None and self._reports.allow(time.monotonic()):
            await self._handle_rtcp_data(plain)

    def _read_media(self, data: bytes) -> None:
        plain = self._unprotected(data, data[8:12], self._rx_srtp.unprotect)
        packet = None if plain is None else read_packet(plain)
        receiver: Any = None if packet is None else self._rtp_router.route_rtp(cast(RtpPacket, packet))
        if receiver is not None:
            receiver.take(packet)

    def _unprotected(self, data: bytes, source: bytes, unprotect: Callable[[bytes], bytes]) -> bytes | None:
        """Decrypt a packet. None if the peer has not protected it, or has sent it before, or if its source is new among
        too many."""
        known = source in self._sources
        if not known and not self._new_sources.allow(time.monotonic()):
            return None
        try:
            plain = unprotect(data)
        except pylibsrtp.Error:
            return None
        if not known:
            self._add_source(source)
        return plain

    def _add_source(self, source: bytes) -> None:
        """A peer that shows more than one now and then is at fault or at war; the oldest are forgotten."""
        self._sources[source] = None
        if len(self._sources) > MAX_SOURCES:
            oldest = next(iter(self._sources))
            del self._sources[oldest]
            self._rx_srtp.remove_stream(int.from_bytes(oldest, "big"))


class _Over(ConnectionError):
    """The peer has ended the connection."""

"""Data channels within bounds: aiortc's SCTP, for peers that may be faulty or hostile.

What is assumed of aiortc is said in ``tests/webrtc/test_aiortc_contract.py``.
"""

from __future__ import annotations

import contextlib
import time
from typing import Final

from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import DATA_CHANNEL_OPEN, WEBRTC_DCEP, Chunk, RTCSctpTransport
from OpenSSL import SSL

from rtc_server.system.rate_limit import TokenBucket
from rtc_server.webrtc.sctp_bounds import Association, chunks_of

MAX_CHANNELS: Final = 16
"""Data channels at a time; one is used."""
_CHUNKS_PER_S: Final = 200
_CHUNK_BURST: Final = 600
"""Chunks that are read, of messages and of all other kinds: what confirms our messages is not to suffer from theirs. A
conversation has some thirty a second; a client that comes back gets up to 256 events at once."""


class DataTransport(RTCSctpTransport):
    """aiortc's association, which drops what would cost others of this process their time."""

    def __init__(self, transport: RTCDtlsTransport) -> None:
        super().__init__(transport)
        now = time.monotonic()
        self._data_chunks = TokenBucket(_CHUNKS_PER_S, _CHUNK_BURST, now)
        self._other_chunks = TokenBucket(_CHUNKS_PER_S, _CHUNK_BURST, now)

    async def _handle_data(self, data: bytes) -> None:
        streams = self._inbound_streams
        fragments = sum(len(stream.reassembly) for stream in streams.values())
        association = Association(self._last_received_tsn, streams, len(streams), fragments)
        chunks = chunks_of(data, association)
        now = time.monotonic()
        if chunks is None or not self._data_chunks.allow(now, chunks.data):
            return
        if self._other_chunks.allow(now, chunks.others):
            await super()._handle_data(data)

    async def _send_chunk(self, chunk: Chunk) -> None:
        """Send, or lose what cannot be sent, as any network does. aiortc's timers and flushes are tasks without an
        owner, and would end in lines of log."""
        with contextlib.suppress(ConnectionError, SSL.Error):
            await super()._send_chunk(chunk)

    async def _data_channel_receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        opens = pp_id == WEBRTC_DCEP and data[:1] == bytes([DATA_CHANNEL_OPEN])
        if not opens or len(self._data_channels) < MAX_CHANNELS:
            await super()._data_channel_receive(stream_id, pp_id, data)

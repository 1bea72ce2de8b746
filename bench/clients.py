"""The measuring client for whatever a server is called by: WebRTC in some dialect, or the WebSocket of a door."""

from __future__ import annotations

from bench.rtp_client import RtpClient
from bench.socket_client import SocketClient
from bench.tape import Tape
from bench.wires import WIRES


def make_client(url: str, way: str, tape: Tape, pieces: int = 1, drift_ppm: float = 0.0) -> RtpClient | SocketClient:
    """``way``: a name in :data:`bench.dialects.DIALECTS` or :data:`bench.wires.WIRES`. ``pieces``: of 20 ms, in a
    message of a WebSocket."""
    if way in WIRES:
        return SocketClient(url, way, tape, pieces, drift_ppm)
    return RtpClient(url, way, tape, drift_ppm)

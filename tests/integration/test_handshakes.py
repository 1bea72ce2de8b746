"""Certificates of all kinds through the whole server, and what is said of a handshake that fails."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiortc import RTCConfiguration, RTCSessionDescription
from aiortc.rtcdtlstransport import generate_certificate
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lab.waiting import until
from rtc_server.app import Server
from rtc_server.protocols.events import CHANNEL_LABEL
from rtc_server.webrtc.dtls import Certificate
from rtc_server.webrtc.transceivers import LeanPeerConnection
from tests.conftest import running_server
from tests.support.calls import get_json
from tests.support.leftovers import leaves_nothing


@contextlib.asynccontextmanager
async def client_with(key: Any) -> AsyncIterator[LeanPeerConnection]:
    """A client with a certificate of this key. The server answers ``active``: the client is the DTLS server."""
    pc: Any = LeanPeerConnection(RTCConfiguration(iceServers=[]))
    pc._RTCPeerConnection__certificates = [Certificate(key, generate_certificate(key))]
    pc.addTransceiver("audio")
    pc.createDataChannel(CHANNEL_LABEL)
    try:
        await pc.setLocalDescription(await pc.createOffer())
        yield pc
    finally:
        await pc.close()


@contextlib.asynccontextmanager
async def closing(pc: LeanPeerConnection) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await pc.close()


async def offer(url: str, pc: LeanPeerConnection, sdp: str | None = None) -> str:
    """Offer and take the answer; gives the session's id."""
    body = {"sdp": sdp or pc.localDescription.sdp, "type": "offer"}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/api/offer", json=body) as response:
        answer = await response.json()
        assert response.status == 201, answer
    await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
    return str(answer["session"])


async def test_a_client_with_an_rsa_certificate_connects_as_dtls_server(server: Server, base_url: str) -> None:
    """GStreamer, ESP32, and ``RTCPeerConnection.generateCertificate`` for RSA in browsers."""
    key = rsa.generate_private_key(65537, 2048)
    async with leaves_nothing(server), client_with(key) as pc:
        await offer(base_url, pc)
        assert pc._dtls_transports()[0]._role == "server"
        await until(lambda: pc.connectionState == "connected", "the connection")


async def test_a_handshake_that_fails_says_why(server: Server, base_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """In the log, in one line with the session's id and nothing private; and to the client that asks."""
    caplog.set_level(logging.INFO)
    async with leaves_nothing(server), client_with(ec.generate_private_key(ec.SECP256R1())) as pc:
        sdp = pc.localDescription.sdp
        sha_256 = next(line for line in sdp.splitlines() if line.startswith("a=fingerprint:sha-256"))
        lines = [line for line in sdp.splitlines() if not line.startswith("a=fingerprint:")]
        wrong = [*lines, "a=fingerprint:sha-256 " + ":".join(["AB"] * 32)]
        at = next(i for i, line in enumerate(wrong) if line.startswith("m="))
        wrong.insert(at, wrong.pop())
        session = await offer(base_url, pc, "\r\n".join(wrong) + "\r\n")
        await until(lambda: not len(server.registry), "the session's end")
        status, body = await get_json(f"{base_url}/api/sessions/{session}")
    assert (status, body["error"]["code"]) == (410, "session_ended")
    assert "handshake_failed" in body["error"]["message"]
    assert "a=fingerprint" in body["error"]["message"]
    (line,) = [record for record in caplog.records if "DTLS" in record.getMessage()]
    assert line.levelno == logging.WARNING
    assert line.name == "rtc_server.webrtc.peer"
    assert line.getMessage().startswith("session 0-0-")
    assert sha_256.split(" ")[1] not in caplog.text


async def test_a_handshake_that_neither_side_begins_says_so() -> None:
    """A client that does not go by the answer: both wait. That is no matter of ports and relays."""
    async with (
        running_server("--model", "echo", "--connect-timeout-s", "3") as server,
        leaves_nothing(server),
        client_with(ec.generate_private_key(ec.SECP256R1())) as pc,
    ):
        url = f"http://127.0.0.1:{server.port}"
        body = {"sdp": pc.localDescription.sdp.replace("a=setup:actpass", "a=setup:active"), "type": "offer"}
        async with aiohttp.ClientSession() as http, http.post(f"{url}/api/offer", json=body) as response:
            answer = await response.json()
        assert "a=setup:passive" in answer["sdp"]
        stubborn = answer["sdp"].replace("a=setup:passive", "a=setup:active")
        await pc.setRemoteDescription(RTCSessionDescription(stubborn, "answer"))
        await until(lambda: not len(server.registry), "the session's end")
        status, refusal = await get_json(f"{url}/api/sessions/{answer['session']}")
    assert status == 410
    assert "handshake_failed" in refusal["error"]["message"]
    assert "a=setup" in refusal["error"]["message"]


async def test_a_client_that_takes_short_messages_alone_is_sent_no_others(
    server: Server, base_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 8841, section 6: "the maximum size" that it takes. It costs the client its events, and is no fault."""
    pc, messages = LeanPeerConnection(RTCConfiguration(iceServers=[])), list[str]()
    async with leaves_nothing(server), closing(pc):
        pc.addTransceiver("audio")
        channel = pc.createDataChannel(CHANNEL_LABEL)
        channel.on("message", messages.append)
        await pc.setLocalDescription(await pc.createOffer())
        sdp = re.sub(r"a=max-message-size:\d+", "a=max-message-size:60", pc.localDescription.sdp)
        await offer(base_url, pc, sdp)
        await until(lambda: channel.readyState == "open", "the channel")
        channel.send('{"type": "settings", "stats_interval_ms": 250}')
        (session,) = server.registry
        report = session._told
        figures = report._published
        await until(lambda: report._published is not figures, "figures that are too long")
        channel.send('{"type": "ping", "id": 1}')
        await until(lambda: bool(messages), "an answer that is short enough")
        assert all(len(message) <= 60 for message in messages)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

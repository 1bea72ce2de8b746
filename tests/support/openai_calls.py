"""Clients of OpenAI's protocols over WebRTC that send and keep events: a tone or words go out, a voice comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from lab.sound.tones import Ear
from lab.waiting import until
from rtc_server.app import Server
from tests.support.calls import TapeTrack, listen

CALLS = "/v1/realtime/calls"
SESSIONS = "/v1/live/sessions"
SDP = {"Content-Type": "application/sdp"}


class Caller:
    """``events``: what came on the data channel. ``location``: of the call, as the answer has it."""

    def __init__(self, pc: RTCPeerConnection) -> None:
        self.pc = pc
        self.events: list[dict[str, Any]] = []
        self.ear = Ear()
        self.location = ""
        self.channel = pc.createDataChannel("oai-events")
        self.channel.on("message", lambda message: self.events.append(json.loads(message)))

    @property
    def id(self) -> str:
        """As OpenAI's clients find it."""
        return self.location.rsplit("/", 1)[-1]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def text(self) -> str:
        """What the model has written, at the door without turns."""
        return "".join(event["delta"] for event in self.all("session.output_transcript.delta"))

    def all(self, type_: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == type_]

    def last(self, type_: str) -> dict[str, Any]:
        return self.all(type_)[-1]

    def send(self, type_: str, **fields: Any) -> None:
        self.channel.send(json.dumps({"type": type_, **fields}))

    async def comes(self, type_: str) -> dict[str, Any]:
        """The last event of a type, when there is one."""
        await until(lambda: type_ in self.types, type_)
        return self.last(type_)


def form(sdp: str, session: Any) -> dict[str, Any]:
    """A Realtime call's offer with its settings, as OpenAI's client in Python sends it."""
    data = aiohttp.FormData()
    data.add_field("sdp", sdp, content_type="application/sdp")
    settings = session if isinstance(session, str) else json.dumps(session)
    data.add_field("session", settings, content_type="application/json")
    return {"data": data}


async def post(server: Server, path: str, **request: Any) -> tuple[int, Mapping[str, str], str]:
    """Status, headers and body."""
    url = f"http://127.0.0.1:{server.port}{path}"
    async with aiohttp.ClientSession() as http, http.post(url, **request) as response:
        return response.status, response.headers, await response.text()


@contextlib.asynccontextmanager
async def realtime_call(
    server: Server,
    session: dict[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    path: str = CALLS,
    track: MediaStreamTrack | None = None,
) -> AsyncIterator[Caller]:
    """In a call of OpenAI Realtime. ``session``: sent in a form with the offer. ``track``: a microphone in place of
    a tone."""
    async with _caller(track) as caller:
        sdp = caller.pc.localDescription.sdp
        request: dict[str, Any] = {"data": sdp, "headers": {**SDP, **(headers or {})}}
        if session is not None:
            request = {**form(sdp, session), "headers": headers}
        status, answered, answer = await post(server, path, **request)
        assert status == 201, answer
        assert answered["Content-Type"].startswith("application/sdp")
        await _connect(caller, answered["Location"], answer)
        yield caller


@contextlib.asynccontextmanager
async def live_call(server: Server, headers: Mapping[str, str] | None = None, **session: Any) -> AsyncIterator[Caller]:
    """In a session of OpenAI Live, which is as ``session`` says."""
    async with _caller() as caller:
        body = {
            "session": {"model": "gpt-live-1"} | session,
            "transport": {"type": "webrtc", "sdp": caller.pc.localDescription.sdp},
        }
        status, answered, text = await post(server, SESSIONS, json=body, headers=headers)
        assert status == 201, text
        answer = json.loads(text)
        await _connect(caller, answered["Location"], answer["transport"]["sdp"])
        assert caller.id == answer["session"]["id"]
        yield caller


@contextlib.asynccontextmanager
async def _caller(track: MediaStreamTrack | None = None) -> AsyncIterator[Caller]:
    """With a track, or a tone of 440 Hz, and its offer made."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTrack(track or TapeTrack(440))
    caller = Caller(pc)
    hearing: list[asyncio.Task[None]] = []
    pc.on("track", lambda track: hearing.append(asyncio.create_task(listen(track, caller.ear))))
    try:
        await pc.setLocalDescription(await pc.createOffer())
        yield caller
    finally:
        await pc.close()
        await asyncio.gather(*hearing, return_exceptions=True)


async def _connect(caller: Caller, location: str, sdp: str) -> None:
    caller.location = location
    await caller.pc.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

"""A client of WHIP (RFC 9725) and WHEP: a connection by one POST, and the resource that it has made."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urljoin

import aiohttp
from aiortc import RTCPeerConnection, RTCSessionDescription

from lab.waiting import until
from rtc_server.protocols.trickle import SDPFRAG_TYPE

SDP: Final = "application/sdp"


class Resource:
    """What a POST has made: the URL of it, and the answer's headers."""

    def __init__(self, http: aiohttp.ClientSession, response: aiohttp.ClientResponse) -> None:
        self.http = http
        self.headers = response.headers
        self.url = urljoin(str(response.url), response.headers["Location"])
        self.id = self.url.rsplit("/", 1)[1]

    async def patch(self, data: str, kind: str = SDPFRAG_TYPE, **headers: str) -> tuple[int, str | None]:
        sent = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.http.patch(self.url, data=data, headers=sent) as response:
            return response.status, (await response.json())["code"] if response.status >= 400 else None

    async def delete(self) -> int:
        async with self.http.delete(self.url) as response:
            return response.status


@contextlib.asynccontextmanager
async def posted(url: str, path: str, pc: RTCPeerConnection) -> AsyncIterator[Resource]:
    """A connection that offers by POST, until it is left. Raises AssertionError if what it gets is no resource."""
    try:
        await pc.setLocalDescription(await pc.createOffer())
        async with aiohttp.ClientSession() as http:
            headers = {"Content-Type": SDP}
            async with http.post(url + path, data=pc.localDescription.sdp, headers=headers) as response:
                assert (response.status, response.content_type) == (201, SDP), await response.text()
                resource = Resource(http, response)
                await pc.setRemoteDescription(RTCSessionDescription(await response.text(), "answer"))
            # One that is closed before leaves a task of aiortc's behind.
            await until(lambda: pc.connectionState == "connected", "the connection")
            yield resource
            await resource.delete()
    finally:
        await pc.close()

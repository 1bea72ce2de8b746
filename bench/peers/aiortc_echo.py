"""Bare aiortc as an echo server: each peer is sent back the track that it sends, with nothing in between.

Run by the Python of its own environment: ``python aiortc_echo.py PORT``. Uses aiortc's public API only.
"""

from __future__ import annotations

import sys

from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

PEERS = web.AppKey("peers", set[RTCPeerConnection])


async def offer(request: web.Request) -> web.Response:
    body = await request.json()
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peers = request.app[PEERS]
    peers.add(pc)

    @pc.on("track")
    def on_track(track: MediaStreamTrack) -> None:
        pc.addTrack(track)

    @pc.on("connectionstatechange")
    async def on_state() -> None:
        if pc.connectionState in ("failed", "closed"):
            peers.discard(pc)
            await pc.close()

    await pc.setRemoteDescription(RTCSessionDescription(body["sdp"], body["type"]))
    await pc.setLocalDescription(await pc.createAnswer())
    return web.json_response({"sdp": pc.localDescription.sdp, "type": pc.localDescription.type})


async def close_all(app: web.Application) -> None:
    peers = app[PEERS]
    for pc in list(peers):
        await pc.close()


def main() -> None:
    app = web.Application()
    app[PEERS] = set()
    app.router.add_post("/offer", offer)
    app.on_shutdown.append(close_all)
    port = int(sys.argv[1])
    web.run_app(
        app, host="127.0.0.1", port=port, access_log=None, print=lambda _: print(f"http://localhost:{port}", flush=True)
    )


if __name__ == "__main__":
    main()

"""FastRTC as an echo server: an asynchronous handler that emits what it receives, mounted on FastAPI.

Run by the Python of its own environment: ``python fastrtc_echo.py PORT``. The handler keeps FastRTC's defaults
(mono, 48 kHz in, 24 kHz out).
"""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from fastapi import FastAPI
from fastrtc import AsyncStreamHandler, Stream, wait_for_item


class Echo(AsyncStreamHandler):
    def __init__(self) -> None:
        super().__init__()
        self._heard = asyncio.Queue()

    async def receive(self, frame) -> None:
        self._heard.put_nowait(frame)

    async def emit(self):
        return await wait_for_item(self._heard)

    def copy(self) -> Echo:
        return Echo()


def main() -> None:
    stream = Stream(
        Echo(),
        modality="audio",
        mode="send-receive",
        concurrency_limit=1000,
        server_rtc_configuration={"iceServers": []},
    )
    app = FastAPI()
    stream.mount(app)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()

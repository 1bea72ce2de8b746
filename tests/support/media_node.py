"""A media server whose engine is another process, and a client of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lab.engine_process import EngineProcess, key_file
from lab.serving import started
from lab.sound.tones import Ear
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.config import Settings
from tests.support.script import Speaker


@contextlib.asynccontextmanager
async def media_server(engine: EngineProcess, directory: Path, service: str) -> AsyncIterator[Server]:
    """In this process, with the engine for its ``service``; however late its loop is on a machine with other work."""
    settings: dict[str, Any] = {"dialogue": {"stt": "none"}, "echo": {"model": "echo"}}[service]
    key, at = str(key_file(directory)), (f"{service}={engine.address}",)
    server = Server(Settings(port=0, engine_at=at, cluster_key=key, drain_s=0, max_lag_ms=100_000, **settings))
    async with started(server):
        yield server


def talk_to(server: Server, *, service: str | None = None, speaker: Speaker) -> VoiceClient:
    return VoiceClient(f"http://127.0.0.1:{server.port}", speaker, service=service, on_voice=Ear())

"""The documents' example with curl runs as it stands there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from lab.sound.tones import Ear, pitch_hz, tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import MicrophoneTrack
from tests.conftest import need_commands
from tests.support.calls import listen
from tests.support.docs_examples import HZ, RUN_S
from tests.support.leftovers import leaves_nothing
from tests.test_docs import blocks

pytestmark = pytest.mark.alone


class Shell:
    """Bash, as somebody would use it who tries the commands one after the other."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def __call__(self, commands: str) -> str:
        """What they print. Raises AssertionError when one of them fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{commands}\necho; echo done\n".encode())
        said = b""
        async with asyncio.timeout(RUN_S):
            async for line in self._process.stdout:
                if line == b"done\n":
                    return said.decode()
                said += line
        raise AssertionError(f"it ended: {said.decode()}")


@contextlib.asynccontextmanager
async def shell(where: Path, **environment: str) -> AsyncIterator[Shell]:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-s"),
        cwd=where,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Shell(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def offer_of(pc: RTCPeerConnection) -> str:
    await pc.setLocalDescription(await pc.createOffer())
    sdp: str = pc.localDescription.sdp
    return sdp


async def answered(pc: RTCPeerConnection, sdp: str) -> None:
    await pc.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
    await until(lambda: pc.connectionState == "connected", "a connection")


async def test_curl_publishes_listens_and_hangs_up(server: Server, base_url: str, tmp_path: Path) -> None:
    """By WHIP and WHEP: what it says is heard, and nothing is left of either."""
    need_commands("curl", "bash")
    publish, trickle, hear, hang_up = blocks("sh")
    voice, ear = RTCPeerConnection(RTCConfiguration(iceServers=[])), Ear()
    player = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    voice.addTransceiver(MicrophoneTrack(tone(HZ)), direction="sendonly")
    player.addTransceiver("audio", direction="recvonly")
    listening: list[asyncio.Task[None]] = []
    player.on("track", lambda track: listening.append(asyncio.create_task(listen(track, ear))))
    async with leaves_nothing(server), shell(tmp_path, SERVER=base_url, KEY="a-key") as bash:
        try:
            (tmp_path / "offer.sdp").write_text(await offer_of(voice), newline="")
            await bash(publish)
            await answered(voice, (tmp_path / "answer.sdp").read_text())
            session, etag = (await bash('echo "$SESSION $ETAG"')).split()
            assert session == f"../whip/echo/{next(iter(server.registry)).id.text}"
            assert json.loads(etag)  # a strong tag: in quotation marks
            await bash(trickle)
            (tmp_path / "listen.sdp").write_text(await offer_of(player), newline="")
            await bash(hear)
            await answered(player, (tmp_path / "listen-answer.sdp").read_text())
            await ear.until_voice()
            await ear.hear(1.0)
            assert pitch_hz(ear.last(0.5)) == pytest.approx(HZ, abs=3)
            await bash(hang_up)
            await until(lambda: not len(server.registry), "the session's end")
        finally:
            await voice.close()
            await player.close()
            await asyncio.gather(*listening)

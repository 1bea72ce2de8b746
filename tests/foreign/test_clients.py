"""Clients that nobody here wrote do the echo proof: libwebrtc, werift, GStreamer, FFmpeg, and whip-whep in Chromium."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc.rtcdtlstransport import generate_certificate
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.async_api import Page, Route

from lab.browsers.chromium import chromium
from lab.sound.tones import TONE_LEVEL, pitch_hz, tone_dbfs
from lab.waiting import until
from rtc_server import audio
from rtc_server.app import Server
from rtc_server.media.inbound import InboundStream
from rtc_server.media.opus import PACKET_TICKS, make_encoder
from tests.conftest import need_commands
from tests.support.calls import get_json
from tests.support.leftovers import leaves_nothing
from tests.support.missing import skip_but_in_ci

pytestmark = pytest.mark.alone

HERE = Path(__file__).parent
JS = HERE / "js"
SYSTEM_PYTHON = "/usr/bin/python3"
"""Has the bindings of Debian's GStreamer; a virtual environment's has not."""
RUN_S = 45.0


def need_package(name: str) -> None:
    """Skip, or in CI fail, where npm has not installed it."""
    need_commands("node")
    if not (JS / "node_modules" / name).is_dir():
        reason = f"needs npm's {name} (make clients installs it)"
        skip_but_in_ci(reason)


def need_gstreamer() -> None:
    """Skip, or in CI fail, where Debian's packages are missing."""
    found = Path(SYSTEM_PYTHON).exists() and subprocess.run(
        [SYSTEM_PYTHON, HERE / "gst_echo.py"], capture_output=True, text=True, check=False
    )
    if not found or found.returncode != 0:
        reason = "needs GStreamer with webrtcbin and its Python bindings (make system installs it, or says how)"
        skip_but_in_ci(reason)


async def node(script: str, *arguments: str, given: str = "") -> dict[str, Any]:
    """What a script prints."""
    return await run("node", str(JS / script), *arguments, given=given)


async def run(*command: str, given: str = "") -> dict[str, Any]:
    """The JSON that a command prints."""
    process = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1, stderr=-1, cwd=JS)
    try:
        async with asyncio.timeout(RUN_S):
            out, error = await process.communicate(given.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, error.decode()
    result: dict[str, Any] = json.loads(out)
    return result


async def test_libwebrtc_hears_its_own_tone(server: Server, base_url: str) -> None:
    """By /api/offer, with candidates that follow."""
    need_package("@roamhq/wrtc")
    async with leaves_nothing(server):
        result = await node("wrtc_echo.js", base_url, "440")
    assert result["hz"] == pytest.approx(440, rel=0.01)
    assert result["dbfs"] == pytest.approx(20 * np.log10(0.25 / np.sqrt(2)), abs=3)
    assert (result["connected"]["service"], result["deleted"]) == ("echo", 204)


async def test_werift_hears_its_own_tone(server: Server, base_url: str) -> None:
    """By WHIP, both ways. It brings no codec: the packets are ours, what happens to them on the way is not."""
    need_package("werift")
    hz, count = 400, 100  # whole periods in 20 ms: the tone goes on from the last packet to the first
    encoder = make_encoder(32_000)
    angle = 2 * np.pi * hz * np.arange(count * audio.PACKET_SAMPLES) / audio.MODEL_RATE_HZ
    sine = (TONE_LEVEL * np.sin(angle)).astype(np.float32)
    packets = [encoder.encode(block) for block in sine.reshape(count, audio.PACKET_SAMPLES)]
    given = {"packets": [base64.b64encode(packet).decode() for packet in packets], "wanted": 200}
    async with leaves_nothing(server):
        result = await node("werift_echo.js", f"{base_url}/whip/echo", given=json.dumps(given))
    assert (result["status"], result["deleted"]) == (201, 200)
    heard = result["heard"]
    steps = {(b["timestamp"] - a["timestamp"]) % 2**32 for a, b in pairwise(heard)}
    assert steps == {PACKET_TICKS}
    stream, pcm = InboundStream(0.0), []
    for number, packet in enumerate(heard):
        payload, now = base64.b64decode(packet["payload"]), number * audio.PACKET_MS / 1000
        pcm += stream.push("OPUS", 1, packet["sequence"], packet["timestamp"], payload, now)
    voice = np.concatenate(pcm)[audio.MODEL_RATE_HZ :]
    assert pitch_hz(voice) == pytest.approx(hz, abs=2)
    assert tone_dbfs(voice, hz) == pytest.approx(tone_dbfs(sine, hz), abs=2)


async def test_gstreamer_hears_its_own_tone(server: Server, base_url: str, tmp_path: Path) -> None:
    """By WHIP, both ways. Its certificate has an RSA key, and it is the DTLS server."""
    need_gstreamer()
    heard = tmp_path / "heard.pcm"
    async with leaves_nothing(server):
        result = await run(SYSTEM_PYTHON, str(HERE / "gst_echo.py"), f"{base_url}/whip/echo", "440", str(heard))
    assert result == {"status": 201, "deleted": 200, "state": "connected"}
    voice = (np.fromfile(heard, np.int16) / 32768).astype(np.float32)[-audio.MODEL_RATE_HZ :]
    assert pitch_hz(voice) == pytest.approx(440, abs=2)
    assert tone_dbfs(voice, 440) == pytest.approx(20 * np.log10(TONE_LEVEL / np.sqrt(2)), abs=2)


@contextlib.asynccontextmanager
async def ffmpeg(endpoint: str, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """PyAV's FFmpeg, publishing a tone."""
    if "whip" not in av.formats_available:
        pytest.skip("needs a PyAV whose FFmpeg has the WHIP muxer")
    script = str(HERE / "ffmpeg_whip.py")
    process = await asyncio.create_subprocess_exec(sys.executable, script, endpoint, *options, stdout=-1, stderr=-1)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("flags", [(), ("whip_flags=dtls_active",)], ids=["as DTLS server", "as DTLS client"])
async def test_ffmpeg_with_a_certificate_of_secp256r1_is_heard(
    server: Server, base_url: str, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """By WHIP, one way, as documented."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    no_password = serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password))
    (tmp_path / "cert.pem").write_bytes(generate_certificate(key).public_bytes(pem))
    options = (f"cert_file={tmp_path / 'cert.pem'}", f"key_file={tmp_path / 'key.pem'}", *flags)
    async with leaves_nothing(server):
        async with ffmpeg(f"{base_url}/whip/echo", *options):
            await until(lambda: bool(len(server.registry)), "the session")
            (call,) = server.registry
            await until(lambda: audio.level_dbfs(call._stats._last_in) > -20, "its tone")
            _, body = await get_json(f"{base_url}/api/sessions/{call.id.text}")
            assert body["stats"]["packets_received"] > 0
            assert body["stats"]["packets_bad"] == 0
        await server.admission.close()


@pytest.mark.parametrize("flags", [(), ("whip_flags=dtls_active",)], ids=["as DTLS server", "as DTLS client"])
async def test_ffmpeg_with_a_certificate_of_its_own_is_told_why_not(
    server: Server, base_url: str, flags: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Built with GnuTLS, as PyAV's is, it makes one on secp224r1, which OpenSSL 4 does not have for TLS."""
    async with leaves_nothing(server), ffmpeg(f"{base_url}/whip/echo", *flags) as process:
        await process.wait()
        await until(lambda: not len(server.registry), "the session's end")
    (line,) = [record.getMessage() for record in caplog.records if "DTLS" in record.getMessage()]
    assert "secp256r1" in line


# Publishes a tone by WHIP, plays it by WHEP, and measures what is played.
_WHIP_PAGE = """
import { WHIPClient } from '/foreign/whip.js';
import { WHEPClient } from '/foreign/whep.js';

window.run = async (hz) => {
  const context = new AudioContext({ sampleRate: 48000 });
  await context.resume();
  const tone = new OscillatorNode(context, { frequency: hz });
  const out = new MediaStreamAudioDestinationNode(context);
  tone.connect(new GainNode(context, { gain: 0.25 })).connect(out);
  tone.start();

  const publisher = new RTCPeerConnection();
  publisher.addTransceiver(out.stream.getAudioTracks()[0], { direction: 'sendonly' });
  const whip = new WHIPClient();
  await whip.publish(publisher, new URL('/whip/echo', location).href, 'no-token');

  const viewer = new RTCPeerConnection();
  viewer.addTransceiver('audio', { direction: 'recvonly' });
  const arrived = new Promise((resolve) => { viewer.ontrack = ({ track }) => resolve(track); });
  const whep = new WHEPClient();
  const session = whip.resourceURL.pathname.split('/').at(-1);
  await whep.view(viewer, new URL(`/whep/${session}`, location).href, 'no-token');
  const stream = new MediaStream([await arrived]);
  const element = new Audio();
  element.srcObject = stream; // Chromium decodes what an element plays
  await element.play();
  const meter = new AnalyserNode(context, { fftSize: 32768 });
  context.createMediaStreamSource(stream).connect(meter);
  const spectrum = new Float32Array(meter.frequencyBinCount);

  const measure = () => {
    meter.getFloatFrequencyData(spectrum);
    const peak = spectrum.indexOf(Math.max(...spectrum));
    const states = [publisher, viewer].map((pc) => pc.connectionState);
    return { hz: (peak * 48000) / 32768, db: spectrum[peak], states };
  };
  window.heard = measure;
  window.leave = async () => {
    await whep.stop();
    await whip.stop();
  };
};
window.ready = true;
"""


async def _serve_files(page: Page, base: str) -> None:
    """The package's files, as if the server's page had them."""

    async def give(route: Route) -> None:
        name = route.request.url.rsplit("/", 1)[1]
        if name == "page.html":
            html = '<!doctype html><script type="module" src="/foreign/page.js"></script>'
            await route.fulfill(content_type="text/html", body=html)
        elif name == "page.js":
            await route.fulfill(content_type="text/javascript", body=_WHIP_PAGE)
        else:
            await route.fulfill(
                content_type="text/javascript", body=(JS / "node_modules" / "whip-whep" / name).read_text()
            )

    await page.route(f"{base}/foreign/*", give)


@pytest.mark.browser
async def test_whip_whep_in_chromium_publishes_and_plays(server: Server) -> None:
    need_package("whip-whep")
    need_commands("chromium")
    base = f"http://localhost:{server.port}"
    async with leaves_nothing(server), chromium() as browser:
        page = await browser.new_page()
        await _serve_files(page, base)
        await page.goto(f"{base}/foreign/page.html")
        await page.wait_for_function("window.ready")
        await page.evaluate("run(440)")
        await page.wait_for_function("Math.abs(heard().hz - 440) < 3 && heard().db > -40", timeout=20_000)
        assert await page.evaluate("heard().states") == ["connected", "connected"]
        await page.evaluate("leave()")

"""Chromium talks to the echo through a real coturn: by each transport, across networks without a route between them,
and with a plain word where the relay does not let it in."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.async_api import Page

from lab.browsers.chromium import (
    chromium,
    local_url,
    opened_page,
    record,
    start_talking,
    wait_for_state,
)
from lab.network.coturn import Relay, free_port, running_relay, wait_until_listening
from lab.sound.likeness import longest_gap_ms, pitch_ratio, steady_likeness
from lab.speech.clips import SPEECH_HZ, speak, write_wav
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands, running_server
from tests.support.namespaces import Chain, chain_of_namespaces
from tests.support.server_process import ROOT, server_process

pytestmark = [*IN_A_BROWSER, pytest.mark.timeout(240), pytest.mark.alone]


SENTENCE = "The quick brown fox jumps over the lazy dog while seven wizards quietly brew strong black coffee."


RECORD_S = 6.0


ATTEMPTS = 8


_PATH = """
async () => {
  const report = await window.__voice.pc.getStats();
  const all = [...report.values()];
  const { selectedCandidatePairId } = all.find(({ type }) => type === 'transport');
  const local = report.get(report.get(selectedCandidatePairId).localCandidateId);
  return [local.candidateType, local.relayProtocol];
}
"""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    need_commands("turnserver", "chromium")
    with running_relay(tmp_path_factory.mktemp("relay"), tls=True) as running:
        yield running


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_commands("espeak-ng")
    return write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", speak(SENTENCE))


async def expect_whole_echo(page: Page) -> None:
    """What is played is what was said: correlation above 0.8, no gap over 40 ms, pitch unchanged.

    A machine that has other things to do makes holes that say nothing of the path, and Chromium stretches time in the
    first seconds: a path that spoils the sound does so in each of the attempts.
    """
    for attempt in range(ATTEMPTS):
        recording = await record(page, RECORD_S)
        said, played = recording.said[SPEECH_HZ // 2 :], recording.played[SPEECH_HZ // 2 :]
        try:
            likeness = steady_likeness(said, played, SPEECH_HZ)
            assert likeness.correlation > 0.8
            assert 0 < likeness.delay_ms < 600
            assert longest_gap_ms(said, played, SPEECH_HZ, likeness.delay_ms) <= 40
            assert pitch_ratio(said, played, SPEECH_HZ, likeness.delay_ms) == pytest.approx(1.0, abs=0.01)
        except AssertionError:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return


def trusting(certificate: Path) -> str:
    """A command-line argument of Chromium: this certificate may be self-signed."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return f"--ignore-certificate-errors-spki-list={base64.b64encode(digest).decode()}"


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_the_echo_through_the_relay(relay: Relay, spoken: Path, transport: str) -> None:
    """The same proof as without a relay; and it was the relay, by that transport."""
    async with (
        running_server("--model", "echo", *relay.server_options(transport)) as server,
        chromium(spoken, further=[trusting(relay.certificate)]) as browser,
        opened_page(browser, local_url(server, "?raw=1&relay=1")) as page,
    ):
        await start_talking(page)
        await wait_for_state(page, "speaking")
        assert await page.evaluate(_PATH) == ["relay", transport]
        await expect_whole_echo(page)


@pytest.fixture
def chain() -> Iterator[Chain]:
    need_commands("turnserver", "chromium")
    with chain_of_namespaces() as made:
        yield made


async def test_two_networks_without_a_route_between_them(chain: Chain, spoken: Path, tmp_path: Path) -> None:
    """Browser and server reach a relay and nothing further; the page comes through a proxy that stands there too."""
    browser_side, middle, server_side = chain.left, chain.middle, chain.right
    assert "unreachable" in browser_side.run("ip", "route", "get", server_side.address["middle"]).stderr
    assert "unreachable" in server_side.run("ip", "route", "get", browser_side.address["middle"]).stderr
    port = free_port()
    inside, outside = middle.address["right"], middle.address["left"]
    with running_relay(
        tmp_path,
        *("--turn-relay-ip", inside, "--turn-peers", server_side.address["middle"]),
        host=outside,
        within=middle.within,
    ) as relay:
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(
                server_process(
                    *("--model", "echo", "--host", "0.0.0.0", "--allow-anonymous"),
                    *relay.server_options("udp", "tcp"),
                    within=server_side.within,
                )
            )
            await server.wait_ready()
            there = f"{server_side.address['middle']}:{server.url.rpartition(':')[2]}"
            stack.enter_context(forwarding(middle.within, f"{outside}:{port}", there, tmp_path / "proxy.log"))
            page_url = f"http://{outside}:{port}"
            browser = await stack.enter_async_context(
                chromium(
                    spoken,
                    further=[f"--unsafely-treat-insecure-origin-as-secure={page_url}"],
                    program=browser_side.wrapper(tmp_path, "/usr/bin/chromium"),
                )
            )
            page = await stack.enter_async_context(opened_page(browser, f"{page_url}/?raw=1"))
            await start_talking(page)
            await wait_for_state(page, "speaking")
            assert (await page.evaluate(_PATH))[0] == "relay"
            await expect_whole_echo(page)


@contextlib.contextmanager
def forwarding(within: list[str], listen: str, to: str, log: Path) -> Iterator[None]:
    """A proxy in front of a server."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*within, sys.executable, "-m", "tests.support.tcp_forward", listen, to],
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until_listening(process, int(listen.rpartition(":")[2]), ["tcp"], log)
        yield
    finally:
        process.terminate()
        process.wait()

"""Chromium with certificates that pages may ask for: ``RTCPeerConnection.generateCertificate`` (W3C WebRTC)."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser

from lab.browsers.chromium import visited_page
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.support.leftovers import leaves_nothing

pytestmark = IN_A_BROWSER

KEYS = {
    "ecdsa": "{ name: 'ECDSA', namedCurve: 'P-256' }",
    "rsa": """{
      name: 'RSASSA-PKCS1-v1_5', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256',
    }""",
}

CONNECT = """async () => {
  const certificate = await RTCPeerConnection.generateCertificate(%s);
  const pc = new RTCPeerConnection({ certificates: [certificate] });
  pc.addTransceiver('audio');
  const channel = pc.createDataChannel('text');
  const first = new Promise((resolve) => { channel.onmessage = ({ data }) => resolve(JSON.parse(data).type); });
  const gathered = new Promise((resolve) => { pc.onicecandidate = ({ candidate }) => candidate ?? resolve(); });
  await pc.setLocalDescription();
  await gathered;
  const response = await fetch('/api/offer', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ sdp: pc.localDescription.sdp, type: 'offer' }),
  });
  const { sdp, type } = await response.json();
  await pc.setRemoteDescription({ sdp, type });
  const heard = await first;
  channel.send(JSON.stringify({ type: 'bye' }));
  return { heard, active: sdp.includes('a=setup:active') };
}"""


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
async def test_a_page_connects_with_a_certificate_of_its_choice(browser: Browser, server: Server, key: str) -> None:
    """The server answers ``active``: Chromium is the DTLS server, whose key the cipher suite has to fit."""
    url = f"http://localhost:{server.port}/healthz"
    async with leaves_nothing(server), visited_page(browser, url, tolerate=("favicon", "Failed to load")) as page:
        assert await page.evaluate(CONNECT % key) == {"heard": "connected", "active": True}

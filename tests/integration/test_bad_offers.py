"""What the HTTP door refuses, and how: the exact status and code, nothing left behind, and the next one is served.

Each refusal is looked at by itself; a whole call, which takes longer, comes after all of a kind at one server.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import random
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import aiohttp
import pytest
from aiortc import RTCSessionDescription

from lab.inputs.offers import bare
from lab.sound.tones import Ear, ends_in_tone
from lab.waiting import until
from rtc_server.app import Server
from tests.support.calls import TapeTrack, assert_serves, get_json, offering, track_client
from tests.support.leftovers import leaves_nothing

JSON = {"Content-Type": "application/json"}
KIB = 1024

Reply = tuple[int, str]


@pytest.fixture(autouse=True)
def no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client sends, neither the server nor what it is built on logs it as a mistake of its own."""
    yield
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    ours = ("rtc_server", "aiohttp", "asyncio")
    assert not [f"{record.name}: {record.getMessage()}" for record in faults if record.name.startswith(ours)]


async def _post(url: str, data: Any, headers: dict[str, str] = JSON) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as http:  # noqa: SIM117 - the session outlives the request
        async with http.post(f"{url}/api/offer", data=data, headers=headers) as response:
            return response.status, await response.json()


async def _raw(port: int, request: bytes) -> tuple[int, bytes]:
    """What a server says to these very bytes: no client library tidies them up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def _code(body: dict[str, Any]) -> str:
    """The code of an error, whose shape is checked by the way."""
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"code", "message", "retryable"}
    assert error["message"].endswith(".")
    assert isinstance(error["retryable"], bool)
    return error["code"]  # type: ignore[no-any-return]


async def _assert_idle(server: Server, url: str) -> None:
    assert len(server.registry) == 0
    status, body = await get_json(f"{url}/status")
    assert status == 200
    assert body["sessions"] == {}
    assert body["engines"]["echo"]["slots_used"] == 0


async def _assert_unharmed(server: Server, url: str) -> None:
    await _assert_idle(server, url)
    async with leaves_nothing(server):
        await assert_serves(url)


async def _assert_refused(server: Server, url: str, data: Any, expected: Reply, headers: Any = JSON) -> None:
    async with leaves_nothing(server):
        status, body = await _post(url, data, headers)
        assert (status, _code(body)) == expected
    await _assert_idle(server, url)


BAD_REQUEST: Reply = (400, "bad_request")
BAD_SDP: Reply = (400, "bad_sdp")


NOT_JSON: Final = {
    "empty": b"",
    "cut": b"{",
    "binary": b"\xff\xfe\x00",
    "sdp": b"v=0\r\n",
    "trailing": b'{"sdp": "v=0", "type": "offer"} x',
    "python": b"{'sdp': 'v=0'}",
    "not-utf-8": b'{"sdp": "\xff", "type": "offer"}',
    "lone-surrogate": b'{"sdp": "\\ud800", "type": "offer"}',
    "deep": b"[" * 30_000,
    "deep-objects": b'{"options":' * 4_000,
}


@pytest.mark.parametrize("raw", NOT_JSON.values(), ids=NOT_JSON)
async def test_a_body_that_is_not_json(server: Server, base_url: str, raw: bytes) -> None:
    await _assert_refused(server, base_url, raw, BAD_REQUEST)


NO_OBJECTS: Final = [[], "offer", 1, None, True, [{"sdp": "v=0", "type": "offer"}]]


@pytest.mark.parametrize("value", NO_OBJECTS, ids=repr)
async def test_json_that_is_not_an_object(server: Server, base_url: str, value: Any) -> None:
    await _assert_refused(server, base_url, json.dumps(value), BAD_REQUEST)


CHANGES: Final[list[dict[str, Any]]] = [
    {"sdp": ...},
    {"type": ...},
    {"sdp": None},
    {"sdp": 1},
    {"sdp": ["v=0"]},
    {"type": None},
    {"type": 0},
    {"type": "answer"},
    {"type": "pranswer"},
    {"type": "Offer"},
    {"service": 1},
    {"service": ["echo"]},
    {"options": None},
    {"options": []},
    {"options": "muted"},
    {"options": {"muted": "yes"}},
    {"options": {"muted": None}},
    {"options": {"stats_interval_ms": 249}},
    {"options": {"stats_interval_ms": 10_001}},
    {"options": {"stats_interval_ms": 250.5}},
    {"options": {"stats_interval_ms": "250"}},
    {"options": {"stats_interval_ms": 10**400}},
    {"options": {"voice": "alto"}},
    {"room": "a"},
    {"SDP": "v=0"},
]


def _changed(body: dict[str, Any], change: dict[str, Any]) -> str:
    """An offer with a field set, or without it where that is an ellipsis."""
    return json.dumps({key: value for key, value in {**body, **change}.items() if value is not ...})


@pytest.mark.parametrize("change", CHANGES, ids=repr)
async def test_a_field_that_is_missing_wrong_or_unknown(server: Server, base_url: str, change: dict[str, Any]) -> None:
    async with offering() as body:
        pass
    await _assert_refused(server, base_url, _changed(body, change), BAD_REQUEST)


async def test_the_sentence_names_the_field_and_not_its_value(server: Server, base_url: str) -> None:
    _, body = await _post(base_url, json.dumps({"sdp": "v=0", "type": "offer", "service": ["secret"]}))
    assert "service" in body["error"]["message"]
    assert "secret" not in body["error"]["message"]


NO_SDP: Final = [
    "",
    "\r\n",
    "hello",
    "v=0",
    "v=0\r\n",
    "v=1\r\ns=-\r\n",
    "v=0\r\nnonsense\r\n",
    "v=0\r\nm=audio\r\n",
    "\0",
    "é" * 99,
]


@pytest.mark.parametrize("sdp", NO_SDP, ids=ascii)
async def test_an_offer_that_is_no_sdp(server: Server, base_url: str, sdp: str) -> None:
    expected = (422, "no_audio") if sdp.strip() == "v=0" else BAD_SDP
    await _assert_refused(server, base_url, json.dumps({"sdp": sdp, "type": "offer"}), expected)


@pytest.mark.parametrize("cut", ["ice-ufrag", "ice-pwd", "fingerprint", "rtcp-mux"])
async def test_an_offer_without_what_a_connection_needs(server: Server, base_url: str, cut: str) -> None:
    """There can be no connection: better to say so, by name, than to let the client wait for it."""
    async with offering() as body:
        offer = json.dumps({"sdp": bare(body["sdp"], cut), "type": "offer"})
    await _assert_refused(server, base_url, offer, BAD_SDP)
    _, refusal = await _post(base_url, offer)
    assert f"a={cut}" in refusal["error"]["message"]


async def test_an_offer_with_a_broken_hash_alone(server: Server, base_url: str) -> None:
    """A certificate that only SHA-1 names cannot be trusted: it is said at the door, not by a handshake that fails."""
    async with offering() as body:
        sdp = bare(body["sdp"], "fingerprint").replace(
            "a=setup", f"a=fingerprint:sha-1 {':'.join(['AB'] * 20)}\r\na=setup"
        )
    offer = json.dumps({"sdp": sdp, "type": "offer"})
    await _assert_refused(server, base_url, offer, BAD_SDP)
    _, refusal = await _post(base_url, offer)
    assert "sha-256" in refusal["error"]["message"]


async def test_too_many_sections(server: Server, base_url: str) -> None:
    async with offering() as body:
        sdp = body["sdp"] + "m=audio 0 RTP/AVP 0\r\n" * 40
    await _assert_refused(server, base_url, json.dumps({"sdp": sdp, "type": "offer"}), BAD_SDP)


async def test_too_many_lines(server: Server, base_url: str) -> None:
    async with offering() as body:
        sdp = body["sdp"] + "a=x\r\n" * 5000
    await _assert_refused(server, base_url, json.dumps({"sdp": sdp, "type": "offer"}), BAD_SDP)


async def test_a_body_just_within_the_limit_is_read(server: Server, base_url: str) -> None:
    async with offering() as body:
        text = json.dumps(body)
    async with leaves_nothing(server):
        status, answer = await _post(base_url, text.ljust(64 * KIB - 1))
        assert status == 201
        await _delete(base_url, answer)


@pytest.mark.parametrize("size", [64 * KIB + 1, 128 * KIB, 4 * KIB * KIB])
async def test_a_body_that_is_too_large(server: Server, base_url: str, size: int) -> None:
    await _assert_refused(server, base_url, b" " * size, (413, "too_large"))


async def test_a_body_that_is_too_large_in_chunks(server: Server, base_url: str) -> None:
    """No content length says so beforehand."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(128):
            yield b" " * KIB

    await _assert_refused(server, base_url, chunks(), (413, "too_large"))


ENCODINGS: Final = ["gzip", "deflate", "br", "zstd", "x", "identity, gzip"]


@functools.cache
def _bomb() -> bytes:
    """64 MiB in 60 KiB."""
    return zlib.compress(b" " * (64 * KIB * KIB))[: 60 * KIB]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("large", [True, False], ids=["bomb", "not packed as it says"])
async def test_a_body_that_is_packed(server: Server, base_url: str, encoding: str, large: bool) -> None:
    """Nothing is unpacked, so there is nothing that unpacks to gigabytes, or to nothing."""
    body = _bomb() if large else b"no such thing"
    headers = {**JSON, "Content-Encoding": encoding}
    await _assert_refused(server, base_url, body, (415, "unsupported_media_type"), headers)


async def test_a_body_that_says_it_is_not_packed(server: Server, base_url: str) -> None:
    await _assert_refused(server, base_url, b"{", BAD_REQUEST, {**JSON, "Content-Encoding": "Identity"})


async def test_a_body_that_breaks_off(server: Server, base_url: str) -> None:
    """The client hangs up in mid-request: there is no one to answer, nothing is left, nothing is our fault."""
    async with leaves_nothing(server):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /api/offer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        writer.write(b'Content-Length: 5000\r\n\r\n{"sdp":')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    await _assert_unharmed(server, base_url)


KINDS: Final = ["text/plain", "application/sdp", "application/x-www-form-urlencoded", "x", ""]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_content_type(server: Server, base_url: str, kind: str) -> None:
    async with offering() as body:
        pass
    headers = {"Content-Type": kind}
    await _assert_refused(server, base_url, json.dumps(body), (415, "unsupported_media_type"), headers)


async def test_a_content_type_with_a_parameter_is_taken(server: Server, base_url: str) -> None:
    async with leaves_nothing(server), offering() as body:
        headers = {"Content-Type": "Application/JSON; charset=utf-8"}
        status, answer = await _post(base_url, json.dumps(body), headers)
        assert status == 201
        await _delete(base_url, answer)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/offer"),
        ("PUT", "/api/offer"),
        ("DELETE", "/api/offer"),
        ("PATCH", "/api/offer"),
        ("POST", "/api/sessions/x"),
        ("POST", "/healthz"),
        ("POST", "/"),
        ("DELETE", "/static/index.html"),
    ],
)
async def test_a_wrong_method(server: Server, base_url: str, method: str, path: str) -> None:
    async with aiohttp.ClientSession() as http, http.request(method, base_url + path) as response:
        assert response.status == 405
        assert _code(await response.json()) == "method_not_allowed"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_an_offer_without_audio(server: Server, base_url: str) -> None:
    async with offering(audio=False, video=True) as body:
        pass
    await _assert_refused(server, base_url, json.dumps(body), (422, "no_audio"))


async def test_an_offer_whose_audio_is_rejected(server: Server, base_url: str) -> None:
    async with offering() as body:
        sdp = re.sub(r"m=audio \d+", "m=audio 0", body["sdp"])
    await _assert_refused(server, base_url, json.dumps({"sdp": sdp, "type": "offer"}), (422, "no_audio"))


async def test_an_offer_of_unknown_codecs_only(server: Server, base_url: str) -> None:
    async with offering() as body:
        sdp = re.sub(r"(m=audio \d+ \S+) .*", r"\1 98 99", body["sdp"])
        sdp = re.sub(r"a=rtpmap:\d+ .*\r\n", "", sdp)
        sdp = sdp.replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtpmap:98 speex/16000\r\na=rtpmap:99 opus/16000\r\n", 1)
    await _assert_refused(server, base_url, json.dumps({"sdp": sdp, "type": "offer"}), (422, "no_common_codec"))


@pytest.mark.parametrize("position", [0, 1, 2])
async def test_video_beside_audio_is_declined_and_audio_works(server: Server, base_url: str, position: int) -> None:
    """The video section keeps its place in the answer, with port 0; the tone comes back all the same."""
    ear = Ear()
    async with offering(video=True, audio=False, channel=False) as body:
        (video,) = _sections(body["sdp"])[1:]
    async with leaves_nothing(server):
        client = track_client(base_url, TapeTrack(440), on_voice=ear)
        try:
            # aiortc, as a client, cannot take an answer that rejects a section: it does not know of the video.
            await client.pc.setLocalDescription(await client.pc.createOffer())
            head, *sections = _sections(client.pc.localDescription.sdp)
            sections.insert(position, video.replace("a=mid:0", "a=mid:camera"))
            mids = " ".join(re.findall(r"a=mid:(\S+)", "".join(sections)))
            offer = re.sub(r"a=group:BUNDLE .*", f"a=group:BUNDLE {mids}\r", head) + "".join(sections)
            status, answer = await _post(base_url, json.dumps({"sdp": offer, "type": "offer"}))
            assert status == 201
            head, *sections = _sections(answer["sdp"])
            kinds = ["audio", "application"]
            kinds.insert(position, "video")
            assert [section[2:].split(" ")[0] for section in sections] == kinds
            refused = sections.pop(position)
            assert refused.startswith("m=video 0 ")
            assert "a=mid:camera" in refused
            assert "camera" not in head
            assert all(section.split(" ")[1] != "0" for section in sections)
            description = RTCSessionDescription(head + "".join(sections), "answer")
            await client.pc.setRemoteDescription(description)
            await client.wait_for("connected")
            await until(lambda: ends_in_tone(ear.last(1.0), 440), "a second of the tone")
        finally:
            await client.close()
    await _assert_unharmed(server, base_url)


def _sections(sdp: str) -> list[str]:
    """A description cut into what stands before its first section, and its sections."""
    return re.split(r"^(?=m=)", sdp, flags=re.MULTILINE)


SERVICES: Final = ["nobody", "", "echo ", "ECHO", "../echo", "x" * 5000]


@pytest.mark.parametrize("service", SERVICES)
async def test_an_unknown_service(server: Server, base_url: str, service: str) -> None:
    async with offering() as body:
        pass
    await _assert_refused(server, base_url, json.dumps({**body, "service": service}), (404, "unknown_service"))


async def test_an_mdns_candidate_that_nobody_knows_delays_nothing(server: Server, base_url: str) -> None:
    """Browsers hide their addresses behind such names where they may not use the microphone."""
    name = "3f8a8f0e-5c0b-4c5f-9a51-6b1f2c1f8a00.local"
    async with offering() as body:
        sdp = re.sub(r"(a=candidate:\S+ \d+ udp \d+) \S+", rf"\1 {name}", body["sdp"])
    async with leaves_nothing(server), asyncio.timeout(10):
        status, answer = await _post(base_url, json.dumps({"sdp": sdp, "type": "offer"}))
        assert status == 201
        await _delete(base_url, answer)
    await _assert_unharmed(server, base_url)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api/nothing",
        "/api/sessions/",
        "/api/sessions/0-0-nobody",
        "/api/sessions/..%2f..%2fetc",
        "/static",
        "/static/",
        "/static/nothing.js",
        "/static/../pyproject.toml",
        "/static/./../pyproject.toml",
        "/static/%2e%2e/pyproject.toml",
        "/static/..%2fpyproject.toml",
        "/static/%2e%2e%2fpyproject.toml",
        "/static/..%5cpyproject.toml",
        "/static/%252e%252e%252fpyproject.toml",
        "/static/%c0%ae%c0%ae/pyproject.toml",
        "/static/....//pyproject.toml",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/%00",
        "/static/index.html%00.js",
        "/static/" + "a" * 300,
        "/static/" + "a/" * 2000,
        "/static/index.html/",
        "/static/index.html/x",
        "/../pyproject.toml",
        "/%2e%2e/pyproject.toml",
        "//pyproject.toml",
        "/pyproject.toml",
        "/.git/config",
    ],
    ids=lambda path: path[:60],
)
async def test_a_path_to_nothing(server: Server, base_url: str, path: str) -> None:
    """404 in JSON, whatever the path tries."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    status, body = await _raw(server.port, request.encode())
    assert status == 404, body
    expected = "unknown_session" if path.startswith("/api/sessions/") and path != "/api/sessions/" else "not_found"
    assert _code(json.loads(body)) == expected


async def test_the_page_itself_is_there(server: Server, base_url: str) -> None:
    """The counterpart: what may be had is had, through the same router."""
    async with aiohttp.ClientSession() as http:
        for path in ("/", "/static/index.html"):
            async with http.get(base_url + path) as response:
                assert response.status == 200
                assert response.content_type == "text/html"


Post = tuple[Any, dict[str, str]]
"""A body and its headers."""
REFUSED: Final[dict[str, Callable[[dict[str, Any]], list[Post]]]] = {
    "not JSON": lambda _: [(raw, JSON) for raw in NOT_JSON.values()],
    "no object": lambda _: [(json.dumps(value), JSON) for value in NO_OBJECTS],
    "fields": lambda offer: [(_changed(offer, change), JSON) for change in CHANGES],
    "no SDP": lambda offer: [(_changed(offer, {"sdp": sdp}), JSON) for sdp in NO_SDP],
    "unknown services": lambda offer: [(_changed(offer, {"service": name}), JSON) for name in SERVICES],
    "types": lambda offer: [(json.dumps(offer), {"Content-Type": kind}) for kind in KINDS],
    "packed": lambda _: [(_bomb(), {**JSON, "Content-Encoding": encoding}) for encoding in ENCODINGS],
    "too large": lambda _: [(b" " * size, JSON) for size in (64 * KIB + 1, 4 * KIB * KIB)],
}
"""What the tests above post one by one; each gets an offer that would be taken."""


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_server_that_has_refused_all_of_a_kind_serves(server: Server, base_url: str, kind: str) -> None:
    async with offering() as offer:
        pass
    async with leaves_nothing(server):
        for data, headers in REFUSED[kind](offer):
            status, body = await _post(base_url, data, headers)
            assert (status // 100, set(body)) == (4, {"error"})
    await _assert_unharmed(server, base_url)


@pytest.mark.parametrize("seed", range(4))
async def test_two_hundred_damaged_offers(server: Server, base_url: str, seed: int) -> None:
    """Whatever is in an offer: it is answered or refused, never a fault of ours, and nothing stays."""
    dice = random.Random(seed)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    async with offering(video=bool(seed % 2)) as body:
        pass
    outcomes: dict[Reply, int] = {}
    async with leaves_nothing(server):
        for _ in range(50):
            damaged = _damage(body["sdp"], dice)
            status, answer = await _post(base_url, json.dumps({"sdp": damaged, "type": "offer"}))
            if status == 201:
                await _delete(base_url, answer)
                outcome = (201, "answered")
            else:
                outcome = (status, _code(answer))
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            assert outcome in {
                (201, "answered"),
                BAD_SDP,
                (422, "no_audio"),
                (422, "no_common_codec"),
            }, damaged
    await _assert_unharmed(server, base_url)
    assert outcomes[201, "answered"] > 0
    assert outcomes[BAD_SDP] > 0
    assert not faults


async def _delete(url: str, answer: dict[str, Any]) -> None:
    async with aiohttp.ClientSession() as http:  # noqa: SIM117 - the session outlives the request
        async with http.delete(f"{url}/api/sessions/{answer['session']}") as response:
            assert response.status == 204


def _damage(sdp: str, dice: random.Random) -> str:
    """Some lines of an offer lost, doubled, moved, cut short or changed."""
    lines = sdp.split("\r\n")
    for _ in range(dice.choice((1, 1, 2, 3, 8))):
        at = dice.randrange(len(lines))
        match dice.randrange(8):
            case 0:
                del lines[at : at + dice.choice((1, 1, 5))]
            case 1:
                lines.insert(at, lines[dice.randrange(len(lines))])
            case 2:
                other = dice.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                lines[at] = lines[at][: dice.randrange(len(lines[at]) + 1)]
            case 4:
                number = dice.choice(("", "-1", "0", "65536", "9" * 30, "x", "1e9", "\u0663"))
                lines[at] = re.sub(r"\d+", number, lines[at], count=dice.choice((0, 1)))
            case 5:
                place = dice.randrange(len(lines[at]) + 1)
                junk = "".join(chr(dice.choice((0, 9, 32, 58, 127, 233, 0x2028, 0x1F600))) for _ in range(3))
                lines[at] = lines[at][:place] + junk + lines[at][place:]
            case 6:
                words = lines[at].split(" ")
                dice.shuffle(words)
                lines[at] = " ".join(words)
            case _:
                del lines[at:]
        if not lines:
            break
    # Connectivity checks must not reach a stranger: of all addresses, only those of the documentation (RFC 5737).
    return "\r\n".join(re.sub(r"(\d+\.){3}\d+", "192.0.2.1", line) for line in lines)

"""What is answered connects: a client with a real transport offers as clients of all kinds do."""

from __future__ import annotations

import contextlib
import logging
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from aiortc import RTCConfiguration, RTCSessionDescription

from lab.inputs.offers import GARBAGE, OBS_AUDIO_VIDEO, RECORDED, SAFARI_AUDIO_DATA, bare
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.protocols.events import CHANNEL_LABEL
from rtc_server.protocols.sdp import Section, parse
from rtc_server.webrtc.transceivers import LeanPeerConnection
from tests.support.leftovers import leaves_nothing

SHAKES = 6


@pytest.fixture(autouse=True)
def no_fault_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not [f"{record.name}: {record.getMessage()}" for record in faults if "rtc_server" in record.name]


class Disguise:
    """A client whose offer looks like that of another: the lines are the ``template``'s, the transport is its own."""

    def __init__(self, pc: LeanPeerConnection, template: str) -> None:
        self.pc = pc
        self._own = parse(pc.localDescription.sdp)
        self.offer = self._dressed(template)

    def _dressed(self, template: str) -> str:
        own = self._own.sections[0]
        digest = next(value for value in own.values("fingerprint") if value.startswith("sha-256"))
        setup = ("a=setup:passive", "a=setup:actpass")  # aiortc, which offers, goes by the answer alone
        sdp = re.sub(r"a=ice-ufrag:[^\r]*", lambda _: f"a=ice-ufrag:{own.token('ice-ufrag')}", template)
        sdp = re.sub(r"a=ice-pwd:[^\r]*", lambda _: f"a=ice-pwd:{own.token('ice-pwd')}", sdp)
        sdp = re.sub(r"a=fingerprint:sha-256 [^\r]*", f"a=fingerprint:{digest}", sdp).replace(*setup)
        head, *sections = re.split(r"^(?=m=)", sdp, flags=re.MULTILINE)
        return head + "".join(map(self._with_candidates, sections))

    def _with_candidates(self, section: str) -> str:
        kind = section[2:].split(" ", 1)[0]
        own = next((each for each in self._own.sections if each.kind == kind), None)
        if own is None:
            return section
        return section + "".join(f"a=candidate:{value}\r\n" for value in own.values("candidate"))

    def undressed(self, answer: str) -> str:
        """The answer, as one to the client's own offer: of the sections that it knows, by the names it gave them."""
        read = parse(answer)
        taken = {section.kind: section for section in read.sections if section.port}
        lines = [line for line in read.head.lines if not line.startswith("a=group:BUNDLE")]
        group = next(iter(read.group("BUNDLE")), ())
        if len(group) == len(self._own.sections):
            lines.append(f"a=group:BUNDLE {' '.join(str(section.mid) for section in self._own.sections)}")
        for own in self._own.sections:
            lines += _renamed(taken[own.kind], own)
        return "".join(f"{line}\r\n" for line in lines)


def _renamed(section: Section, own: Section) -> Iterator[str]:
    formats = section.formats if own.kind == "audio" else own.formats
    yield f"m={own.kind} {section.port} {own.profile} {' '.join(formats)}"
    yield f"a=mid:{own.mid}"
    for line in section.lines:
        if line.startswith("a=sctpmap:"):
            yield "a=sctp-port:5000"
        elif not line.startswith("a=mid:"):
            yield line


@contextlib.asynccontextmanager
async def disguised(
    template: str, change: Callable[[str], str] = lambda sdp: sdp, channel: bool = True
) -> AsyncIterator[Disguise]:
    """A client with the sections of the template that are to be taken."""
    pc = LeanPeerConnection(RTCConfiguration(iceServers=[]))
    direction: Any = "sendonly" if "a=sendonly" in template else "sendrecv"
    pc.addTransceiver("audio", direction=direction)
    if channel and "m=application" in template:
        pc.createDataChannel(CHANNEL_LABEL)
    try:
        await pc.setLocalDescription(await pc.createOffer())
        client = Disguise(pc, template)
        client.offer = change(client.offer)
        yield client
    finally:
        await pc.close()


async def connect(url: str, client: Disguise) -> str:
    """Offer, take the answer, and wait until both transports (or the one) are there; gives the answer."""
    body, pc = {"sdp": client.offer, "type": "offer"}, client.pc
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{url}/api/offer", json=body) as response:
            answer = await response.json()
            assert response.status == 201, (answer, client.offer)
        await pc.setRemoteDescription(RTCSessionDescription(client.undressed(answer["sdp"]), "answer"))
        await until(lambda: pc.connectionState == "connected", "the connection")
        sctp = pc.sctp
        if sctp is not None:
            await until(lambda: sctp.state == "connected", "the association")
        async with http.delete(f"{url}/api/sessions/{answer['session']}") as response:
            assert response.status == 204
    return str(answer["sdp"])


@pytest.mark.parametrize("template", RECORDED.values(), ids=RECORDED)
async def test_clients_of_all_kinds_connect(server: Server, base_url: str, template: str) -> None:
    async with leaves_nothing(server), disguised(template) as client:
        await connect(base_url, client)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("no bundle", lambda sdp: bare(sdp, "group")),
        ("no mid", lambda sdp: bare(sdp, "mid", "group")),
        ("no direction", lambda sdp: bare(sdp, "sendrecv")),
        ("no setup", lambda sdp: bare(sdp, "setup")),
        ("no sctp-port", lambda sdp: bare(sdp, "sctp-port", "max-message-size")),
        ("no rtpmap", lambda sdp: bare(sdp, "rtpmap", "fmtp", "rtcp-fb")),
        ("no ssrc, msid", lambda sdp: bare(sdp, "ssrc", "msid", "msid-semantic", "extmap", "rtcp-rsize")),
        ("newlines", lambda sdp: sdp.replace("\r\n", "\n")),
        ("spaces", lambda sdp: sdp.replace("\r\n", "  \r\n")),
        (
            "sha-1 beside it",
            lambda sdp: sdp.replace("a=setup", f"a=fingerprint:sha-1 {':'.join(['0A'] * 20)}\r\na=setup"),
        ),
        ("rejected video first", lambda sdp: sdp.replace("m=audio", "m=video 0 RTP/SAVPF 96\r\na=mid:v\r\nm=audio", 1)),
        ("data is bundle-only", lambda sdp: _bundle_only(sdp, "application")),
        ("IPv6 address", lambda sdp: sdp.replace("c=IN IP4 0.0.0.0", "c=IN IP6 ::")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_an_offer_may_leave_out(
    server: Server, base_url: str, name: str, change: Callable[[str], str]
) -> None:
    async with leaves_nothing(server), disguised(SAFARI_AUDIO_DATA, change) as client:
        answer = await connect(base_url, client)
    offered, answered = parse(client.offer), parse(answer)
    assert answered.head.has("group") is (name not in ("no bundle", "no mid"))
    assert [section.mid for section in answered.sections] == [section.mid for section in offered.sections]


def _bundle_only(sdp: str, kind: str) -> str:
    """RFC 9143, section 7.2: a section without a port, and without anything that the bundle says."""
    head, *sections = re.split(r"^(?=m=)", sdp, flags=re.MULTILINE)
    for i, section in enumerate(sections):
        if section.startswith(f"m={kind}"):
            without = bare(
                section, "ice-ufrag", "ice-pwd", "fingerprint", "setup", "ice-options", "candidate", "rtcp-mux"
            )
            sections[i] = without.replace(" 9 ", " 0 ", 1) + "a=bundle-only\r\n"
    return head + "".join(sections)


async def test_transport_lines_of_the_session_are_enough(server: Server, base_url: str) -> None:
    async with leaves_nothing(server), disguised(OBS_AUDIO_VIDEO) as client:
        (audio,) = [section for section in parse(client.offer).sections if section.kind == "audio"]
        assert not audio.has("ice-ufrag")
        await connect(base_url, client)


@pytest.mark.parametrize("seed", range(SHAKES))
async def test_harmless_changes_change_nothing(server: Server, base_url: str, seed: int) -> None:
    """Lines not asked for, doubled ones, and another order of those in a section: it connects all the same."""
    dice = random.Random(seed)
    template = dice.choice(list(RECORDED.values()))
    async with leaves_nothing(server), disguised(template, lambda sdp: _shaken(sdp, dice)) as client:
        await connect(base_url, client)


def _shaken(sdp: str, dice: random.Random) -> str:
    parts = [part.split("\r\n")[:-1] for part in re.split(r"^(?=m=)", sdp, flags=re.MULTILINE)]
    for lines in parts:
        first, rest = lines[:1], lines[1:]
        rest += [*dice.choices(rest, k=3), *dice.choices(GARBAGE, k=5)]
        dice.shuffle(rest)
        lines[:] = first + rest
    return "".join(f"{line}\r\n" for lines in parts for line in lines)


async def test_no_group_is_answered_where_none_was_offered(server: Server, base_url: str) -> None:
    """And both transports come about, each with candidates of its own."""
    async with leaves_nothing(server), disguised(SAFARI_AUDIO_DATA, lambda sdp: bare(sdp, "group")) as client:
        answer = parse(await connect(base_url, client))
    audio, data = answer.sections
    assert not answer.head.has("group")
    assert set(audio.values("candidate")).isdisjoint(data.values("candidate"))


async def test_a_data_channel_that_cannot_be_served_costs_itself_alone(server: Server, base_url: str) -> None:
    def change(sdp: str) -> str:
        return sdp.replace("a=sctp-port:5000", "a=sctp-port:0")

    async with leaves_nothing(server), disguised(SAFARI_AUDIO_DATA, change, channel=False) as client:
        # A client that knows audio alone takes the answer: this one would not take that its channel is declined.
        answer = parse(await connect(base_url, client))
    audio, data = answer.sections
    assert (audio.port > 0, data.port) == (True, 0)
    assert list(answer.group("BUNDLE")) == [("0",)]

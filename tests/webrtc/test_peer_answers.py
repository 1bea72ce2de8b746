"""A peer with the real WebRTC stack answers whatever can be read of an offer; nothing it raises is the stack's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
from aioice import Candidate
from aiortc.sdp import SessionDescription
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.inputs.offers import GARBAGE, RECORDED
from rtc_server.errors import BadSdp, EngineUnavailable, NoAudio, NoCommonCodec
from rtc_server.media.playout import PlayoutBuffer
from rtc_server.protocols.offer import read_offer
from rtc_server.protocols.trickle import SectionCandidate
from rtc_server.system.wheel import Wheel
from rtc_server.tracks import RawTrack
from rtc_server.webrtc import peer as peer_module
from rtc_server.webrtc.ice import MAX_CANDIDATES, MediaAddresses, parse_candidate
from rtc_server.webrtc.peer import MOST_READ, Peer


class Listener:
    """Of no interest here."""

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


@contextlib.asynccontextmanager
async def peer_for(sdp: str) -> AsyncIterator[Peer]:
    """Raises what reading the offer raises."""
    voice = RawTrack(PlayoutBuffer(32), Wheel())
    peer = Peer(Listener(), read_offer(sdp), voice, MediaAddresses(interfaces=("127.0.0.1",)), 4.0, "0-0-test", "text")  # type: ignore[arg-type]
    try:
        yield peer
    finally:
        await peer.close(flush=False)


@pytest.mark.parametrize("sdp", RECORDED.values(), ids=RECORDED)
async def test_what_clients_make_is_answered(sdp: str) -> None:
    """With payload types of the offer, and candidates, keys and a role in each section that is taken."""
    read = read_offer(sdp)
    async with peer_for(sdp) as peer:
        answer = SessionDescription.parse(await peer.answer())
    audio = answer.media[read.audio.position]
    assert [codec.payloadType for codec in audio.rtp.codecs] == [codec.payload_type for codec in read.audio.codecs]
    taken = {each.position for each in (read.audio, read.channel) if each is not None}
    for position, media in enumerate(answer.media):
        assert (media.port > 0) is (position in taken)
        if media.port:
            assert media.ice_candidates
            assert media.dtls is not None
            assert media.dtls.role == ("server" if read.audio.transport.setup == "active" else "client")


@pytest.mark.parametrize(("host", "looked_at"), [("203.0.113.9", MAX_CANDIDATES), ("127.0.0.1", MOST_READ)])
async def test_of_candidates_without_end_few_are_looked_at(
    host: str, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as are taken; of those that are of no use, which are not counted, a few more."""
    read: list[str] = []

    def reading(text: str) -> Candidate | None:
        read.append(text)
        return parse_candidate(text)

    monkeypatch.setattr(peer_module, "parse_candidate", reading)
    many = [SectionCandidate(f"candidate:{n} 1 udp 1 {host} {1000 + n} typ host", None, 0) for n in range(500)]
    async with peer_for(next(iter(RECORDED.values()))) as peer:
        await peer.answer()
        read.clear()
        peer._candidates = 0
        assert peer.add_candidates(many) == len(read) == looked_at
        assert peer.add_candidates(many) > 0, "they can be parsed"


def _mutated(draw: st.DrawFn) -> str:
    """An offer of a client with lines dropped, doubled, moved, or with others among them."""
    lines = draw(st.sampled_from(list(RECORDED.values()))).split("\r\n")
    changes = st.tuples(
        st.sampled_from(["drop", "double", "swap", "garbage", "cut"]), st.integers(0, 10**6), st.integers(0, 10**6)
    )
    for change, where, other in draw(st.lists(changes, min_size=1, max_size=8)):
        at, to = where % len(lines), other % len(lines)
        match change:
            case "drop":
                if len(lines) > 1:
                    del lines[at]
            case "double":
                lines.insert(to, lines[at])
            case "swap":
                lines[at], lines[to] = lines[to], lines[at]
            case "garbage":
                lines.insert(at, GARBAGE[other % len(GARBAGE)])
            case "cut":
                lines[at] = lines[at][: other % (len(lines[at]) + 1)]
    return "\r\n".join(lines)


MUTATED = st.composite(_mutated)()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MUTATED)
async def test_any_offer_is_answered_or_refused(caplog: pytest.LogCaptureFixture, sdp: str) -> None:
    """By an error of ours, with nothing in the log; what is answered is read by another stack as well."""
    caplog.clear()
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    try:
        async with peer_for(sdp) as peer:
            answer = await peer.answer()
            await asyncio.sleep(0)  # what was begun beside it has run
    except (BadSdp, NoAudio, NoCommonCodec):
        return
    finally:
        assert not faults
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(SessionDescription.parse(answer).media) == len(read_offer(sdp).sections)


async def test_a_peer_that_is_closed_while_it_answers_says_so() -> None:
    async with peer_for(RECORDED["chromium"]) as peer:
        answering = asyncio.create_task(peer.answer())
        await asyncio.sleep(0)
        closing = asyncio.create_task(peer.close(flush=False))
        with contextlib.suppress(EngineUnavailable):
            await answering
        await closing
        with pytest.raises(EngineUnavailable):
            await peer.answer()

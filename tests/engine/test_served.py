"""An engine on another machine: media nodes that share it, strangers at its port, and ways that break and mend."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
import zmq
import zmq.asyncio

from lab.engine_process import SECRET
from lab.waiting import until
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.client import EngineClient
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.messages import (
    PCM,
    PROTOCOL,
    Hello,
    Open,
    Ping,
    Ready,
    Stop,
    ToEngine,
    decode_from_engine,
    encode,
)
from rtc_server.engine.served import ServedPort, serve_nodes
from rtc_server.engine.stream import EngineStream
from rtc_server.engine.supervisor import EngineState
from rtc_server.errors import (
    ConfigError,
    EngineFailed,
    EngineUnavailable,
    ModelLoadError,
    ResumedElsewhere,
    ResumeRefused,
    ServerFull,
)
from tests.support.breakable_way import BreakableWay
from tests.support.engines import Ear, frame, running
from tests.support.fake_models import CountingModel, FakeOptions, GatedModel, unloadable
from tests.support.served import KEY, ServedEngine, node, served

TOKEN = b"t" * 24
DIGEST = hashlib.sha256(TOKEN).digest()


@pytest.fixture
def engine() -> Iterator[ServedEngine]:
    with served() as engine:
        yield engine


@contextlib.asynccontextmanager
async def nodes(engine: ServedEngine, count: int = 2) -> AsyncIterator[list[EngineClient]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(node(engine.address))) for _ in range(count)]


async def say(stream: EngineStream, ear: Ear, texts: list[str]) -> None:
    """Push a frame, and wait until this is all that was heard."""
    assert stream.push(frame())
    await until(lambda: ear.texts == texts, f"{texts}, not {ear.texts}")


async def test_two_nodes_share_an_engine(engine: ServedEngine) -> None:
    """Each has its own slots, hears its own rows, and knows how many the others have."""
    async with nodes(engine) as (a, b):
        ears = Ear(), Ear()
        mine, theirs = await a.open(ears[0]), await b.open(ears[1])
        assert mine.slot != theirs.slot
        await say(mine, ears[0], [" 1"])
        await say(mine, ears[0], [" 1", " 2"])
        await say(theirs, ears[1], [" 1"])
        pcm = ears[0].pcm[1]
        assert pcm is not None
        assert pcm[0] == pytest.approx(0.002)
        assert (pcm[1:] == 0.5).all()
        assert (a.slots_used, b.slots_used) == (1, 1)
        await until(lambda: not a.has_room and not b.has_room)
        with pytest.raises(ServerFull):
            await a.open(Ear())
        theirs.close()
        await until(lambda: a.has_room)
        newcomer = Ear()
        await say(await a.open(newcomer), newcomer, [" 1"])
        assert ears[1].texts == [" 1"]


async def test_all_conversations_of_a_node_may_begin_at_once() -> None:
    """As after the death of another engine. What answers them waits for the way, which has room for so much."""
    with served(slots=400) as engine:
        async with nodes(engine, 1) as (only,):
            ears = [Ear() for _ in range(400)]
            streams = await asyncio.gather(*(only.open(ear) for ear in ears))
            assert len({stream.slot for stream in streams}) == only.slots_used == 400
            with pytest.raises(ServerFull):
                await only.open(Ear())


async def test_those_who_wait_for_their_turn_to_ask_are_told_when_the_engine_is_lost() -> None:
    with served(slots=200) as engine:
        async with nodes(engine, 1) as (only,):
            asking = [asyncio.ensure_future(only.open(Ear())) for _ in range(200)]
            await asyncio.sleep(0)  # each begins to ask
            assert only.slots_asked_for == 200
            await only.abandon()
            told = await asyncio.gather(*asking, return_exceptions=True)
            assert {type(one) for one in told} == {EngineUnavailable}
            assert only.slots_asked_for == 0


async def test_a_node_that_ends_gives_its_slots_back(engine: ServedEngine) -> None:
    async with nodes(engine, 1) as (a,):
        async with nodes(engine, 1) as (b,):
            for _ in range(2):
                await b.open(Ear())
            await until(lambda: not a.has_room)
        await until(lambda: a.has_room)


async def test_a_node_that_ends_leaves_the_conversations_that_it_has_locked(engine: ServedEngine) -> None:
    """To a node that has the key; what it has not locked, or has closed, is free at once."""
    after = Ear()
    async with nodes(engine, 1) as (a,):
        async with nodes(engine, 1) as (b,):
            left, closed = Ear(), Ear()
            stream = await b.open(left)
            stream.lock(DIGEST, b"memo")
            await say(stream, left, [" 1"])
            other = await b.open(closed)
            other.lock(hashlib.sha256(b"n" * 24).digest())
            await until(lambda: not a.has_room, "both, known to the other node")
            other.close()
            stream.leave()
            stream.leave()
            assert (b.slots_used, left.errors) == (0, [])
            assert not stream.push(frame())
        await until(lambda: a.has_room)
        with pytest.raises(ResumeRefused):
            await a.adopt(b"n" * 24, Ear())
        adopted = await a.adopt(TOKEN, after)
        assert (adopted.opened.memo, adopted.opened.heard) == (b"memo", 1)
        await say(adopted, after, [" 2"])


@pytest.mark.slow
async def test_what_a_node_has_left_is_free_when_it_has_been_gone_for_the_grace() -> None:
    with served(slots=1, grace_s=3.0) as brief:
        async with nodes(brief, 1) as (a,):
            async with nodes(brief, 1) as (b,):
                (await b.open(Ear())).lock(DIGEST)
                await until(lambda: a._slots_elsewhere == 1)
            with pytest.raises(ServerFull):
                await a.open(Ear())
            await until(lambda: a._slots_elsewhere == 0)
            with pytest.raises(ResumeRefused):
                await a.adopt(TOKEN, Ear())
            await a.open(Ear())


async def test_a_conversation_goes_on_by_another_node(engine: ServedEngine) -> None:
    """With all that the model remembers; the node that had it is told, once, and can do it no harm any more."""
    async with nodes(engine) as (a, b):
        before, after = Ear(), Ear()
        stream = await a.open(before)
        stream.lock(DIGEST)
        await say(stream, before, [" 1"])
        adopted = await b.adopt(TOKEN, after)
        await until(lambda: before.errors)
        assert [type(error) for error in before.errors] == [ResumedElsewhere]
        assert not stream.push(frame())
        stream.close()
        await say(adopted, after, [" 2"])
        assert (a.slots_used, b.slots_used, after.frames) == (0, 1, [2])
        assert before.texts == [" 1"]
        with pytest.raises(ResumeRefused):
            await a.adopt(TOKEN, Ear())
        adopted.lock(hashlib.sha256(b"n" * 24).digest())
        await say(adopted, after, [" 2", " 3"])
        back = Ear()
        await say(await a.adopt(b"n" * 24, back), back, [" 4"])


async def test_a_conversation_that_is_over_cannot_be_adopted(engine: ServedEngine) -> None:
    async with nodes(engine) as (a, b):
        stream = await a.open(Ear())
        stream.lock(DIGEST)
        await until(lambda: b._slots_elsewhere == 1)
        stream.close()
        await until(lambda: b._slots_elsewhere == 0)
        with pytest.raises(ResumeRefused):
            await b.adopt(TOKEN, Ear())
        with pytest.raises(ResumeRefused):
            await b.adopt(secrets.token_bytes(24), Ear())
        assert b.slots_used == 0


@pytest.mark.slow
async def test_the_slots_of_a_node_that_is_gone_are_kept_for_the_grace() -> None:
    """It vanishes without a word: another node goes on, and what none has asked for is free after the grace."""
    with served(grace_s=3.0) as engine:
        async with nodes(engine, 1) as (b,), running(node(engine.address)) as a:
            for number in range(2):
                ear = Ear()
                stream = await a.open(ear)
                stream.lock(hashlib.sha256(bytes([number]) * 24).digest())
                await say(stream, ear, [" 1"])
            await until(lambda: not b.has_room)
            _vanish(a)
            after = Ear()
            await say(await b.adopt(b"\1" * 24, after), after, [" 2"])
            assert not b.has_room
            await until(lambda: b.has_room, "the other slot to be taken back")
            with pytest.raises(ResumeRefused):
                await b.adopt(b"\0" * 24, Ear())


def _vanish(client: EngineClient) -> None:
    """From now on, nothing that the node says arrives, as if its machine had lost its power."""
    link = client._supervisor._link
    assert link is not None
    link.send = lambda _: True  # type: ignore[method-assign]


async def test_a_question_that_is_lost_is_asked_again(engine: ServedEngine) -> None:
    """Else a node in which no one talks would take an engine that was started again for one that hangs."""
    lost: list[Ping] = []
    async with nodes(engine) as (a, b):
        link = a._supervisor._link
        assert link is not None
        send = link.send

        def send_but_one(message: ToEngine) -> bool:
            if isinstance(message, Ping) and not lost:
                lost.append(message)
                return True
            return send(message)

        link.send = send_but_one  # type: ignore[method-assign]
        await until(lambda: lost)
        await b.open(Ear())
        await until(lambda: a._slots_elsewhere == 1, "an answer")


@pytest.mark.parametrize("cut_s", [0.2, 1.5], ids=["shorter than a connection lives", "longer"])
async def test_a_way_that_breaks_and_mends_costs_no_conversation(cut_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of the time between are lost; what the model remembers is not. All ten times as fast as in earnest."""
    monkeypatch.setattr("rtc_server.engine.sockets.HEARTBEAT_MS", 100)
    monkeypatch.setattr("rtc_server.engine.sockets.SILENCE_MS", 300)
    monkeypatch.setattr("rtc_server.engine.sockets.HANDSHAKE_MS", 500)
    with served() as engine:
        async with BreakableWay.to(engine.address) as way, running(node(way.address)) as client:
            ear = Ear()
            stream = await client.open(ear)
            await say(stream, ear, [" 1"])
            await way.broken_for(cut_s)
            await until(lambda: client.ready)

            def answered() -> bool:
                stream.push(frame())
                return len(ear.texts) > 1

            await until(answered)
            assert ear.texts[1] in (" 2", " 3", " 4", " 5"), "it was not begun again"
            assert not ear.errors
            assert client.restarts == 0


async def test_a_node_that_does_not_read_costs_the_others_nothing(engine: ServedEngine) -> None:
    """Its audio is dropped."""
    with zmq.Context() as context:
        deaf = _dealer(context, engine.address, KEY)
        deaf.rcvhwm = 1
        deaf.connect(f"tcp://{engine.address}")
        deaf.send(encode(Hello(PROTOCOL)))
        deaf.send(encode(Open(1)))
        async with nodes(engine, 1) as (client,):
            await until(lambda: client._slots_elsewhere == 1)
            for _ in range(3000):  # questions, each of which is answered
                deaf.send(encode(Ping()))
            ear = Ear()
            stream = await client.open(ear)
            for number in range(1, 20):
                await say(stream, ear, [f" {count}" for count in range(1, number + 1)])
        deaf.close(0)


async def test_another_key_opens_nothing(engine: ServedEngine, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once where the key is wrong, and those who have the right one notice nothing."""
    caplog.set_level(logging.WARNING)
    stranger = node(engine.address, ClusterKey.of(SECRET + b"!"))
    stranger.start()
    async with nodes(engine, 1) as (client,):
        await until(lambda: "--cluster-key" in caplog.text)
        assert stranger.state is EngineState.LOADING
        with pytest.raises(EngineUnavailable):
            await stranger.open(Ear())
        ear = Ear()
        await say(await client.open(ear), ear, [" 1"])
    await stranger.close()
    assert caplog.text.count("ends the handshake") == 1


def _dealer(context: zmq.Context[zmq.Socket[bytes]], address: str, key: ClusterKey | None) -> zmq.Socket[bytes]:
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    if key is not None:
        dealer.curve_serverkey = key.engine.public
        dealer.curve_publickey, dealer.curve_secretkey = key.node.public, key.node.secret
    return dealer


async def test_the_engines_public_key_is_not_enough(engine: ServedEngine) -> None:
    """Any key pair can shake hands with it: only that of a node is let in; nor is one that encrypts nothing."""
    public, secret = zmq.curve_keypair()
    with zmq.Context() as context:
        strangers = [_dealer(context, engine.address, key) for key in (KEY, None)]
        strangers[0].curve_publickey, strangers[0].curve_secretkey = public, secret
        for stranger in strangers:
            stranger.connect(f"tcp://{engine.address}")
            stranger.send(encode(Hello(PROTOCOL)))
        async with nodes(engine, 1):
            pass
        for stranger in strangers:
            assert not stranger.poll(500), "it was answered"
            stranger.close(0)


async def test_what_was_recorded_on_the_way_opens_nothing_when_it_is_said_again(engine: ServedEngine) -> None:
    """A node's whole conversation, from its greeting on: the engine's answers are others each time."""
    async with BreakableWay.to(engine.address) as way, running(node(way.address)) as client:
        ear = Ear()
        await say(await client.open(ear), ear, [" 1"])
        recorded = bytes(way.said)
    assert len(recorded) > FRAME_SAMPLES * 4, "a frame is in it"
    async with nodes(engine, 1) as (other,):
        for _ in range(3):
            await asyncio.to_thread(_say_again, engine.address, recorded)
        for _ in range(2):
            ear = Ear()
            await say(await other.open(ear), ear, [" 1"])


def _say_again(address: str, recorded: bytes) -> None:
    """Until what listens there ends the connection."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 30) as raw, contextlib.suppress(ConnectionError):
        raw.sendall(recorded)
        while raw.recv(65_536):
            pass


@pytest.mark.parametrize(
    "garbage",
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 100_000, b"\xff\0\0\0\0\0\0\0\1\x7f\3\1CURVE" + b"\0" * 100],
    ids=["nothing", "http", "ones", "greeting"],
)
async def test_what_is_no_zeromq_costs_nothing(engine: ServedEngine, garbage: bytes) -> None:
    host, _, port = engine.address.rpartition(":")
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            raw = stack.enter_context(socket.create_connection((host, int(port)), 5))
            with contextlib.suppress(ConnectionError):
                raw.sendall(garbage)
        async with nodes(engine, 1) as (client,):
            ear = Ear()
            await say(await client.open(ear), ear, [" 1"])


@pytest.mark.parametrize(
    "parts",
    [[b""], [b"garbage"], [encode(Stop())], [b"a", b"b"], [encode(Open(1)), b""], [b"x" * 60_000]],
    ids=["empty", "garbage", "stop", "parts", "more", "long"],
)
async def test_a_node_that_talks_nonsense_costs_the_others_nothing(engine: ServedEngine, parts: list[bytes]) -> None:
    with zmq.Context() as context:
        odd = _dealer(context, engine.address, KEY)
        odd.connect(f"tcp://{engine.address}")
        odd.send(encode(Hello(PROTOCOL)))
        odd.send_multipart(parts)
        odd.send(encode(Hello(PROTOCOL)))
        for _ in range(2):
            assert odd.poll(20_000)
            assert isinstance(decode_from_engine(odd.recv()), Ready)
        async with nodes(engine, 1) as (client,):
            ear = Ear()
            await say(await client.open(ear), ear, [" 1"])
        odd.close(0)


async def test_a_message_that_is_too_long_costs_its_own_connection(engine: ServedEngine) -> None:
    with zmq.Context() as context:
        odd = _dealer(context, engine.address, KEY)
        odd.connect(f"tcp://{engine.address}")
        odd.send(b"x" * 1_000_000)
        async with nodes(engine, 1) as (client,):
            ear = Ear()
            await say(await client.open(ear), ear, [" 1"])
        odd.close(0)


async def test_another_version_is_said_and_not_tried_again(
    engine: ServedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtc_server.engine.remote.PROTOCOL", PROTOCOL + 1)
    client = node(engine.address)
    client.start()
    with pytest.raises(ModelLoadError, match=f"version {PROTOCOL} ") as caught:
        await client.wait_settled()
    assert "release" in (caught.value.hint or "")
    await client.close()


async def test_an_engine_that_is_not_there_yet_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
    client = node(address)
    client.start()
    with pytest.raises(EngineUnavailable):
        await client.open(Ear())
    with served(address=address):
        await client.wait_settled()
        ear = Ear()
        await say(await client.open(ear), ear, [" 1"])
        await client.close()


async def test_a_model_that_is_loading_is_waited_for() -> None:
    """Greetings wait meanwhile, and make one node ready once."""
    loaded = threading.Event()

    def load() -> CountingModel:
        assert loaded.wait(20)
        return CountingModel(1)

    engine = ServedEngine(load)
    client = node(engine.address)
    client.start()
    await until(lambda: len(engine._port._arrived) >= 3, "some greetings")
    assert client.state is EngineState.LOADING
    loaded.set()
    await client.wait_settled()
    ear = Ear()
    await say(await client.open(ear), ear, [" 1"])
    await client.close()
    engine.stop()


async def test_an_engine_that_was_started_again_knows_no_one(no_restart_pause: None) -> None:
    """Its conversations are lost, and said to be; new ones work."""
    first = ServedEngine(lambda: CountingModel(2))
    async with running(node(first.address)) as client:
        ear = Ear()
        stream = await client.open(ear)
        await say(stream, ear, [" 1"])
        first.stop()
        with served(address=first.address):
            await until(lambda: ear.errors)
            assert [type(error) for error in ear.errors] == [EngineFailed]
            await client.wait_ready()
            again = Ear()
            await say(await client.open(again), again, [" 1"])
            assert client.restarts == 1


async def test_a_model_that_cannot_be_loaded_ends_the_engine() -> None:
    port = ServedPort("127.0.0.1:0", KEY)
    with pytest.raises(ModelLoadError, match="no such model"):
        serve_nodes(lambda: unloadable(FakeOptions(1)), port)


@pytest.mark.parametrize("address", ["300.0.0.1:0", "no.such.host.invalid:0"])
def test_where_it_cannot_listen(address: str) -> None:
    before = set(threading.enumerate())
    with pytest.raises(ConfigError, match="Cannot listen"):
        ServedPort(address, KEY)
    assert not set(threading.enumerate()) - before


def test_a_port_that_is_taken(engine: ServedEngine) -> None:
    with pytest.raises(ConfigError, match=engine.address):
        ServedPort(engine.address, KEY)


async def test_a_step_that_hangs_is_a_stall_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.engine.pulse.QUIET_S", 0.3)
    model = GatedModel(1)
    with served(model=model) as engine:
        async with running(node(engine.address)) as client:
            stalls: list[bool] = []
            client.on_stall = lambda stalled, _: stalls.append(stalled)
            ear = Ear()
            stream = await client.open(ear)
            stream.push(frame())
            await asyncio.to_thread(model.wait_entered)
            await until(lambda: stalls[-1:] == [True])
            for _ in range(100):
                model.gate.release()
            await until(lambda: stalls[-1:] == [False] and ear.texts == [" 1"])
            assert stalls == [True, False] * (len(stalls) // 2), "a busy machine may make more of them"
            assert not ear.errors


def test_samples_are_little_endian_on_the_wire() -> None:
    assert np.dtype(PCM).newbyteorder("=") == np.dtype(np.float32)
    assert np.array([1.0], PCM).tobytes() == b"\0\0\x80?"

"""The engine's core with several media nodes: each has its own, and nothing of another's."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.core import EngineCore
from rtc_server.engine.messages import (
    PROTOCOL,
    Adopt,
    Close,
    Drain,
    Frame,
    FromEngine,
    Goodbye,
    Hello,
    Import,
    Lock,
    Lost,
    NotFound,
    Open,
    Opened,
    OtherVersion,
    Ping,
    Pong,
    Ready,
    Refused,
    Reset,
    StepDone,
    Stop,
    Stranger,
    ToEngine,
)
from rtc_server.engine.model import PagesUse
from rtc_server.engine.owners import HOST, LOOK_S, MAX_OWNERS
from rtc_server.engine.slots import QUEUE_FRAMES
from tests.support.fake_models import CountingModel, PagedModel

A, B = b"node a", b"node b"
KEY = b"k" * 32
DIGEST = hashlib.sha256(KEY).digest()
PCM = np.full(FRAME_SAMPLES, 0.25, np.float32).tobytes()


class Engine:
    """Driven one message or step at a time, by node ``A``, node ``B``, and the one that started it."""

    def __init__(self, slots: int = 2, grace_s: float = 10.0) -> None:
        self.model = CountingModel(slots)
        self.core = EngineCore(self.model, grace_s=grace_s)
        for node in (A, B):
            assert self.say(Hello(PROTOCOL), node) == [(node, self.core.ready())]

    def say(self, message: ToEngine, owner: bytes) -> list[tuple[bytes, FromEngine]]:
        return self.core.handle(message, 0.0, owner)

    def open(self, owner: bytes) -> tuple[int, int]:
        ((to, opened),) = self.say(Open(1), owner)
        assert isinstance(opened, Opened)
        assert to == owner
        return opened.slot, opened.generation

    def push(self, lease: tuple[int, int], owner: bytes, times: int = 1) -> None:
        for _ in range(times):
            assert self.say(Frame(*lease, 1, PCM), owner) == []

    def step(self) -> dict[bytes, StepDone]:
        self.core.wipe()
        return self.core.step(lambda: 0.0)

    def texts(self) -> dict[bytes, list[str]]:
        return {owner: [output.text for output in done.outputs] for owner, done in self.step().items()}

    def silence(self, seconds: float, *others: bytes) -> None:
        """That of all but ``others``."""
        for number in range(round(seconds / LOOK_S) + 1):
            for owner in others:
                self.say(Ping(), owner)
            self.core.look(self.now + number * LOOK_S)
        self.now += seconds

    now = 0.0


@pytest.fixture
def engine() -> Engine:
    return Engine()


def test_each_hears_of_its_own_rows_only(engine: Engine) -> None:
    a, b = engine.open(A), engine.open(B)
    engine.push(a, A, QUEUE_FRAMES + 1)
    engine.push(b, B)
    done = engine.step()
    assert {owner: [(each.slot, each.text) for each in made.outputs] for owner, made in done.items()} == {
        A: [(a[0], " 1")],
        B: [(b[0], " 1")],
    }
    assert {owner: made.dropped for owner, made in done.items()} == {A: 1, B: 0}


def test_one_that_has_no_frame_in_a_step_hears_nothing_of_it(engine: Engine) -> None:
    a, _ = engine.open(A), engine.open(B)
    engine.push(a, A)
    assert set(engine.step()) == {A}


def test_a_step_is_counted_once(engine: Engine) -> None:
    """With the rows of all, so that sums over the nodes are the engine's."""
    leases = {owner: engine.open(owner) for owner in (B, A)}
    for owner, lease in leases.items():
        engine.push(lease, owner)
    assert sorted(done.rows for done in engine.step().values()) == [0, 2]
    engine.push(leases[A], A)
    assert [done.rows for done in engine.step().values()] == [1]


@pytest.mark.parametrize("kind", [Close, Reset])
def test_another_ones_slot_is_not_ended(engine: Engine, kind: type[Close | Reset]) -> None:
    a = engine.open(A)
    engine.push(a, A)
    for owner in (B, HOST):
        engine.say(kind(*a), owner)
        engine.say(Lock(*a, DIGEST), owner)
        engine.push(a, owner)
    assert engine.texts() == {A: [" 1"]}
    assert engine.step() == {}
    assert engine.say(Adopt(1, KEY), B) == [(B, NotFound(1))]


def test_one_that_has_not_greeted_is_a_stranger(engine: Engine) -> None:
    for message in (Open(1), Ping(), Adopt(1, KEY), Frame(0, 1, 1, PCM), Goodbye()):
        assert engine.say(message, b"c") == [(b"c", Stranger())]
    assert engine.say(Ping(), A) == [(A, Pong(0))]


@pytest.mark.parametrize("version", [PROTOCOL - 1, PROTOCOL + 1, 2**40])
def test_another_version_is_not_let_in(engine: Engine, version: int) -> None:
    assert engine.say(Hello(version), b"c") == [(b"c", OtherVersion(PROTOCOL))]
    assert engine.say(Open(1), b"c") == [(b"c", Stranger())]


def test_one_too_many_is_not_let_in(engine: Engine) -> None:
    for number in range(MAX_OWNERS - 2):
        ((_, ready),) = engine.say(Hello(PROTOCOL), number.to_bytes(4, "big"))
        assert isinstance(ready, Ready)
    assert engine.say(Hello(PROTOCOL), b"c") == []
    assert engine.say(Open(1), b"c") == [(b"c", Stranger())]


def test_what_others_hold_is_told_with_each_answer(engine: Engine) -> None:
    engine.open(A)
    assert engine.say(Ping(), A) == [(A, Pong(0))]
    assert engine.say(Ping(), B) == [(B, Pong(1))]
    engine.open(B)
    assert engine.say(Open(9), A) == [(A, Refused(9))]


def test_a_conversation_is_adopted_with_what_the_model_remembers(engine: Engine) -> None:
    """Its owner so far hears of it, and what that says comes too late."""
    a = engine.open(A)
    engine.say(Lock(*a, DIGEST), A)
    engine.push(a, A)
    assert engine.texts() == {A: [" 1"]}
    answers = engine.say(Adopt(7, KEY), B)
    assert answers == [(A, Lost(*a)), (B, Opened(7, a[0], a[1] + 1, heard=1))]
    engine.push(a, A)
    engine.say(Close(*a), A)
    engine.push((a[0], a[1] + 1), B)
    assert engine.texts() == {B: [" 2"]}
    assert engine.say(Adopt(8, KEY), A) == [(A, NotFound(8))]
    assert engine.model.wipes == []


def test_the_slots_of_one_that_is_silent_are_kept_and_then_taken_back(engine: Engine) -> None:
    a, b = engine.open(A), engine.open(B)
    engine.push(a, A)
    engine.push(b, B)
    engine.step()
    engine.silence(9, B)
    engine.push(a, A)
    assert engine.texts() == {A: [" 2"]}, "it was cut off, and is back"
    engine.silence(11, B)
    engine.core.wipe()
    assert engine.model.wipes == [[a[0]]]
    assert engine.say(Ping(), A) == [(A, Stranger())]
    engine.push(b, B)
    assert engine.texts() == {B: [" 2"]}
    assert engine.open(B)[0] == a[0]


def test_a_conversation_outlives_its_node_for_as_long_as_the_grace(engine: Engine) -> None:
    a = engine.open(A)
    engine.say(Lock(*a, DIGEST), A)
    engine.push(a, A)
    engine.step()
    engine.silence(9, B)
    ((_, lost), (to, opened)) = engine.say(Adopt(1, KEY), B)
    assert (to, opened, lost) == (B, Opened(1, a[0], a[1] + 1, heard=1), Lost(*a))
    engine.silence(20, B)
    engine.push((a[0], a[1] + 1), B)
    assert engine.texts() == {B: [" 2"]}, "it is not its first owner's any more"


def test_a_goodbye_gives_all_back(engine: Engine) -> None:
    leases = [engine.open(A), engine.open(A)]
    engine.say(Goodbye(), A)
    engine.core.wipe()
    assert engine.model.wipes == [[0, 1]]
    assert {engine.open(B)[0], engine.open(B)[0]} == {slot for slot, _ in leases}


def test_a_goodbye_leaves_what_is_locked_for_the_grace(engine: Engine) -> None:
    """To the one that has the key: the frames that wait are of the one that goes."""
    a, other = engine.open(A), engine.open(A)
    engine.say(Lock(*a, DIGEST, b"memo"), A)
    engine.push(a, A)
    engine.step()
    engine.push(a, A)
    engine.say(Goodbye(), A)
    assert engine.step() == {}
    assert engine.open(B)[0] == other[0]
    ((_, lost), (to, opened)) = engine.say(Adopt(1, KEY), B)
    assert (to, lost) == (B, Lost(*a))
    assert opened == Opened(1, a[0], a[1] + 1, heard=1, memo=b"memo", memo_age_s=opened.memo_age_s)


def test_what_a_goodbye_has_left_is_taken_back_after_the_grace(engine: Engine) -> None:
    a = engine.open(A)
    engine.open(B)
    engine.say(Lock(*a, DIGEST), A)
    engine.say(Goodbye(), A)
    engine.silence(9, B)
    assert engine.say(Open(1), B) == [(B, Refused(1))]
    engine.silence(2, B)
    assert engine.say(Adopt(1, KEY), B) == [(B, NotFound(1))]
    assert engine.open(B)[0] == a[0]


def test_while_there_are_nodes_the_loop_looks_after_them() -> None:
    core = EngineCore(CountingModel(1))
    assert core.wait_s(0.0) is None
    core.handle(Hello(PROTOCOL), 0.0, A)
    assert core.wait_s(0.0) == LOOK_S


def test_an_engine_that_drains_opens_nothing_and_ends_when_it_is_empty(engine: Engine) -> None:
    a = engine.open(A)
    engine.say(Lock(*a, DIGEST), A)
    engine.say(Drain(), HOST)
    assert engine.say(Open(2), B) == [(B, Refused(2))]
    assert not engine.core.stopped
    engine.say(Adopt(3, KEY), B)
    assert not engine.core.stopped
    engine.say(Close(a[0], a[1] + 1), B)
    assert engine.core.stopped


def test_a_stop_ends_it_with_all_that_is_in_it(engine: Engine) -> None:
    engine.open(A)
    engine.say(Stop(), HOST)
    assert engine.core.stopped


class PagedEngine(Engine):
    """Three slots that share 17 pages, of which each takes one a frame, and 8 at most."""

    def __init__(self) -> None:
        self.model = PagedModel(3, pages=17, most=8)
        self.core = EngineCore(self.model)
        for node in (A, B):
            self.say(Hello(PROTOCOL), node)


def test_a_newcomer_is_let_in_while_there_is_memory_for_it() -> None:
    engine = PagedEngine()
    assert engine.core.ready().pages == PagesUse(17, 17, 2)
    first, second = engine.open(A), engine.open(B)
    assert engine.say(Ping(), A) == [(A, Pong(1, PagesUse(17, 17, 0)))]
    assert engine.say(Open(7), B) == [(B, Refused(7))], "there is a slot, and no memory"
    for _ in range(8):
        engine.push(first, A)
        engine.step()
    assert engine.say(Ping(), B) == [(B, Pong(1, PagesUse(17, 9, 0)))]
    engine.say(Close(*first), A)
    assert engine.say(Ping(), B) == [(B, Pong(0, PagesUse(17, 17, 1)))], "before it is wiped"
    engine.open(A)
    assert engine.say(Open(8), A) == [(A, Refused(8))]
    assert second[0] in (0, 1, 2)


def test_one_who_comes_back_or_is_brought_is_let_in_without() -> None:
    """A conversation that is adopted has its memory; for one from another engine others forget."""
    engine = PagedEngine()
    leases = [engine.open(A), engine.open(A)]
    assert engine.say(Open(7), B) == [(B, Refused(7))]
    engine.say(Lock(*leases[0], DIGEST), A)
    assert isinstance(engine.say(Adopt(2, KEY), B)[-1][1], Opened)
    assert isinstance(engine.say(Import(3, "counting", 5), B)[-1][1], Opened)
    engine.say(Reset(*leases[1]), A)
    engine.push((leases[1][0], leases[1][1] + 1), A)
    assert engine.texts() == {A: [" 1"]}


def test_the_only_conversation_is_let_in_with_what_there_is() -> None:
    engine = Engine()
    model = PagedModel(3, pages=3, most=8)
    engine.core = EngineCore(model)
    engine.say(Hello(PROTOCOL), A)
    engine.open(A)
    assert engine.say(Open(7), A) == [(A, Refused(7))]

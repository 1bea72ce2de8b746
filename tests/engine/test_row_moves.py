"""The engine's part of a row that leaves or comes: one copy at a time, of one moment; no frame before it is whole."""

from __future__ import annotations

import hashlib

from rtc_server.engine.core import EngineCore
from rtc_server.engine.messages import (
    Adopt,
    CannotMove,
    Close,
    Drain,
    Export,
    Exported,
    Fetch,
    Frame,
    FromEngine,
    Hello,
    Import,
    Lock,
    Lost,
    Open,
    Opened,
    Part,
    Put,
    Refused,
    Reset,
    Taken,
    ToEngine,
)
from rtc_server.engine.owners import HOST, Owner
from tests.support.engines import frame
from tests.support.fake_models import CountingModel, MovingModel

PADDING = 100
SIZE = 16 + PADDING
OTHER = b"other"


class Engine:
    """A core with a model, driven message by message."""

    def __init__(self, model: CountingModel | None = None, slots: int = 2) -> None:
        self.model = model or MovingModel(slots, padding=PADDING)
        self.core = EngineCore(self.model)
        self.core.handle(Hello(2), 0.0, OTHER)
        self._seq = 0

    def tell(self, message: ToEngine, at_s: float = 0.0, owner: Owner = HOST) -> FromEngine | None:
        answers = self.core.handle(message, at_s, owner)
        return answers[0][1] if answers else None

    def open(self, owner: Owner = HOST) -> tuple[int, int]:
        opened = self.tell(Open(1), owner=owner)
        assert isinstance(opened, Opened)
        return opened.slot, opened.generation

    def hear(self, lease: tuple[int, int], first: float = 0.25) -> str:
        """The text that the model writes for a frame; empty if it is not heard."""
        self._seq += 1
        self.tell(Frame(*lease, self._seq, frame(first).tobytes()))
        self.core.wipe()
        done = self.core.step(lambda: 0.0).get(HOST)
        return "" if done is None else done.outputs[0].text

    def state(self, lease: tuple[int, int]) -> bytes:
        exported = self.tell(Export(*lease))
        assert isinstance(exported, Exported)
        part = self.tell(Fetch(*lease, 0, exported.size))
        assert isinstance(part, Part)
        return part.data

    def begin(self, heard: int = 0, row_format: str = "counting") -> tuple[int, int]:
        opened = self.tell(Import(7, row_format, heard))
        assert isinstance(opened, Opened)
        assert (opened.stream, opened.heard) == (7, heard)
        return opened.slot, opened.generation


def test_a_row_goes_on_in_another_engine_where_it_was() -> None:
    one, other = Engine(), Engine()
    lease = one.open()
    assert [one.hear(lease) for _ in range(3)] == [" 1", " 2", " 3"]
    assert one.tell(Export(*lease)) == Exported(*lease, SIZE, 3, 3)
    parts = [one.tell(Fetch(*lease, offset, 50)) for offset in (0, 50, 100)]
    there = other.begin(3)
    assert other.hear(there) == "", "half a row was stepped"
    written = 0
    for part in parts:
        assert isinstance(part, Part)
        written += len(part.data)
        assert other.tell(Put(*there, part.data)) == Taken(*there, written, written == SIZE)
    assert (one.hear(lease), other.hear(there)) == (" 4", " 4")
    adopted = other.tell(Lock(*there, hashlib.sha256(b"k" * 16).digest()))
    assert adopted is None
    answers = other.core.handle(Adopt(9, b"k" * 16), 0.0, OTHER)
    assert [type(message) for _, message in answers] == [Lost, Opened]
    assert answers[1][1].heard == 4  # type: ignore[union-attr]


def test_a_copy_is_of_one_moment_while_the_row_goes_on() -> None:
    one, other = Engine(), Engine()
    lease = one.open()
    one.hear(lease)
    exported = one.tell(Export(*lease))
    assert isinstance(exported, Exported)
    assert one.hear(lease) == " 2"
    part = one.tell(Fetch(*lease, 0, SIZE))
    assert isinstance(part, Part)
    there = other.begin(exported.heard)
    other.tell(Put(*there, part.data))
    assert other.hear(there) == " 2"


def test_there_is_one_copy_at_a_time() -> None:
    engine = Engine()
    one, other = engine.open(), engine.open()
    assert isinstance(engine.tell(Export(*one)), Exported)
    assert engine.tell(Export(*other)) == CannotMove(*other, busy=True)
    assert isinstance(engine.tell(Export(*one)), Exported), "its own may be made again"
    assert isinstance(engine.tell(Fetch(*one, 0, SIZE)), Part)
    assert isinstance(engine.tell(Export(*other)), Exported)
    engine.tell(Close(*other))
    assert isinstance(engine.tell(Export(*one)), Exported), "the copy of a slot that is closed is in no way"
    late = engine.open()
    assert isinstance(engine.tell(Export(*late), at_s=61.0), Exported), "one that was forgotten is"


def test_a_copy_is_gone_once_it_was_fetched_and_is_its_owners() -> None:
    engine = Engine()
    lease = engine.open()
    engine.tell(Export(*lease))
    assert engine.tell(Fetch(*lease, 0, SIZE), owner=OTHER) == CannotMove(*lease)
    assert engine.tell(Export(*lease), owner=OTHER) is None
    assert isinstance(engine.tell(Fetch(*lease, 0, SIZE)), Part)
    assert engine.tell(Fetch(*lease, 0, SIZE)) == CannotMove(*lease)
    assert engine.tell(Export(lease[0], lease[1] - 1)) is None


def test_what_was_just_reset_is_copied_as_new_and_what_was_just_closed_is_filled_for_good() -> None:
    """Wipes wait until all messages are read."""
    engine = Engine(slots=1)
    lease = engine.open()
    engine.hear(lease)
    full = engine.state(lease)
    engine.tell(Reset(*lease))
    lease = lease[0], lease[1] + 1
    assert engine.state(lease)[:16] == bytes(16)
    engine.tell(Close(*lease))
    there = engine.begin(1)
    engine.tell(Put(*there, full))
    assert engine.hear(there) == " 2"


def test_a_model_that_lets_no_row_go_says_so_and_takes_none() -> None:
    engine = Engine(CountingModel(2))
    lease = engine.open()
    assert engine.tell(Export(*lease)) == CannotMove(*lease)
    assert engine.tell(Import(7, "counting", 0)) == Refused(7)


def test_a_row_of_another_model_is_not_taken_and_a_full_or_draining_engine_takes_none() -> None:
    engine = Engine(slots=1)
    assert engine.tell(Import(7, "another", 0)) == Refused(7)
    lease = engine.begin()
    assert engine.tell(Import(8, "counting", 0)) == Refused(8)
    engine.tell(Close(*lease))
    engine.tell(Drain())
    assert engine.tell(Import(9, "counting", 0)) == Refused(9)


def test_what_is_no_row_leaves_an_empty_slot_to_close() -> None:
    one, engine = Engine(), Engine(slots=1)
    state = one.state(one.open())
    lease = engine.begin()
    assert engine.tell(Put(*lease, state[:-1] + b"\xff")) == CannotMove(*lease)
    assert engine.tell(Put(*lease, state)) == CannotMove(*lease)
    assert engine.tell(Export(*lease)) == CannotMove(*lease)
    assert engine.hear(lease) == ""
    engine.tell(Close(*lease))
    assert engine.hear(engine.open()) == " 1"


def test_a_row_that_is_given_up_half_way_leaves_nothing() -> None:
    one, engine = Engine(), Engine(slots=1)
    state = one.state(one.open())
    lease = engine.begin()
    engine.tell(Put(*lease, state[:50]))
    engine.tell(Close(*lease))
    assert engine.tell(Put(*lease, state[50:])) == CannotMove(*lease)
    again = engine.begin()
    assert engine.tell(Put(*again, state)) == Taken(*again, SIZE, True)
    assert engine.hear(again) == " 1"

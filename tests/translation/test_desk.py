"""Inside a translator's process: each job is answered once, and a batch that hangs is not hidden."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence

import pytest

from lab.waiting import until
from rtc_server.engine.messages import Ping, Pong, Stop
from rtc_server.translation.desk import Arrived, Desk, outcomes_of
from rtc_server.translation.messages import (
    Done,
    Failed,
    Forget,
    FromTranslator,
    Job,
    Loaded,
    ToTranslator,
    decode_from_translator,
    decode_to_translator,
    encode,
)
from rtc_server.translation.model import Outcome, Translation, TranslatorInfo, Utterance


class Gated:
    """Translates once its gate is open. ``panic`` raises what is no Exception."""

    def __init__(self) -> None:
        self._info = TranslatorInfo("gated", frozenset({("en", "pt")}), frozenset(), batch=1)
        self.gate = threading.Event()
        self.texts: list[str] = []

    @property
    def info(self) -> TranslatorInfo:
        return self._info

    def warm_up(self) -> None:
        pass

    def translate(self, batch: Sequence[Utterance]) -> list[Outcome]:
        if any(utterance.text == "panic" for utterance in batch):
            raise BaseException
        self.texts += [utterance.text for utterance in batch]
        self.gate.wait()
        return [Translation(utterance.text, utterance.text, None) for utterance in batch]

    def close(self) -> None:
        pass


class Running:
    """A desk in a thread. ``said``: its answers."""

    def __init__(self, hang_s: float) -> None:
        self.model = Gated()
        self.said: list[FromTranslator] = []
        self._arrived: Arrived = queue.SimpleQueue()
        desk = Desk(self.model, self._arrived, self.said.append, hang_s)
        self._thread = threading.Thread(target=desk.run)
        self._thread.start()

    def tell(self, *messages: ToTranslator) -> None:
        for message in messages:
            self._arrived.put(message)

    def end(self) -> None:
        self.tell(Stop())
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.model.gate.set()


@contextlib.contextmanager
def desk(hang_s: float = 60.0) -> Iterator[Running]:
    running = Running(hang_s)
    try:
        yield running
    finally:
        running.end()


def job(number: int, text: str, within_s: float = 60.0) -> Job:
    return Job(number, within_s, "en", "pt", text, None, 0, False)


async def test_it_lives_while_it_computes() -> None:
    with desk() as running:
        running.tell(job(1, "a"), Ping())
        await until(lambda: running.said[1:] == [Pong()])
        assert isinstance(running.said[0], Loaded)
        running.model.gate.set()
        await until(lambda: [type(each) for each in running.said] == [Loaded, Pong, Done])


async def test_what_hangs_is_silent() -> None:
    """And so is seen by the other side, which ends it."""
    with desk(hang_s=0.0) as running:
        running.tell(Ping(), job(1, "a"), Ping(), Forget(99), Forget(1))
        await until(lambda: running.model.texts)
        running.tell(job(2, "b", within_s=0.0))
        await until(lambda: running.said[-1] == Failed(2, "translation_late"))
        assert [type(each) for each in running.said] == [Loaded, Pong, Failed]


async def test_what_is_forgotten_or_late_is_answered_and_not_computed() -> None:
    with desk() as running:
        running.tell(job(1, "a"), job(2, "b"), job(3, "c", within_s=0.0), Forget(2))
        await until(lambda: len(running.said) == 3)
        running.model.gate.set()
        await until(lambda: len(running.said) == 4)
        late = {each.number for each in running.said if isinstance(each, Failed)}
        assert late == {2, 3}
        assert running.model.texts == ["a"]


async def test_a_library_that_panics_costs_its_utterance_alone() -> None:
    with desk() as running:
        running.model.gate.set()
        running.tell(job(1, "panic"), job(2, "b"))
        await until(lambda: len(running.said) == 3)
        assert running.said[1] == Failed(1, "translation_failed")
        assert isinstance(running.said[2], Done)


def test_of_a_batch_that_breaks_each_is_tried_by_itself() -> None:
    model = Gated()
    model.gate.set()
    outcomes = outcomes_of(model, [Utterance("en", "pt", text) for text in ("a", "panic", "b")])
    assert [getattr(each, "text", None) or getattr(each, "code", None) for each in outcomes] == [
        "a",
        "translation_failed",
        "b",
    ]


@pytest.mark.parametrize("message", [job(1, "ä"), Forget(3), Ping(), Stop()])
def test_messages_come_as_they_went(message: ToTranslator) -> None:
    assert decode_to_translator(encode(message)) == message


def test_what_a_translator_is_comes_as_it_went() -> None:
    info = TranslatorInfo("x", frozenset({("en", "pt")}), frozenset({"en"}), frozenset({"pt"}), "notice", 4, 2)
    assert decode_from_translator(encode(Loaded(info))) == Loaded(info)

"""The child's end of a link, in this process: a pipe plays its standard input."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq

from rtc_server.engine.messages import Open, Ping, Pong, Stop, ToEngine, decode_from_engine, encode
from rtc_server.engine.process import ChildPort
from tests.support.waiting import until


@dataclass
class Ends:
    """Both ends: ``send`` and ``answers`` are the parent's sockets, ``parent`` its end of the pipe."""

    port: ChildPort
    send: zmq.Socket[bytes]
    answers: zmq.Socket[bytes]
    parent: contextlib.ExitStack

    def receive(self, count: int) -> list[ToEngine]:
        got: list[ToEngine] = []
        while len(got) < count:
            got += [message for message, _ in self.port.receive(20)]
        return got


def readers() -> int:
    return sum(thread.name == "engine-inbox" for thread in threading.enumerate())


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    inbox, outbox = (f"ipc://{tmp_path / name}" for name in ("i", "o"))
    read, write = os.pipe()
    with (
        contextlib.ExitStack() as parent,
        os.fdopen(read) as stdin,
        zmq.Context() as context,
        context.socket(zmq.PUSH) as send,
        context.socket(zmq.PULL) as answers,
    ):
        parent.callback(os.close, write)
        monkeypatch.setattr(sys, "stdin", stdin)
        send.linger = 0
        send.bind(inbox)
        answers.bind(outbox)
        port = ChildPort(inbox, outbox)
        try:
            yield Ends(port, send, answers, parent)
        finally:
            port.close()
    assert not readers()


async def test_what_comes_while_the_loop_is_busy_is_stamped_as_it_comes(ends: Ends) -> None:
    before = time.monotonic()
    ends.send.send(encode(Open(1)))
    await until(lambda: ends.port.waiting == 1)
    come = time.monotonic()
    ends.send.send(encode(Ping()))
    await until(lambda: ends.port.waiting == 2)
    first, second = ends.port.receive(0)
    assert (first.message, second.message) == (Open(1), Ping())
    assert before <= first.at_s <= come <= second.at_s <= time.monotonic()


def test_what_is_no_message_costs_itself(ends: Ends) -> None:
    for raw in (encode(Open(1)), b"\xc1", encode(Pong()), encode(Open(2))):
        ends.send.send(raw)
    assert ends.receive(2) == [Open(1), Open(2)]


def test_it_answers(ends: Ends) -> None:
    ends.port.send(Pong())
    assert ends.answers.poll(20_000)
    assert decode_from_engine(ends.answers.recv()) == Pong()


def test_the_end_of_its_standard_input_is_a_stop(ends: Ends) -> None:
    ends.parent.close()
    assert ends.receive(1) == [Stop()]
    ends.port.wait_for_end()
    assert not readers()


def test_a_close_ends_its_reader_also_while_there_is_no_room(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step hangs, and then the model raises."""
    monkeypatch.setattr("rtc_server.engine.inbox.Inbox.put", lambda *_: False)
    ends.send.send(encode(Ping()))
    ends.port.close()
    assert not readers()

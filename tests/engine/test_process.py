"""An engine in a process of its own; and the child's end in this one, where a pipe plays its standard input."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
import psutil
import pytest
import zmq

from lab.waiting import until
from rtc_server.engine.client import EngineClient
from rtc_server.engine.factory import SlotOptions
from rtc_server.engine.messages import Open, Ping, Pong, Ready, Stop, ToEngine, decode_from_engine, encode
from rtc_server.engine.process import ChildPort, ChildSpec, FirstLine, ProcessLink
from rtc_server.metrics import Metrics
from tests.support.engines import FAKES, Ear, child, echo_child, frame, running
from tests.support.fake_models import FakeOptions


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
            got += [arrival.message for arrival in self.port.receive(20)]
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


async def test_a_ctrl_c_in_the_terminal_is_not_the_engines_to_handle() -> None:
    async with running(echo_child()) as client:
        assert client.pid is not None
        os.kill(client.pid, signal.SIGINT)
        ear = Ear()
        (await client.open(ear)).push(frame())
        await until(lambda: ear.pcm)
        assert not ear.errors


async def test_an_engine_may_step_back_for_another() -> None:
    spec = dataclasses.replace(SPEC, niceness=3)
    async with running(EngineClient("fake", lambda: ProcessLink(spec), Metrics())) as client:
        assert client.pid is not None
        expected = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)
        assert os.getpriority(os.PRIO_PROCESS, client.pid) == expected


async def test_what_the_warm_up_has_made_is_not_looked_through_again() -> None:
    """On CUDA that is all that compiles the model: a collection of it is longer than a frame."""
    async with running(child(f"{FAKES}:compiling", FakeOptions(1))) as client:
        ear = Ear()
        (await client.open(ear)).push(frame())
        await until(lambda: ear.texts)
        assert ear.text == "left alone"


async def test_links_that_are_collected_leave_the_sockets_of_others_alone() -> None:
    """ZeroMQ gives a closed socket's handle to the next one: whoever closes twice closes somebody else's."""
    for _ in range(3):
        old = ProcessLink(ChildSpec("no:where", SlotOptions(1)))
        await old.close()
        link = ProcessLink(ChildSpec("no:where", SlotOptions(1)))
        del old
        gc.collect()
        assert not link._from_child.closed
        assert not link._to_child.closed
        await link.close()


SPEC = ChildSpec("rtc_server.models.echo:load", SlotOptions(1), log_level=logging.CRITICAL)


@dataclass
class Child:
    """A real one, whose parent the test plays by hand. ``stdin``: its standard input."""

    process: subprocess.Popen[bytes]
    stdin: IO[bytes]
    send: zmq.Socket[bytes]
    answers: zmq.Socket[bytes]
    first_line: bytes

    def tell_model(self) -> None:
        self.stdin.write(self.first_line)
        self.stdin.flush()


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[Child]:
    inbox, outbox = (f"ipc://{tmp_path / name}" for name in ("i", "o"))
    command = [sys.executable, "-m", "rtc_server.engine.process"]
    with zmq.Context() as context, context.socket(zmq.PULL) as answers, context.socket(zmq.PUSH) as send:
        answers.bind(outbox)
        send.bind(inbox)
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            first_line = msgspec.json.encode(FirstLine.of(SPEC, inbox, outbox)) + b"\n"
            yield Child(process, process.stdin, send, answers, first_line)


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "before it knows its model"])
def test_a_child_whose_standard_input_ends_ends_too(loaded: bool, by_hand: Child) -> None:
    """That is how it learns that its parent is gone."""
    if loaded:
        by_hand.tell_model()
        assert by_hand.answers.poll(20_000)
        assert isinstance(decode_from_engine(by_hand.answers.recv()), Ready)
    by_hand.stdin.close()
    assert by_hand.process.wait(20) == 0


def test_a_child_that_is_told_to_stop_ends_well(by_hand: Child) -> None:
    by_hand.tell_model()
    by_hand.send.send(encode(Stop()))
    assert by_hand.process.wait(20) == 0


PARENT = """
import asyncio
from rtc_server.engine.client import EngineClient
from rtc_server.engine.factory import SlotOptions
from rtc_server.engine.process import ChildSpec, ProcessLink
from rtc_server.metrics import Metrics

async def main():
    spec = ChildSpec("rtc_server.models.echo:load", SlotOptions(1), log_level=50)
    client = EngineClient("echo", lambda: ProcessLink(spec), Metrics())
    client.start()
    await client.wait_settled()
    print(client.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_parent_that_is_killed_takes_its_engine_along(private_directory: Path) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE)
    try:
        assert parent.stdout is not None
        engine = psutil.Process(int(await parent.stdout.readline()))
    finally:
        parent.kill()
        await parent.wait()
    # Where no init process reaps orphans, one that has ended stays on as a zombie.
    await until(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE)

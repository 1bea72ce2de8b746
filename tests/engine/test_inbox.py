"""Messages wait for the step loop in their order, each with the time at which it came."""

from __future__ import annotations

import threading

from rtc_server.engine.inbox import Arrival, Inbox
from rtc_server.engine.messages import Close, Open, Ping, Stop


def test_a_message_is_stamped_when_it_comes_and_not_when_it_is_read() -> None:
    now = iter([1.0, 2.5, 9.0])
    inbox = Inbox(lambda: next(now))
    assert inbox.put(Open(1))
    assert inbox.put(Ping())
    assert list(inbox.receive(0)) == [Arrival(Open(1), 1.0), Arrival(Ping(), 2.5)]
    assert inbox.put(Stop())
    assert list(inbox.receive(None)) == [Arrival(Stop(), 9.0)]


def test_without_a_message_it_waits_as_long_as_it_is_told_to() -> None:
    inbox = Inbox(lambda: 0.0)
    assert list(inbox.receive(0)) == []
    assert list(inbox.receive(0.001)) == []


def test_what_comes_ends_the_waiting() -> None:
    inbox = Inbox(lambda: 3.0)
    got: list[Arrival] = []
    reader = threading.Thread(target=lambda: got.extend(inbox.receive(None)))
    reader.start()
    inbox.put(Ping())
    reader.join(20)
    assert got == [Arrival(Ping(), 3.0)]


def test_when_it_is_full_a_message_is_refused_and_those_that_wait_are_kept() -> None:
    inbox = Inbox(lambda: 0.0, size=2)
    assert [inbox.put(Close(0, number)) for number in range(3)] == [True, True, False]
    assert not inbox.put(Close(0, 4), wait_s=0.001)
    assert len(inbox) == 2
    assert [arrival.message for arrival in inbox.receive(0)] == [Close(0, 0), Close(0, 1)]

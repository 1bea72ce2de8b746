"""A datagram that cannot be read: no word of it, unless the fault is this package's own, and then not often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aioice import stun

from rtc_server.webrtc.datagrams import kind_of
from rtc_server.webrtc.faults import SELDOM_S, Faults


def raised(work: Callable[[Any], object], datagram: Any) -> Exception:
    with pytest.raises((TypeError, ValueError)) as caught:
        work(datagram)
    return caught.value


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def test_what_a_library_cannot_read_is_no_line(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    for _ in range(100):
        faults.on_useless(raised(stun.parse_message, b""))
    assert not told(caplog)


def test_a_fault_of_ours_is_told_with_its_place_and_seldom(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    faults = Faults(lambda: now)
    for _ in range(100):
        faults.on_useless(raised(kind_of, None))
    assert len(told(caplog)) == 1
    assert caplog.records[-1].exc_info is not None
    now = SELDOM_S
    faults.on_useless(raised(kind_of, None))
    assert told(caplog)[1:] == ["a datagram met a fault of ours; 99 since the last that was told"]

"""The wheel: what waits is woken at the tick that follows, together, in order, and none of it is forgotten."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator

import pytest

from rtc_server.bundled import PACKAGE
from rtc_server.system.wheel import TICK_S, Wheel
from tests.support.virtual_time import START_S, in_virtual_time, now, virtual_loop

TOLERANCE_S = 1e-6


class Sleepers:
    """Tasks that wait for a moment each, and note when they were woken."""

    def __init__(self, wheel: Wheel) -> None:
        self.woken: list[tuple[str, float]] = []
        self._wheel = wheel

    def add(self, name: str, after_s: float) -> asyncio.Task[None]:
        return asyncio.create_task(self._sleep(name, START_S + after_s), name=name)

    async def _sleep(self, name: str, when: float) -> None:
        await self._wheel.sleep_until(when)
        self.woken.append((name, now() - START_S))


def at(*expected: tuple[str, float]) -> list[tuple[str, object]]:
    return [(name, pytest.approx(seconds, abs=TOLERANCE_S)) for name, seconds in expected]


@in_virtual_time
async def test_what_waits_is_woken_at_the_next_tick_and_never_before() -> None:
    sleepers = Sleepers(Wheel(now))
    await asyncio.gather(
        *(sleepers.add(f"{after_s * 1000:g}", after_s) for after_s in (0.0301, 0.0101, 0.015, 0.02, 0.0001, 0.0299))
    )
    assert sleepers.woken == at(
        ("0.1", 0.005), ("10.1", 0.015), ("15", 0.015), ("20", 0.02), ("29.9", 0.03), ("30.1", 0.035)
    )


@in_virtual_time
async def test_all_of_a_tick_cost_one_timer() -> None:
    wheel, loop, timers = Wheel(now), virtual_loop(), []
    real = loop.call_later

    def noted(delay: float, *arguments: object) -> asyncio.TimerHandle:
        timers.append(delay)
        return real(delay, *arguments)  # type: ignore[arg-type]

    loop.call_later = noted  # type: ignore[method-assign, assignment]
    for tick in range(1, 51):
        await asyncio.gather(*(wheel.sleep_until(START_S + tick * TICK_S - number * 0.0002) for number in range(40)))
    assert len(timers) == 50


@in_virtual_time
async def test_a_moment_that_has_to_be_kept_is_approached_by_ticks() -> None:
    """Mostly it is put off before it is near, and then there is no timer of its own."""
    wheel = Wheel(now)
    await wheel.sleep_towards(START_S + 0.034)
    assert now() == pytest.approx(START_S + 0.03, abs=TOLERANCE_S)
    await wheel.sleep_towards(START_S + 0.034)
    assert now() == pytest.approx(START_S + 0.034, abs=TOLERANCE_S)
    await wheel.sleep_towards(START_S + 0.04)
    assert now() == pytest.approx(START_S + 0.04, abs=TOLERANCE_S)
    await wheel.sleep_towards(START_S)
    assert now() == pytest.approx(START_S + 0.04, abs=TOLERANCE_S)


@in_virtual_time
async def test_what_is_past_returns_after_the_loop_has_come_round() -> None:
    """Else a task that is always late would have the loop for itself."""
    wheel, order = Wheel(now), []
    asyncio.get_running_loop().call_soon(order.append, "another")
    await wheel.sleep_until(START_S - 1)
    order.append("late")
    assert order == ["another", "late"]
    assert now() == START_S


@in_virtual_time
async def test_a_loop_that_was_held_up_catches_up_in_order() -> None:
    sleepers = Sleepers(Wheel(now))
    tasks = [sleepers.add(name, after_s) for name, after_s in (("c", 0.03), ("a", 0.01), ("d", 0.2), ("b", 0.02))]
    await asyncio.sleep(0)
    virtual_loop().stall(0.1)
    await asyncio.gather(*tasks)
    assert sleepers.woken == at(("a", 0.1), ("b", 0.1), ("c", 0.1), ("d", 0.2))


@in_virtual_time
async def test_one_that_comes_later_and_is_due_sooner_is_woken_first() -> None:
    sleepers = Sleepers(Wheel(now))
    late = sleepers.add("late", 1.0)
    await asyncio.sleep(0.005)
    await sleepers.add("soon", 0.02)
    await late
    assert sleepers.woken == at(("soon", 0.02), ("late", 1.0))


@in_virtual_time
async def test_one_that_is_called_off_holds_up_no_other_and_stays_no_longer_than_its_tick() -> None:
    wheel = Wheel(now)
    sleepers = Sleepers(wheel)
    gone, stays = sleepers.add("gone", 0.03), sleepers.add("stays", 0.03)
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    await stays
    assert sleepers.woken == at(("stays", 0.03))
    assert not wheel._sleepers
    assert wheel._timer is None


@in_virtual_time
async def test_the_next_tick_is_on_the_grid_and_is_waited_for_as_itself() -> None:
    """From a tick on, every fourth one is 20 ms further, for hours."""
    wheel = Wheel(now)
    start = wheel.snap(START_S + 0.0134)
    assert start == pytest.approx(START_S + 0.015)
    assert wheel.snap(start) == start
    for number in (*range(5), 1_000_003):
        await wheel.sleep_until(start + number * 0.02)
        assert now() == pytest.approx(start + number * 0.02, abs=TOLERANCE_S)


def test_a_server_has_one_for_all_that_waits() -> None:
    """All else is given it: a second one would wake the loop on its own."""
    makers = [
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Wheel"
    ]
    assert makers == ["sessions/registry.py"]


def test_it_wakes_by_the_real_loops_too() -> None:
    """Whatever they count in: never more than a millisecond early."""

    async def early_s() -> list[float]:
        wheel, found = Wheel(), []
        for wait_s in (0.0003, 0.004, 0.0101, 0.0177, 0.0299):
            due = wheel.now() + wait_s
            await wheel.sleep_until(due)
            found.append(due - wheel.now())
        return found

    for found in (asyncio.run(early_s()), *_by_uvloop(early_s)):
        assert max(found) < 0.002


def _by_uvloop(work: object) -> Iterator[list[float]]:
    try:
        import uvloop
    except ImportError:
        return
    yield uvloop.run(work())  # type: ignore[operator]

"""The engine's client: slots are opened and given back, outputs find their stream, and what is known of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import threading
from collections import Counter
from pathlib import Path

import msgspec
import psutil
import pytest

from lab.waiting import until
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.messages import Close, MemoryChanged, Open, Opened, Output, Pong, Refused, StepDone
from rtc_server.engine.model import MemoryUse, ModelInfo, PagesUse, ServiceKind
from rtc_server.engine.stream import EngineStream
from rtc_server.engine.supervisor import EngineState
from rtc_server.errors import EngineUnavailable, ServerFull
from tests.support.engines import KINDS, READY, Ear, Scripted, echo_child, frame, is_empty, local, running
from tests.support.fake_models import CountingModel, GatedModel


@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_from_open_to_close(kind: str) -> None:
    """Ready, open, push, hear, refuse when full, give back, start afresh."""
    async with running(KINDS[kind](2)) as client:
        assert client.state is EngineState.READY
        assert client.info == ModelInfo("counting", ServiceKind.DIALOGUE, 2, "cpu", True, True)
        ears = [Ear(), Ear()]
        streams = [await client.open(ear) for ear in ears]
        assert {stream.slot for stream in streams} == {0, 1}
        with pytest.raises(ServerFull):
            await client.open(Ear())
        assert streams[0].push(frame())
        await until(lambda: ears[0].texts == [" 1"])
        assert streams[0].push(frame())
        assert streams[1].push(frame())
        await until(lambda: ears[0].texts == [" 1", " 2"] and ears[1].texts == [" 1"])
        pcm = ears[0].pcm[1]
        assert pcm is not None
        assert pcm.shape == (FRAME_SAMPLES,)
        assert pcm[0] == pytest.approx(0.002)
        assert (pcm[1:] == 0.5).all()
        assert all(seconds is not None and 0 <= seconds < 20 for seconds in ears[0].engine_s)
        assert client.slots_used == 2

        streams[0].close()
        streams[0].close()
        assert not streams[0].push(frame())
        newcomer = Ear()
        stream = await client.open(newcomer)
        assert (stream.slot, stream.generation) == (streams[0].slot, streams[0].generation + 1)
        stream.push(frame())
        await until(lambda: newcomer.texts == [" 1"])
        assert ears[0].texts == [" 1", " 2"]
        stream.reset()
        stream.push(frame())
        await until(lambda: newcomer.texts == [" 1", " 1"])


async def test_what_the_model_holds_can_be_read_off() -> None:
    """From the moment it is ready, whenever it changes, and no longer once the engine is gone."""
    scripted = Scripted()

    def gauges() -> list[float]:
        held = [scripted.count("rtc_engine_memory_bytes", service="fake", kind=k) for k in ("weights", "cache", "rest")]
        return [*held, scripted.count("rtc_device_memory_bytes", service="fake", kind="free")]

    async with running(scripted.client) as client:
        scripted.link.say(msgspec.structs.replace(READY, memory=MemoryUse(100, 20, 0, 7, 200)))
        assert (client.memory, gauges()) == (MemoryUse(100, 20, 0, 7, 200), [100, 20, 0, 7])
        scripted.link.say(MemoryChanged(MemoryUse(100, 20, 5, 6, 200)))
        assert (client.memory, gauges()) == (MemoryUse(100, 20, 5, 6, 200), [100, 20, 5, 6])
        scripted.link.end()
        await until(lambda: client.memory == MemoryUse())
        assert gauges()[:3] == [0, 0, 0]


async def test_nothing_is_opened_before_the_engine_is_ready() -> None:
    scripted = Scripted()
    with pytest.raises(EngineUnavailable):
        await scripted.client.open(Ear())
    assert scripted.client.state is EngineState.LOADING
    assert scripted.client.pid is None


async def test_after_the_close_nothing_works_and_nothing_hangs() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        stream = await scripted.open()
        assert scripted.client.pid == 4711
    assert scripted.link.closed
    assert scripted.client.state is EngineState.CLOSED
    assert not stream.push(frame())
    with pytest.raises(EngineUnavailable):
        await scripted.client.open(Ear())
    await scripted.client.close()


async def test_a_close_refuses_whoever_is_being_let_in() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        opening = asyncio.create_task(scripted.client.open(Ear()))
        await until(lambda: scripted.link.sent)
    with pytest.raises(EngineUnavailable):
        await opening


async def test_a_client_may_be_closed_before_it_was_started_or_has_loaded() -> None:
    await Scripted().client.close()
    client = echo_child()
    client.start()
    await client.close()
    assert client.state is EngineState.CLOSED


async def test_a_cancelled_open_gives_the_slot_back_when_the_answer_comes() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        opening = asyncio.create_task(scripted.client.open(Ear()))
        await until(lambda: scripted.link.sent)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        scripted.link.say(Opened(1, 1, 7))
        assert scripted.link.sent == [Open(1), Close(1, 7)]


async def test_an_open_cancelled_in_the_moment_of_its_answer_gives_the_slot_back() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        opening = asyncio.create_task(scripted.client.open(Ear()))
        await until(lambda: scripted.link.sent)
        scripted.link.say(Opened(1, 1, 7))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert scripted.link.sent == [Open(1), Close(1, 7)]


async def test_an_open_cancelled_in_the_moment_of_its_refusal_is_cancelled() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        opening = asyncio.create_task(scripted.client.open(Ear()))
        await until(lambda: scripted.link.sent)
        scripted.link.say(Refused(1))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert scripted.link.sent == [Open(1)]


async def test_an_open_that_is_not_answered_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """And when the answer comes after all, the slot goes back."""
    monkeypatch.setattr("rtc_server.engine.client._OPEN_TIMEOUT_S", 0.02)
    scripted = Scripted()
    async with running(scripted.client):
        with pytest.raises(EngineUnavailable):
            await scripted.client.open(Ear())
        scripted.link.say(Opened(1, 0, 1))
        assert scripted.link.sent == [Open(1), Close(0, 1)]


async def test_an_engine_that_takes_nothing_refuses_at_once() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        stream = await scripted.open()
        scripted.link.taking = False
        with pytest.raises(EngineUnavailable):
            await scripted.client.open(Ear())
        assert not stream.push(frame())
        assert scripted.count("rtc_frames_dropped_total", reason="engine_busy") == 1


async def test_a_slot_of_an_engine_that_ends_in_the_moment_of_its_answer_is_not_handed_out() -> None:
    """Its number may be that of another caller's slot in the next engine."""
    scripted = Scripted()
    async with running(scripted.client):
        opening = asyncio.create_task(scripted.client.open(Ear()))
        await until(lambda: scripted.link.sent)
        scripted.link.end()
        scripted.link.say(Opened(1, 0, 1))
        with pytest.raises(EngineUnavailable):
            await opening
        assert (scripted.client.slots_used, scripted.client.slots_asked_for) == (0, 0)


async def test_opens_are_answered_each_with_their_own_slot() -> None:
    """In whatever order the answers come."""
    scripted = Scripted()
    async with running(scripted.client):
        openings = [asyncio.create_task(scripted.client.open(Ear())) for _ in range(3)]
        await until(lambda: len(scripted.link.sent) == 3)
        scripted.link.say(Opened(3, 1, 5))
        scripted.link.say(Refused(1))
        scripted.link.say(Opened(2, 0, 9))
        first, second, third = await asyncio.gather(*openings, return_exceptions=True)
        assert isinstance(first, ServerFull)
        assert isinstance(second, EngineStream)
        assert isinstance(third, EngineStream)
        assert (second.slot, second.generation, third.slot, third.generation) == (0, 9, 1, 5)


async def test_slots_that_are_only_lent_go_to_callers_who_ask_for_their_own() -> None:
    """The newest first, and none as long as there is a free one."""
    async with running(local(lambda: CountingModel(3))) as client:
        lent = [Ear(), Ear()]
        streams = [await client.open(ear, spare=True) for ear in lent]
        await client.open(Ear())
        assert not client.has_room
        with pytest.raises(ServerFull):
            await client.open(Ear(), spare=True)
        assert [ear.errors for ear in lent] == [[], []], "those that are lent take none from each other"
        own = await client.open(Ear())
        assert [[each.code for each in ear.errors] for ear in lent] == [[], ["server_full"]]
        assert [stream.closed for stream in streams] == [False, True]
        await client.open(Ear())
        assert [stream.closed for stream in streams] == [True, True]
        with pytest.raises(ServerFull):
            await client.open(Ear())
        own.close()
        await client.open(Ear(), spare=True)
        assert client.slots_used == 3


async def test_a_lent_slot_that_was_given_back_or_lost_is_taken_from_no_one() -> None:
    scripted = Scripted()
    async with running(scripted.client) as client:
        for end in ("closed", "lost"):
            before = len(scripted.link.sent)
            opening = asyncio.create_task(client.open(Ear(), spare=True))
            await until(lambda before=before: len(scripted.link.sent) > before)
            scripted.link.say(Opened(scripted.link.sent[-1].stream, 0, 1))  # type: ignore[union-attr]
            stream = await opening
            if end == "closed":
                stream.close()
            else:
                scripted.link.end()
                await until(lambda: len(scripted.links) == 2 and client.ready)
            before = len(scripted.link.sent)
            opening = asyncio.create_task(client.open(Ear()))
            await until(lambda before=before: len(scripted.link.sent) > before)
            scripted.link.say(Refused(scripted.link.sent[-1].stream))  # type: ignore[union-attr]
            with pytest.raises(ServerFull):
                await opening


async def test_steps_of_before_an_engine_stood_idle_count_no_more() -> None:
    scripted = Scripted()
    async with running(scripted.client) as client:
        stream = await scripted.open()
        for _ in range(64):
            scripted.link.say(StepDone(9.0, 0, []))
        stream.close()
        assert client.step_p50_ms == pytest.approx(9000)
        await scripted.open()
        assert client.step_p50_ms is None


async def test_step_time_is_the_median_once_there_are_enough() -> None:
    """And is forgotten with the engine that it was measured on."""
    scripted = Scripted()
    async with running(scripted.client):
        for _ in range(31):
            scripted.link.say(StepDone(0.05, 0, []))
        assert scripted.client.step_p50_ms is None
        scripted.link.say(StepDone(9.0, 0, []))
        assert scripted.client.step_p50_ms == pytest.approx(50)
        for _ in range(64):
            scripted.link.say(StepDone(0.07, 0, []))
        assert scripted.client.step_p50_ms == pytest.approx(70)
        scripted.link.end()
        await until(lambda: not scripted.client.ready)
        assert scripted.client.step_p50_ms is None


async def test_what_an_engine_reports_moves_the_metrics() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        stream = await scripted.open(0, 1)
        stream.push(frame())
        scripted.link.say(StepDone(0.05, 3, [Output(0, 1, 1, None, "")], 7))
        scripted.link.say(StepDone(0.05, 0, []))  # which another owner counts
        assert scripted.client.slots_used == 1
        assert scripted.count("rtc_slots", service="fake") == 2
        assert scripted.count("rtc_slots_used", service="fake") == 1
        assert scripted.count("rtc_frames_dropped_total", reason="engine_queue") == 3
        assert scripted.count("rtc_step_seconds_count", service="fake") == 1
        assert scripted.count("rtc_step_rows_sum", service="fake") == 7
        assert scripted.count("rtc_frame_seconds_count", service="fake") == 1
        scripted.link.end()
        await until(lambda: scripted.count("rtc_engine_restarts_total", service="fake") == 1)
        assert scripted.count("rtc_slots_used", service="fake") == 0


async def test_an_engine_that_ends_costs_those_who_are_in_it_and_those_at_the_door() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        ear = Ear()
        stream = await scripted.open(0, 1, ear)
        opening = asyncio.create_task(scripted.client.open(Ear()))
        await until(lambda: isinstance(scripted.link.sent[-1], Open))
        scripted.link.end()
        with pytest.raises(EngineUnavailable):
            await opening
        assert [error.code for error in ear.errors] == ["engine_failed"]
        assert stream.closed
        assert scripted.client.state is EngineState.RESTARTING
        await until(lambda: scripted.client.ready)
        assert len(scripted.links) == 2
        assert scripted.links[0].closed
        stream.close()
        assert not scripted.link.sent, "a dead stream says nothing to the next engine"


async def test_a_cancelled_open_leaves_no_slot_taken() -> None:
    """The engine is in the middle of a step, so that the answer comes after the caller has gone."""
    model = GatedModel(2)
    async with running(local(lambda: model)) as client:
        stream = await client.open(Ear())
        stream.push(frame())
        await asyncio.to_thread(model.wait_entered)
        opening = asyncio.create_task(client.open(Ear()))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        model.gate.release(1000)
        with contextlib.suppress(ServerFull):  # the slot is on its way back while the engine answers this one
            (await client.open(Ear())).close()
        await client.open(Ear())
        with pytest.raises(ServerFull):
            await client.open(Ear())
        stream.close()
        assert (await client.open(Ear())).slot == 0


async def test_the_model_runs_in_one_thread_which_is_not_the_event_loops() -> None:
    model = CountingModel(1)
    async with running(local(lambda: model)) as client:
        ear = Ear()
        stream = await client.open(ear)
        for turn in range(5):
            stream.push(frame())
            await until(lambda turn=turn: len(ear.texts) == turn + 1)
        assert model.warm
    assert model.threads == {"engine"}
    assert model.closed


def held() -> Counter[str]:
    """What this process holds: threads (ours and ZeroMQ's; the event loop makes and keeps its own as it needs them),
    descriptors, children, tasks."""
    me = psutil.Process()
    return Counter(
        threads=me.num_threads() - sum("asyncio_" in thread.name for thread in threading.enumerate()),
        descriptors=me.num_fds(),
        **{f"child {each.pid}": 1 for each in me.children()},
        **Counter(f"task {task.get_name()}" for task in asyncio.all_tasks()),
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_close_leaves_nothing_behind(kind: str, private_directory: Path) -> None:
    """No process, thread, task, descriptor or directory, be the stream closed or not."""

    async def live() -> None:
        async with running(KINDS[kind](2)) as client:
            ear = Ear()
            stream = await client.open(ear)
            stream.push(frame())
            await until(lambda: ear.texts)

    await live()  # what is made once and kept belongs to the process, not to the engine
    gc.collect()  # what tests before left to it would be given back meanwhile
    before = held()
    await live()
    await until(lambda: held() <= before, "all of it given back")
    assert is_empty(private_directory)


async def test_an_engine_whose_memory_is_short_has_no_room_until_it_says_so() -> None:
    """With a slot free: what it told last counts, less those who have come since."""
    scripted = Scripted()
    async with running(scripted.client) as client:
        client.info = dataclasses.replace(READY.info, slots=8)
        assert (client.room, client.pages) == (8, None)
        scripted.link.say(Pong(1, PagesUse(230, 60, 2)))
        assert client.room == 2
        assert [scripted.count("rtc_pages", service="fake", kind=kind) for kind in ("free", "total")] == [60, 230]
        stream = await scripted.open(0)
        assert (client.room, client.has_room) == (1, True)
        await scripted.open(1)
        assert (client.room, client.slots_free) == (0, 5)
        waiting = asyncio.create_task(client.wait_room())
        scripted.link.say(Pong(1, PagesUse(230, 12, 0)))
        stream.close()
        await asyncio.sleep(0)
        assert not waiting.done()
        scripted.link.say(Pong(1, PagesUse(230, 36, 1)))
        await waiting
        scripted.link.end()
        await until(lambda: client.pages is None)
        assert scripted.count("rtc_pages", service="fake", kind="total") == 0

"""The step loop with a device that computes apart: while it does, outputs of the step before are sent and frames are
taken; what clients hear, and in which order, is what they would hear otherwise."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.engine.core import EngineCore, run
from rtc_server.engine.inbox import Arrival
from rtc_server.engine.messages import (
    Close,
    Export,
    Exported,
    Frame,
    FromEngine,
    Open,
    Opened,
    Output,
    Ping,
    Pong,
    Ready,
    Reset,
    StepDone,
    Stop,
    ToEngine,
)
from rtc_server.engine.model import BoolArray, FloatArray, RowOutput
from rtc_server.engine.owners import HOST, Owner
from rtc_server.engine.slots import QUEUE_FRAMES
from tests.engine.test_core import pcm
from tests.support.fake_models import MovingModel

MANY = 16
"""Rows whose outputs are worth holding."""


class Device(MovingModel):
    """Computes apart. What happens is written down in ``story``, in words. ``fails_at``: the launch that raises."""

    computes_apart = True

    def __init__(self, slots: int, story: list[str] | None = None, fails_at: int = 0) -> None:
        super().__init__(slots, padding=0)
        self.story = [] if story is None else story
        self._fails_at = fails_at
        self._launched = 0
        self.computing = False

    def reset(self, rows: BoolArray) -> None:
        assert not self.computing
        self.story.append("wipe")
        super().reset(rows)

    def export_row(self, row: int):  # type: ignore[no-untyped-def]
        assert not self.computing
        return super().export_row(row)

    def launch(self, pcm: FloatArray, active: BoolArray) -> OnDevice:
        self._launched += 1
        if self._launched == self._fails_at:
            raise RuntimeError("the device is gone")
        self.story.append(f"launch {self._launched}")
        self.computing = True
        return OnDevice(self, self._launched, self.step(pcm, active))


class OnDevice:
    """Checks that it is used as it may be."""

    def __init__(self, device: Device, number: int, made: list[RowOutput | None]) -> None:
        self._device = device
        self._number = number
        self._made: list[RowOutput | None] | None = made
        self._waited = False

    def wait(self) -> None:
        assert not self._waited
        assert self._device.computing
        self._device.computing = False
        self._waited = True
        self._device.story.append(f"wait {self._number}")

    def outputs(self) -> list[RowOutput | None]:
        assert self._waited
        assert self._device._launched <= self._number + 1
        made, self._made = self._made, None
        assert made is not None, "outputs are made once"
        return made


class Port:
    """Hands over one batch of messages a time, and then the end. What is sent is in the story as well."""

    def __init__(self, batches: list[list[ToEngine]], story: list[str] | None = None) -> None:
        self._batches = batches
        self._story = [] if story is None else story
        self.sent: list[FromEngine] = []

    def receive(self, wait_s: float | None) -> Iterable[Arrival]:
        if wait_s != 0:
            self._story.append("idle")
        return [Arrival(message, 0.0) for message in (self._batches.pop(0) if self._batches else [Stop()])]

    def send(self, message: FromEngine, owner: Owner = HOST) -> None:
        assert owner == HOST
        self.sent.append(message)
        if not isinstance(message, Ready | Opened):
            self._story.append(f"send {type(message).__name__}")


def opens(slots: int) -> list[ToEngine]:
    return [Open(slot) for slot in range(slots)]


def frames(slots: int, seq: int) -> list[ToEngine]:
    return [Frame(slot, 1, seq, pcm()) for slot in range(slots)]


def story_of(slots: int, batches: list[list[ToEngine]], fails_at: int = 0) -> list[str]:
    story: list[str] = []
    run(EngineCore(Device(slots, story, fails_at)), Port([opens(slots), *batches], story), lambda: 0.0)
    return story[story.index("launch 1") :]


def test_outputs_are_sent_while_the_next_step_is_computed() -> None:
    """The step after, for which nothing has come, is not waited for."""
    story = story_of(MANY, [[*frames(MANY, 1), *frames(MANY, 2)], [], [], [], []])
    assert story == [
        *("launch 1", "wait 1"),
        *("launch 2", "send StepDone", "wait 2"),
        *("send StepDone", "idle"),
    ]


def test_frames_that_come_during_a_step_are_in_the_next() -> None:
    """They are taken while it is computed: nothing is between one step and the launch of another."""
    story = story_of(MANY, [frames(MANY, 1), frames(MANY, 2), [], []])
    assert story[:5] == ["launch 1", "wait 1", "launch 2", "send StepDone", "wait 2"]


def test_outputs_of_few_rows_leave_at_once() -> None:
    """They would wait for a launch longer than they take."""
    story = story_of(2, [[*frames(2, 1), *frames(2, 2)], [], []])
    assert story[:6] == ["launch 1", "wait 1", "send StepDone", "launch 2", "wait 2", "send StepDone"]


def test_an_answer_does_not_overtake_the_outputs() -> None:
    two = [*frames(MANY, 1), *frames(MANY, 2)]
    story = story_of(MANY, [two, [], [Ping()], []])
    assert story[:6] == ["launch 1", "wait 1", "send StepDone", "send Pong", "launch 2", "wait 2"]


@pytest.mark.parametrize("message", [Reset(0, 1), Close(0, 1)])
def test_a_row_is_wiped_after_its_outputs_were_made(message: ToEngine) -> None:
    two = [*frames(MANY, 1), *frames(MANY, 2)]
    story = story_of(MANY, [two, [], [message], []])
    assert story[:6] == ["launch 1", "wait 1", "send StepDone", "wipe", "launch 2", "wait 2"]


def test_what_is_no_frame_waits_until_the_step_is_over() -> None:
    """And so does what comes behind it: a frame of the slot's next user is none of this one's."""
    coming: list[ToEngine] = [Close(0, 1), Open(77), Frame(0, 2, 9, pcm())]
    port = Port([opens(1), frames(1, 1), coming, []])
    model = Device(1)
    run(EngineCore(model), port, lambda: 0.0)
    done = [message for message in port.sent if isinstance(message, StepDone)]
    assert [[(output.generation, output.seq, output.text) for output in each.outputs] for each in done] == [
        [(1, 1, " 1")],
        [(2, 9, " 1")],
    ]
    assert model.story[:4] == ["launch 1", "wait 1", "wipe", "launch 2"]


def test_a_copy_of_a_row_is_of_the_moment_after_its_last_output() -> None:
    port = Port([opens(MANY), [*frames(MANY, 1), *frames(MANY, 2)], [], [Export(0, 1)], []])
    run(EngineCore(Device(MANY)), port, lambda: 0.0)
    kinds = [type(message) for message in port.sent if not isinstance(message, Ready | Opened)]
    assert kinds == [StepDone, Exported, StepDone]
    (copy,) = [message for message in port.sent if isinstance(message, Exported)]
    assert (copy.heard, copy.seq) == (1, 1)


def test_what_was_made_is_sent_although_the_next_launch_fails() -> None:
    story: list[str] = []
    port = Port([opens(MANY), [*frames(MANY, 1), *frames(MANY, 2)], [], []], story)
    with pytest.raises(RuntimeError, match="the device is gone"):
        run(EngineCore(Device(MANY, story, fails_at=2)), port, lambda: 0.0)
    assert story[-1] == "send StepDone"


def test_a_stop_ends_the_engine_after_the_outputs() -> None:
    story = story_of(MANY, [[*frames(MANY, 1), *frames(MANY, 2)], [], [Stop()]])
    assert story == ["launch 1", "wait 1", "send StepDone"]


ACTION = st.one_of(
    st.tuples(st.just("frame"), st.integers(0, MANY)),
    st.tuples(st.sampled_from(["reset", "reopen", "ping", "export"]), st.integers(0, MANY)),
)


@given(st.lists(st.lists(ACTION, max_size=30), max_size=8))
def test_every_stream_hears_what_it_would_hear_of_a_model_that_computes_at_once(
    plan: list[list[tuple[str, int]]],
) -> None:
    """Whatever comes, and when."""
    batches, last = messages_of(plan)
    heard = []
    for model in (Device(MANY + 1), MovingModel(MANY + 1, padding=0)):
        port = Port([opens(MANY + 1), *map(list, batches), *([[]] * 40)])
        run(EngineCore(model), port, lambda: 0.0)
        outputs: dict[tuple[int, int], list[Output]] = {}
        for message in port.sent:
            if isinstance(message, StepDone):
                for output in message.outputs:
                    outputs.setdefault((output.slot, output.generation), []).append(output)
        assert not any(message.dropped for message in port.sent if isinstance(message, StepDone))
        heard.append((outputs, sum(isinstance(message, Pong | Exported) for message in port.sent)))
    assert heard[0][1] == heard[1][1]
    for lease in heard[0][0].keys() | heard[1][0].keys():
        one, other = (each[0].get(lease, []) for each in heard)
        slot, generation = lease
        # A reset may come before a frame is heard or after.
        size = max(len(one), len(other)) if generation == last[slot] else min(len(one), len(other))
        assert one[:size] == other[:size]


def messages_of(plan: list[list[tuple[str, int]]]) -> tuple[list[list[ToEngine]], list[int]]:
    """With the last generation of each slot. None has more frames waiting than room: at most one a batch."""
    generations = [1] * (MANY + 1)
    batches = []
    for number, actions in enumerate(plan[:QUEUE_FRAMES]):
        batch: list[ToEngine] = []
        told = set()
        for kind, slot in actions:
            lease = slot, generations[slot]
            if kind == "frame" and slot not in told:
                told.add(slot)
                batch.append(Frame(*lease, number, pcm((slot + number) / 64)))
            elif kind == "reset":
                batch.append(Reset(*lease))
                generations[slot] += 1
            elif kind == "reopen":
                batch.extend([Close(*lease), Open(100)])
                generations[slot] += 1
            elif kind == "ping":
                batch.append(Ping())
            elif kind == "export":
                batch.append(Export(*lease))
        batches.append(batch)
    return batches, generations


def test_a_model_that_computes_when_it_is_launched_is_stepped_as_before() -> None:
    story: list[str] = []
    model = Device(MANY, story)
    model.computes_apart = False
    run(EngineCore(model), Port([opens(MANY), [*frames(MANY, 1), *frames(MANY, 2)], [], []], story), lambda: 0.0)
    assert story == ["idle", "idle", "send StepDone", "send StepDone", "idle", "idle"]

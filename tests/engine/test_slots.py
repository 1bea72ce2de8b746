"""The slot table: leases that cannot be confused, bounded queues, and rows that are wiped exactly once."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.owners import HOST
from rtc_server.engine.slots import QUEUE_FRAMES, Adopted, SlotTable
from tests.support.signals import FloatArray

OWNERS = st.sampled_from([HOST, b"a", b"b"])


def frame(value: float) -> FloatArray:
    return np.full(FRAME_SAMPLES, value, np.float32)


def leased(table: SlotTable) -> tuple[int, int]:
    lease = table.open()
    assert lease is not None
    return lease


def wiped(table: SlotTable) -> list[int]:
    mask = table.take_wipes()
    return [] if mask is None else np.flatnonzero(mask).tolist()


def test_every_slot_is_handed_out_once_and_then_none() -> None:
    table = SlotTable(3)
    assert {leased(table)[0] for _ in range(3)} == {0, 1, 2}
    assert table.open() is None
    assert table.used == 3


def test_the_slot_freed_longest_ago_comes_first() -> None:
    table = SlotTable(3)
    leases = [leased(table) for _ in range(3)]
    for index in (2, 0, 1):
        assert table.close(*leases[index])
    assert [leased(table)[0] for _ in range(3)] == [2, 0, 1]


def test_a_slot_comes_back_with_a_higher_generation() -> None:
    table = SlotTable(1)
    seen = []
    for _ in range(5):
        lease = leased(table)
        seen.append(lease[1])
        table.close(*lease)
    assert seen == sorted(set(seen))


def test_a_reset_goes_on_in_the_slot_one_generation_later() -> None:
    """The engine's client counts on in the same way, without being told."""
    table = SlotTable(1)
    slot, generation = leased(table)
    table.push(slot, generation, 1, frame(0.1))
    assert table.reset(slot, generation)
    assert not table.has_frames
    assert not table.push(slot, generation, 2, frame(0.1))
    assert table.push(slot, generation + 1, 2, frame(0.1))
    assert table.used == 1


@pytest.mark.parametrize(
    "lease", [(0, 0), (0, 2), (0, -1), (1, 1), (2, 1), (-1, 1), (10**9, 1)], ids=lambda lease: f"{lease[0]}.{lease[1]}"
)
def test_a_lease_that_is_not_held_does_nothing(lease: tuple[int, int]) -> None:
    """Too old, too new, of a free slot, of no slot: refused by every method, and nothing changes."""
    table = SlotTable(2)
    assert leased(table) == (0, 1)
    assert table.push(0, 1, 1, frame(0.5))
    assert not table.push(*lease, 2, frame(0.1))
    assert not table.reset(*lease)
    assert not table.close(*lease)
    assert table.used == 1
    assert table.take_wipes() is None
    plan = table.plan()
    assert plan is not None
    assert plan.rows == {HOST: [(0, 1, 1)]}


def test_a_lease_ends_once() -> None:
    """A second close must not free the slot of the stream that came next."""
    table = SlotTable(1)
    first = leased(table)
    assert table.close(*first)
    second = leased(table)
    assert not table.close(*first)
    assert not table.reset(*first)
    assert table.used == 1
    assert table.close(*second)


def test_a_plan_takes_the_oldest_frame_of_every_slot() -> None:
    table = SlotTable(3)
    leases = [leased(table) for _ in range(3)]
    for seq in (1, 2):
        for index in (0, 2):
            table.push(*leases[index], seq, frame(index + seq / 10))
    first = table.plan()
    assert first is not None
    assert first.rows == {HOST: [(*leases[0], 1), (*leases[2], 1)]}
    assert first.active.tolist() == [True, False, True]
    assert first.pcm.shape == (3, FRAME_SAMPLES)
    assert first.pcm[:, 0].tolist() == pytest.approx([0.1, 0.0, 2.1])
    second = table.plan()
    assert second is not None
    assert second.rows == {HOST: [(*leases[0], 2), (*leases[2], 2)]}
    assert table.plan() is None


def test_a_row_without_a_frame_is_silent_whatever_it_heard_before() -> None:
    table = SlotTable(2)
    first, second = leased(table), leased(table)
    for lease in (first, second):
        table.push(*lease, 1, frame(0.5))
    table.plan()
    table.push(*second, 2, frame(0.25))
    plan = table.plan()
    assert plan is not None
    assert [np.unique(row).tolist() for row in plan.pcm] == [[0.0], [0.25]]


def test_a_full_queue_drops_its_oldest_and_counts_it_once() -> None:
    table = SlotTable(1)
    lease = leased(table)
    for seq in range(QUEUE_FRAMES + 3):
        assert table.push(*lease, seq, frame(0))
    assert table.take_dropped() == 3
    assert table.take_dropped() == 0
    seqs = []
    while (plan := table.plan()) is not None:
        seqs.append(plan.rows[HOST][0][2])
    assert seqs == list(range(3, QUEUE_FRAMES + 3))


def test_one_slots_flood_costs_no_other_slot() -> None:
    table = SlotTable(2)
    flood, other = leased(table), leased(table)
    table.push(*other, 1, frame(0))
    for seq in range(100):
        table.push(*flood, seq, frame(0))
    plan = table.plan()
    assert plan is not None
    assert (*other, 1) in plan.rows[HOST]


def test_rows_are_wiped_once_after_a_close_and_after_a_reset() -> None:
    table = SlotTable(3)
    leases = [leased(table) for _ in range(3)]
    assert table.take_wipes() is None, "a slot that was never used is clean"
    table.close(*leases[0])
    table.reset(*leases[2])
    assert wiped(table) == [0, 2]
    assert table.take_wipes() is None


def test_a_mask_that_was_taken_does_not_change_any_more() -> None:
    table = SlotTable(2)
    first, second = leased(table), leased(table)
    table.close(*first)
    mask = table.take_wipes()
    assert mask is not None
    table.close(*second)
    assert mask.tolist() == [True, False]


def test_an_adopted_slot_keeps_its_conversation_and_leaves_its_owner() -> None:
    """One generation later: what its owner so far says comes too late, and frames that wait are not played."""
    table = SlotTable(1)
    lease = leased(table)
    table.push(*lease, 1, frame(0))
    table.plan()
    assert table.lock(*lease, b"digest", memo=b"a memo", now_s=3.5)
    table.push(*lease, 1, frame(0))
    assert table.adopt(b"digest", b"other") == Adopted(0, 2, HOST, 1, b"a memo", 3.5)
    assert table.take_wipes() is None
    assert table.plan() is None
    for generation in (1, 2):
        assert not table.push(0, generation, 2, frame(0))
        assert not table.close(0, generation)
    assert table.push(0, 2, 1, frame(0), b"other")


def test_what_was_heard_counts_from_the_start_or_the_last_reset() -> None:
    table = SlotTable(1)
    lease = leased(table)

    def heard(generation: int) -> int:
        for seq in range(3):
            table.push(0, generation, seq, frame(0))
            table.plan()
        table.lock(0, generation, b"key")
        adopted = table.adopt(b"key", HOST)
        assert adopted is not None
        return adopted.heard

    assert [heard(lease[1]), heard(lease[1] + 1)] == [3, 6]
    assert table.reset(0, lease[1] + 2)
    assert heard(lease[1] + 3) == 3
    table.close(0, lease[1] + 4)
    assert heard(leased(table)[1]) == 3


def test_a_key_opens_once_and_the_next_takes_its_place() -> None:
    table = SlotTable(2)
    lease, other = leased(table), leased(table)
    table.lock(*lease, b"first")
    table.lock(*lease, b"second")
    table.lock(*other, b"third")
    assert table.adopt(b"first", b"a") is None
    assert table.adopt(b"second", b"a") is not None
    assert table.adopt(b"second", b"b") is None
    assert table.adopt(b"", b"b") is None, "what is not locked has no key"
    table.close(*other)
    assert table.adopt(b"third", b"b") is None, "it is over"
    again = leased(table)
    assert again[0] == other[0]
    assert table.adopt(b"third", b"b") is None, "nor is it the next one's"


class SlotMachine(RuleBasedStateMachine):
    """The table against a model that is too simple to be wrong: dictionaries and lists."""

    leases = Bundle("leases")

    @initialize(slots=st.integers(1, 3), queue_frames=st.integers(1, 3))
    def make(self, slots: int, queue_frames: int) -> None:
        self.slots, self.queue_frames = slots, queue_frames
        self.table = SlotTable(slots, queue_frames)
        self.live: dict[int, int] = {}
        self.owners: dict[int, bytes] = {}
        self.keys: dict[bytes, int] = {}
        self.queues: dict[int, deque[int]] = {}
        self.ever: set[tuple[int, int]] = set()
        self.to_wipe: set[int] = set()
        self.dropped: Counter[bytes] = Counter()
        self.spent: list[bytes] = []
        self.seq = 0

    def held(self, lease: tuple[int, int], owner: bytes) -> bool:
        return self.live.get(lease[0]) == lease[1] and self.owners[lease[0]] == owner

    def enter(self, slot: int, generation: int, owner: bytes) -> tuple[int, int]:
        assert (slot, generation) not in self.ever, "a lease is handed out once"
        assert all(generation > older for index, older in self.ever if index == slot), "generations grow"
        self.ever.add((slot, generation))
        self.live[slot] = generation
        self.owners[slot] = owner
        self.queues[slot] = deque()
        return slot, generation

    def leave(self, slot: int) -> None:
        del self.live[slot], self.queues[slot], self.owners[slot]
        self.keys = {key: other for key, other in self.keys.items() if other != slot}
        self.to_wipe.add(slot)

    @rule(target=leases, owner=OWNERS)
    def open(self, owner: bytes) -> tuple[int, int]:
        lease = self.table.open(owner)
        if lease is None:
            assert len(self.live) == self.slots, "there was a slot"
            return (0, 0)
        assert lease[0] not in self.live
        assert 0 <= lease[0] < self.slots
        return self.enter(*lease, owner)

    @rule(lease=leases, owner=OWNERS)
    def close(self, lease: tuple[int, int], owner: bytes) -> None:
        held = self.held(lease, owner)
        assert self.table.close(*lease, owner) is held
        if held:
            self.leave(lease[0])

    @rule(owner=OWNERS)
    def close_all(self, owner: bytes) -> None:
        self.table.close_all(owner)
        self.dropped[owner] = 0
        for slot in [slot for slot, other in self.owners.items() if other == owner]:
            self.leave(slot)

    @rule(lease=leases, owner=OWNERS)
    def lock(self, lease: tuple[int, int], owner: bytes) -> None:
        self.seq += 1
        key = self.seq.to_bytes(4, "big")
        held = self.held(lease, owner)
        assert self.table.lock(*lease, key, owner) is held
        if held:
            self.keys = {other: slot for other, slot in self.keys.items() if slot != lease[0]} | {key: lease[0]}
            self.spent.append(key)

    @rule(target=leases, owner=OWNERS, number=st.integers(0, 5))
    def adopt(self, owner: bytes, number: int) -> tuple[int, int]:
        """By a key that is good, or was, or never was one."""
        key = self.spent[-1 - number] if number < len(self.spent) else b""
        slot = self.keys.pop(key, None)
        adopted = self.table.adopt(key, owner)
        if slot is None:
            assert adopted is None
            return (0, 0)
        assert adopted is not None
        assert (adopted.slot, adopted.generation) == (slot, self.live[slot] + 1)
        assert adopted.before == self.owners[slot]
        return self.enter(slot, adopted.generation, owner)

    @rule(target=leases, lease=leases, owner=OWNERS)
    def reset(self, lease: tuple[int, int], owner: bytes) -> tuple[int, int]:
        held = self.held(lease, owner)
        assert self.table.reset(*lease, owner) is held
        if not held:
            return lease
        self.to_wipe.add(lease[0])
        return self.enter(lease[0], lease[1] + 1, owner)

    @rule(lease=leases, owner=OWNERS)
    def push(self, lease: tuple[int, int], owner: bytes) -> None:
        self.seq += 1
        held = self.held(lease, owner)
        assert self.table.push(*lease, self.seq, frame(self.seq), owner) is held
        if held:
            queue = self.queues[lease[0]]
            queue.append(self.seq)
            if len(queue) > self.queue_frames:
                queue.popleft()
                self.dropped[owner] += 1

    @rule()
    def plan(self) -> None:
        expected = {slot: queue.popleft() for slot, queue in sorted(self.queues.items()) if queue}
        plan = self.table.plan()
        if plan is None:
            assert not expected
            return
        rows = {row: owner for owner, owned in plan.rows.items() for row in owned}
        assert rows == {(slot, self.live[slot], seq): self.owners[slot] for slot, seq in expected.items()}
        assert np.flatnonzero(plan.active).tolist() == list(expected)
        assert plan.pcm[:, -1].tolist() == [float(expected.get(slot, 0)) for slot in range(self.slots)]

    @rule()
    def take_wipes(self) -> None:
        assert wiped(self.table) == sorted(self.to_wipe)
        self.to_wipe.clear()

    @rule(owner=OWNERS)
    def take_dropped(self, owner: bytes) -> None:
        assert self.table.take_dropped(owner) == self.dropped[owner]
        self.dropped[owner] = 0

    @invariant()
    def counts_agree(self) -> None:
        assert self.table.used == len(self.live)
        for owner in (HOST, b"a", b"b"):
            assert self.table.used_elsewhere(owner) == sum(other != owner for other in self.owners.values())
        assert self.table.has_frames is any(self.queues.values())


TestSlotMachine = SlotMachine.TestCase
TestSlotMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

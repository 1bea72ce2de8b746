"""What a pool knows from what engines and media nodes say, in virtual time."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from rtc_server.cluster.fleet import FIRST_WORD_S, FORGOTTEN_S, HEALTHY_S, LOADING_HEALTHY_S, Fleet
from rtc_server.cluster.messages import MAX_ENGINES, MAX_NODES, PROTOCOL, Beat
from rtc_server.cluster.policy import Decision, Phase, Terms
from rtc_server.cluster.starts import GUESS_S

SERVICE = "dialogue"


def beat(
    name: str = "a",
    phase: Phase = Phase.READY,
    used: int = 0,
    idle_s: float = 0.0,
    life: str = "",
    service: str = SERVICE,
    load_s: float = 0.0,
) -> Beat:
    slots = 0 if phase is Phase.STARTING else 4
    return Beat(PROTOCOL, name, life or f"{name}1", service, f"{name}:7700", phase, slots, used, idle_s, load_s)


def lives(fleet: Fleet, now: float) -> list[str]:
    return [engine.life for engine in fleet.roster(now).engines]


def starts_in_s(fleet: Fleet, now: float, service: str = SERVICE) -> float | None:
    return next(each.starts_in_s for each in fleet.roster(now).outlooks if each.service == service)


def test_media_nodes_hear_of_engines_that_can_be_used() -> None:
    fleet = Fleet({})
    fleet.heard(beat("a"), 0)
    fleet.heard(beat("b", Phase.STARTING), 0)
    fleet.heard(beat("c", Phase.DRAINING), 0)
    assert [(each.life, each.phase, each.address) for each in fleet.roster(1).engines] == [
        ("a1", Phase.READY, "a:7700"),
        ("c1", Phase.DRAINING, "c:7700"),
    ]


def test_an_engine_that_is_silent_takes_no_conversation_until_it_is_heard_again() -> None:
    fleet = Fleet({})
    fleet.heard(beat(), 0)
    assert lives(fleet, HEALTHY_S) == ["a1"]
    assert lives(fleet, HEALTHY_S + 0.1) == []
    fleet.heard(beat(), 10)
    assert lives(fleet, 10) == ["a1"]


def test_a_silent_engine_is_replaced_at_once_and_ended_by_force_later() -> None:
    fleet = Fleet({SERVICE: Terms(1, 1)})
    fleet.launched(SERVICE, ["a"], 0)
    fleet.heard(beat(), 0)
    assert fleet.decide(HEALTHY_S)[SERVICE] == Decision()
    assert fleet.decide(HEALTHY_S + 0.1)[SERVICE] == Decision(1)
    fleet.launched(SERVICE, ["a", "b"], 4)
    assert fleet.decide(5)[SERVICE] == Decision()
    assert fleet.lost(FORGOTTEN_S) == []
    assert fleet.lost(FORGOTTEN_S + 0.1) == ["a"]
    fleet.launched(SERVICE, ["b"], FORGOTTEN_S + 1)
    assert fleet.lost(FORGOTTEN_S + 2) == []


def test_an_engine_may_wait_for_its_machine_for_long_but_not_for_ever() -> None:
    fleet = Fleet({SERVICE: Terms(1, 1)})
    fleet.launched(SERVICE, ["a"], 0)
    assert fleet.decide(FIRST_WORD_S)[SERVICE] == Decision()
    assert fleet.lost(FIRST_WORD_S) == []
    assert fleet.decide(FIRST_WORD_S + 1)[SERVICE] == Decision(1)
    assert fleet.lost(FIRST_WORD_S + 1) == ["a"]


def test_one_that_loads_may_be_busy_for_longer() -> None:
    fleet = Fleet({SERVICE: Terms(1, 1)})
    fleet.launched(SERVICE, ["a"], 0)
    fleet.heard(beat(phase=Phase.STARTING), 0)
    assert fleet.decide(LOADING_HEALTHY_S)[SERVICE] == Decision()
    assert fleet.decide(LOADING_HEALTHY_S + 1)[SERVICE] == Decision(1)


def test_an_engine_whose_process_ended_is_out_at_once_and_its_next_process_awaited() -> None:
    fleet = Fleet({SERVICE: Terms(1, 2)})
    fleet.launched(SERVICE, ["a"], 0)
    fleet.heard(beat(), 0)
    fleet.gone("a1", 1)
    roster = fleet.roster(1)
    assert (roster.engines, roster.gone) == ([], ["a1"])
    assert fleet.decide(1)[SERVICE] == Decision()
    fleet.heard(beat(), 1.1)  # said before it ended
    assert lives(fleet, 1.1) == []
    fleet.heard(beat(life="a2", phase=Phase.STARTING), 2)
    fleet.heard(beat(life="a2"), 5)
    assert lives(fleet, 5) == ["a2"]
    assert starts_in_s(fleet, 5) == 3.0  # from the first word of the new process


def test_an_engine_that_was_started_by_hand_is_not_awaited() -> None:
    fleet = Fleet({SERVICE: Terms(1, 1)})
    fleet.heard(beat(), 0)
    assert fleet.decide(1)[SERVICE] == Decision()
    fleet.gone("a1", 1)
    fleet.gone("unheard of", 1)
    assert fleet.decide(1)[SERVICE] == Decision(1)
    assert fleet.roster(1).gone == ["a1"]


def test_another_process_of_the_same_name_means_that_the_first_has_ended() -> None:
    fleet = Fleet({})
    fleet.heard(beat(), 0)
    fleet.heard(beat(life="a2"), 1)
    assert (lives(fleet, 1), fleet.roster(1).gone) == (["a2"], ["a1"])


def test_a_process_that_was_given_up_and_lives_on_does_not_come_back() -> None:
    """Whatever ran it was started again elsewhere: of two processes with one name, the new one is the engine."""
    fleet = Fleet({})
    fleet.heard(beat(), 0)
    for now in range(1, 200):
        fleet.heard(beat(life="a2"), now)
        fleet.heard(beat(), now + 0.5)
        fleet.forget(now + 0.5)
        assert (lives(fleet, now + 0.5), fleet.roster(now + 0.5).gone) == (["a2"], ["a1"])


def test_one_that_drained_and_ended_is_not_counted_any_more() -> None:
    fleet = Fleet({SERVICE: Terms(0, 1)})
    fleet.launched(SERVICE, ["a"], 0)
    fleet.heard(beat(phase=Phase.DRAINING), 0)
    fleet.gone("a1", 1)
    fleet.asked(b"node", {SERVICE: 1}, 1)
    assert lives(fleet, 1) == []
    fleet.launched(SERVICE, [], 2)
    assert fleet.decide(2)[SERVICE] == Decision(1)


def test_one_that_is_told_to_drain_counts_no_more_unless_it_says_otherwise() -> None:
    fleet = Fleet({SERVICE: Terms(0, 2)})
    fleet.launched(SERVICE, ["a"], 0)
    fleet.heard(beat(idle_s=300), 0)
    assert fleet.decide(0)[SERVICE] == Decision(0, ("a",))
    fleet.stopping("a")
    assert fleet.decide(0)[SERVICE] == Decision()
    assert fleet.roster(0).engines[0].phase is Phase.DRAINING
    fleet.heard(beat(idle_s=301), 1)
    assert fleet.decide(1)[SERVICE] == Decision(0, ("a",))
    fleet.stopping("unheard of")


def test_waiting_clients_count_as_long_as_their_node_is_there() -> None:
    fleet = Fleet({SERVICE: Terms(0, 9)}, {SERVICE: 4})
    fleet.asked(b"one", {SERVICE: 5}, 0)
    fleet.asked(b"two", {SERVICE: 5, "transcribe": 9}, 0)
    assert fleet.decide(1)[SERVICE] == Decision(3)
    fleet.asked(b"two", {SERVICE: 0}, 4)
    assert fleet.decide(4)[SERVICE] == Decision(2)
    assert fleet.decide(6)[SERVICE] == Decision()
    assert list(fleet.nodes) == [b"one", b"two"]
    fleet.forget(FORGOTTEN_S + 1)
    assert list(fleet.nodes) == [b"two"]


def test_each_service_has_its_own_terms() -> None:
    fleet = Fleet({"dialogue": Terms(1, 9), "transcribe": Terms(2, 2)})
    assert fleet.decide(0) == {"dialogue": Decision(1), "transcribe": Decision(2)}
    fleet.heard(beat("x", service="echo"), 0)
    assert set(fleet.decide(0)) == {"dialogue", "transcribe"}
    assert starts_in_s(fleet, 0, "echo") is None


def test_how_long_a_start_takes_is_measured() -> None:
    fleet = Fleet({SERVICE: Terms(0, 2)})
    assert starts_in_s(fleet, 0) == GUESS_S
    fleet.launched(SERVICE, ["a"], 10)
    assert starts_in_s(fleet, 15) == GUESS_S - 5
    fleet.heard(beat(phase=Phase.STARTING), 20)
    fleet.heard(beat(load_s=6), 22)
    assert starts_in_s(fleet, 22) == 12  # the machine's time included
    fleet.launched(SERVICE, ["a", "b"], 30)
    assert starts_in_s(fleet, 37) == 5
    assert starts_in_s(fleet, 60) == 1  # it takes longer than any before: soon, then
    fleet.heard(beat("b"), 61)
    fleet.heard(beat("a"), 61)
    assert starts_in_s(fleet, 61) is None  # there may be no more


def test_a_pool_that_is_started_again_knows_all_from_what_it_hears() -> None:
    before, after = (Fleet({SERVICE: Terms(0, 3)}) for _ in range(2))
    for fleet in (before, after):
        fleet.launched(SERVICE, ["a", "b"], 100)
        fleet.heard(beat("a", used=3, load_s=8), 100.5)
        fleet.heard(beat("b", idle_s=299, load_s=8), 100.5)
        fleet.asked(b"node", {SERVICE: 0}, 101)
    assert before.roster(101) == after.roster(101)
    assert after.decide(101)[SERVICE] == Decision()
    assert after.decide(102)[SERVICE] == Decision(0, ("b",))  # its idleness is its own word
    assert starts_in_s(after, 101) == 8


def test_there_are_bounds() -> None:
    fleet = Fleet({})
    for number in range(MAX_ENGINES + 5):
        fleet.heard(beat(str(number)), 0)
    assert len(lives(fleet, 0)) == MAX_ENGINES
    taken = [fleet.asked(str(number).encode(), {}, 0) for number in range(MAX_NODES + 5)]
    assert taken.count(True) == MAX_NODES
    assert fleet.asked(b"0", {}, 1)
    fleet.forget(FORGOTTEN_S + 1)
    assert lives(fleet, FORGOTTEN_S + 1) == []


@dataclass
class _Simulated:
    """An engine: ready ``start_s`` after its start; ``ends``: when each of its conversations does."""

    ready_at: float
    idle_since: float
    draining: bool = False
    ends: list[float] = field(default_factory=list)


class Cluster:
    """Engines and clients in virtual time, a second a step. Clients that find no slot come back each second."""

    SLOTS, START_S = 4, 20.0

    def __init__(self, terms: Terms, seed: int) -> None:
        self.terms = terms
        self.fleet = Fleet({SERVICE: terms})
        self.engines: dict[str, _Simulated] = {}
        self.waiting = 0
        self.served = 0
        self.now = 0.0
        self.most = 0
        self._dice = random.Random(seed)
        self._started = 0

    def step(self, newcomers: int) -> None:
        self.now += 1
        self._end_conversations()
        self._let_in(newcomers)
        self._tell()
        decision = self.fleet.decide(self.now)[SERVICE]
        for _ in range(decision.start):
            self._started += 1
            self.engines[f"e{self._started}"] = _Simulated(self.now + self.START_S, self.now + self.START_S)
        for name in decision.stop:
            assert not self.engines[name].ends, "one in use is stopped"
            assert self.now - self.engines[name].idle_since >= self.terms.idle_s - 1
            self.engines[name].draining = True
            self.fleet.stopping(name)
        self.most = max(self.most, len(self.engines))
        assert len(self.engines) <= self.terms.most
        self.fleet.launched(SERVICE, self.engines, self.now)

    def _end_conversations(self) -> None:
        for name, engine in list(self.engines.items()):
            engine.ends = [at for at in engine.ends if at > self.now]
            if engine.ends:
                engine.idle_since = self.now
            elif engine.draining:
                del self.engines[name]
                self.fleet.gone(f"{name}1", self.now)

    def _let_in(self, newcomers: int) -> None:
        self.waiting += newcomers
        usable = [each for each in self.engines.values() if each.ready_at <= self.now and not each.draining]
        for engine in sorted(usable, key=lambda each: -len(each.ends)):
            while self.waiting and len(engine.ends) < self.SLOTS:
                engine.ends.append(self.now + self._dice.uniform(5, 90))
                engine.idle_since = self.now
                self.waiting -= 1
                self.served += 1

    def _tell(self) -> None:
        self.fleet.asked(b"node", {SERVICE: self.waiting}, self.now)
        for name, engine in self.engines.items():
            is_ready = engine.ready_at <= self.now
            phase = Phase.DRAINING if engine.draining else Phase.READY if is_ready else Phase.STARTING
            idle_s = max(0.0, self.now - engine.idle_since)
            used = len(engine.ends)
            slots = self.SLOTS if is_ready else 0
            self.fleet.heard(Beat(PROTOCOL, name, f"{name}1", SERVICE, "", phase, slots, used, idle_s), self.now)


@pytest.mark.parametrize("seed", range(20))
def test_under_any_load_it_serves_all_and_comes_back_to_its_least(seed: int) -> None:
    dice = random.Random(seed)
    least = dice.randint(0, 2)
    terms = Terms(least, least + dice.randint(1, 8), dice.randint(0, 3), dice.choice([10.0, 60.0]))
    cluster = Cluster(terms, seed)
    came = 0
    for second in range(600):
        rush = 25 if second % 150 == 7 else 0
        newcomers = rush + (dice.random() < 0.2)
        came += newcomers
        cluster.step(newcomers)
    while cluster.served < came:
        cluster.step(0)
        assert cluster.now < 5000, "clients wait for ever"
    for _ in range(300):
        cluster.step(0)
    spare = -(-terms.spare_slots // Cluster.SLOTS)
    assert len(cluster.engines) == min(max(least, spare), terms.most)
    assert cluster.most <= terms.most

"""When there is room for captions, on a clock of the test's own."""

from __future__ import annotations

import pytest

from rtc_server.sessions.headroom import FIRST_PAUSE_S, LATE_SHARE, STEP_SHARE, Headroom, Load

CALM = Load()
PRESSED = Load(late_share=LATE_SHARE)


class Server:
    """Looks at a load twice a second."""

    def __init__(self) -> None:
        self.room = Headroom()
        self.now = 0.0

    def run(self, seconds: float, load: Load) -> bool:
        """Returns whether there was room all the time."""
        end, always = self.now + seconds, True
        while self.now < end:
            self.now += 0.5
            always &= self.room.look(self.now, load)
        return always

    def calm_until_room(self) -> float:
        began = self.now
        while not self.room.look(self.now, CALM):
            self.now += 0.5
            assert self.now - began < 1000
        return self.now - began


@pytest.mark.parametrize(
    "load", [Load(crowded=True), Load(late_share=LATE_SHARE), Load(step_share=STEP_SHARE), Load(True, 0.5, 2.0)]
)
def test_each_sign_of_load_ends_it(load: Load) -> None:
    server = Server()
    assert server.run(600, Load(late_share=LATE_SHARE * 0.9, step_share=STEP_SHARE * 0.9))
    assert not server.room.look(server.now, load)


def test_it_ends_before_the_door_closes() -> None:
    """A door that is closed by the loop's lag has a share of late ticks of 0.05, one closed by steps a share of 1."""
    assert LATE_SHARE <= 0.05 / 2
    assert STEP_SHARE < 1


def test_it_comes_back_after_a_calm_without_a_break() -> None:
    server = Server()
    server.run(1, PRESSED)
    assert not server.run(60, Load(late_share=0.02))
    assert not server.room.there, "that is no calm"
    server.run(FIRST_PAUSE_S - 1, CALM)
    server.run(0.5, Load(step_share=0.75))
    assert not server.room.there
    assert server.calm_until_room() == pytest.approx(FIRST_PAUSE_S, abs=0.5)


def test_each_time_that_it_does_not_last_the_calm_is_twice_as_long_to_a_bound() -> None:
    server, calms = Server(), []
    for _ in range(7):
        server.run(1, PRESSED)
        calms.append(server.calm_until_room())
        server.run(2, CALM)
    assert calms == pytest.approx([10, 20, 40, 80, 160, 160, 160], abs=0.5)
    server.run(60, CALM)
    server.run(1, PRESSED)
    assert server.calm_until_room() == pytest.approx(FIRST_PAUSE_S, abs=0.5), "it had lasted"

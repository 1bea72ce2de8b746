"""What the host computes in a step is measured with the engine's own loop, and without a device."""

from __future__ import annotations

import argparse

import pytest

from bench import host
from rtc_server.engine.core import EngineCore, run

pytestmark = pytest.mark.slow


def test_every_step_is_of_all_rows_and_none_waits_for_its_outputs() -> None:
    """Outputs of a step are sent when the next is launched, as on a device; each frame is answered."""
    model = host.WithoutDevice(16)
    port = host.Port(model, 6)
    run(EngineCore(model), port, lambda: port.given * 0.08)
    shares = model.shares
    assert (model.launched, port.heard) == (6, 6)
    assert (len(shares.beside), len(shares.between), len(port.reading)) == (6, 5, 6)
    assert all(0 < each < 10 for each in (*shares.beside, *shares.between, *port.reading))


def test_the_table_has_a_line_for_each_number(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    host.add_arguments(parser)
    host.run(parser.parse_args(["--slots", "2", "--steps", "3", "--rounds", "1"]))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| 2 "))
    assert "–" not in line

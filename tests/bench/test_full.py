"""One engine is loaded, and measured by numbers of sessions and their ages in turn."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from bench import full
from bench.architectures import engine as weighed_engine
from bench.full import Case, cases
from bench.weights import Age, Memory, Sizes, WeighedOptions
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.models.tiny import write_tiny_checkpoint

pytestmark = pytest.mark.slow


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    full.add_arguments(parser)
    return parser.parse_args(given)


def test_what_matters_most_comes_first_and_nothing_twice() -> None:
    assert cases([8, 4, 2], [100, 300]) == [
        *(Case(8, 100), Case(4, 100), Case(2, 100)),
        *(Case(8, 300), Case(4, 300), Case(2, 300)),
    ]
    assert cases([1], [5]) == [Case(1, 5)]


def test_the_least_time_is_that_of_the_weights_and_of_what_is_remembered() -> None:
    memory = Memory(Sizes(weights=1000, read=800, session=10), 0, frame_bytes=2)
    assert memory.floor_s(sessions=3, frames=50, bytes_per_s=100) == pytest.approx(11.0)


@pytest.mark.timeout(300)  # two processes that import torch, and an engine
def test_a_short_run_from_the_command_to_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line as soon as it is there, and once more in the table; one for which there is no slot is said."""
    few = ("--sessions", "2,3,1", "--fills", "16", "--slots", "2", "--seconds", "0.5", "--warm", "0", "--life", "0.2")
    full.run(arguments("--arch", "tiny", *few))
    printed = capsys.readouterr().out
    lines = [line.split()[1] for line in printed.splitlines() if "16 (1 s)" in line]
    assert lines == ["2", "1", "2", "1"]
    assert "- Of 3 sessions of 16 frames: " in printed
    before, _, table = printed.partition("### One engine of 2 slots: tiny")
    assert "warm after" in before
    assert "a frame of attention's memory" in table


@pytest.mark.timeout(300)
def test_when_time_is_up_nothing_is_begun_and_that_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        full.run(arguments("--arch", "tiny", "--sessions", "1", "--fills", "16", "--within", "0"))
    assert ended.value.code == 1
    assert "- No time for 1 sessions of 16 frames." in capsys.readouterr().out


def test_conversations_grow_as_old_as_is_said(tmp_path: Path) -> None:
    """While the model is in use, by a file that both processes have."""
    tiny, age = write_tiny_checkpoint(tmp_path / "tiny"), Age(tmp_path / "age", write=True)
    options = KyutaiOptions(str(tiny), slots=1, threads=1, pages=1)
    model = weighed_engine(WeighedOptions(options, str(tmp_path / "report"), age=str(tmp_path / "age")))
    model.warm_up()
    assert Memory.read(tmp_path / "report").frame_bytes > 0
    found = []
    for frames in (0, 12, 5):
        age.frames = frames
        model.step(np.zeros((1, FRAME_SAMPLES), np.float32), np.ones(1, np.bool_))
        found.append(model._model._open.filled.frames)
    assert found == [1, 12, 5]
    model.close()

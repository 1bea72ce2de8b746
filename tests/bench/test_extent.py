"""What attention over the filled part is worth is measured: every column of a layer and of a model."""

from __future__ import annotations

import argparse

import pytest

from bench import extent

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)  # a process for each cell, and each imports torch
def test_a_short_run_from_the_command_to_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extent, "apart", lambda function, *given: function(*given))  # in this process: it is shorter
    parser = argparse.ArgumentParser()
    extent.add_arguments(parser)
    extent.run(parser.parse_args(["--frames", "16", "--models", "tiny", "--steps", "1", "--rounds", "1"]))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| a ")]
    assert [line.split("|")[1].strip() for line in lines] == [
        *("a layer of Moshi 7B, float32", "a layer of Moshi 7B, bfloat16", "a step of tiny"),
    ]
    for line in lines:
        assert [float(cell) >= 0 for cell in line.split("|")[2:-1]] == [True, True]

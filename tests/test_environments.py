"""Environments of their own for programs of others: made again only when what they shall hold has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import environments


def test_one_that_holds_what_is_wanted_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], *, check: bool) -> None:
        assert check
        commands.append([str(word) for word in command])
        tmp_path.joinpath("env").mkdir(exist_ok=True)

    monkeypatch.setattr("subprocess.run", run)
    directory = tmp_path / "env"
    assert not environments.holds(directory, ["a==1"])
    for requirements, made in ((["a==1"], 2), (["a==1"], 2), (["a==1", "b==2"], 4)):
        assert environments.make(directory, requirements) == directory / "bin" / "python"
        assert len(commands) == made
        assert environments.holds(directory, requirements)
    assert commands[-1][-2:] == ["a==1", "b==2"]

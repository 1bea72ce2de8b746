"""One command measures a GPU that is only lent: what matters most first, and nothing that fails or hangs costs the
rest."""

from __future__ import annotations

import argparse
import importlib.util
import time

import psutil
import pytest

from bench import engine, full, gpu, kernel, table
from bench.floor import counts
from bench.full import Case
from bench.gpu import Outcome, Part, parts, run_all
from lab.waiting import until
from tests.support.missing import skip_but_in_ci
from tests.support.orphans import alive
from tests.support.server_process import ROOT

pytestmark = pytest.mark.slow


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    gpu.add_arguments(parser)
    return parser.parse_args(given)


def test_what_matters_most_comes_first() -> None:
    names = [each.name for each in parts(arguments())]
    assert names[:4] == ["tests", "kernel", "sessions", "sessions, float8"]
    assert not any("test" in each.name or each.name == "kernel" for each in parts(arguments("--device", "cpu")))


def test_all_of_it_fits_into_one_call_of_ten_minutes() -> None:
    """With half a minute to spare for what is installed before; and what comes first leaves time for the sessions."""
    given = arguments()
    assert given.minutes * 60 <= 600 - 30
    limits = {each.name: each.limit_s for each in parts(given)}
    assert limits["tests"] + limits["kernel"] + 300 <= given.minutes * 60


def test_each_is_a_command_that_there_is() -> None:
    for each in parts(arguments("--arch", "tiny")):
        assert each.arguments[0] == "-m"
        if each.arguments[1] == "bench":
            parser = argparse.ArgumentParser()
            {"engine": engine, "full": full, "kernel": kernel}[each.arguments[2]].add_arguments(parser)
            within = ("--within", "5") if each.ends_itself else ()
            parser.parse_args([*each.arguments[3:], *within])
        else:
            assert all((ROOT / given).is_file() for given in each.arguments if given.endswith(".py"))


def test_every_number_of_sessions_is_measured_at_every_age_and_once() -> None:
    given = arguments()
    sessions, fills = counts(given.sessions), counts(given.fills)
    found = full.cases(sessions, fills)
    assert found[:5] == [Case(64, 750), Case(128, 750), Case(1, 750), Case(64, 3000), Case(128, 3000)]
    assert sorted(found, key=lambda each: (each.sessions, each.frames)) == [
        Case(each, fill) for each in (1, 8, 16, 32, 50, 64, 80, 96, 128) for fill in (750, 1500, 3000)
    ]


async def test_one_that_fails_or_hangs_costs_no_other_anything(capfd: pytest.CaptureFixture[str]) -> None:
    """And leaves no process behind. What there is no time for is named."""
    child = "[sys.executable, '-c', 'import signal; signal.pause()']"
    hangs = f"import subprocess, sys; it = subprocess.Popen({child}); print('begun', it.pid, flush=True); it.wait()"
    found = run_all(
        [
            Part("fails", ("-c", "raise SystemExit(3)"), 60),
            Part("hangs", ("-c", hangs), 2),
            Part("works", ("-c", "print('measured')"), 60),
        ],
        100,
        time.monotonic,
    )
    assert [each.said for each in found] == ["failed with 3", "killed after 2 s", "done"]
    out = capfd.readouterr().out
    assert out.index("begun") < out.index("== hangs: killed") < out.index("measured") < out.index("== works: done")
    pid = int(out.partition("begun ")[2].split()[0])
    await until(lambda: not alive([each for each in psutil.process_iter() if each.pid == pid]), "the child's end")


def test_what_there_is_no_time_for_is_named() -> None:
    now = iter([0.0, 0.0, 90.0, 90.0])
    found = run_all([Part("one", ("-c", ""), 60), Part("other", ("-c", ""), 60)], 100, lambda: next(now))
    assert [(each.said, each.seconds) for each in found] == [("done", 90.0), ("no time left", 0.0)]
    assert not any(each.failed for each in found)
    assert gpu._what_is_left(found, 2) == ["To go on: the same command with `--skip 3`."]
    assert gpu._what_is_left(found[:1], 2) == []


def test_what_is_cut_off_by_the_end_has_not_failed_and_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """But what takes longer than it may has."""
    monkeypatch.setattr(gpu, "_LEAST_S", 0.0)
    now = iter([0.0, 0.0, 1.0, 1.0])
    found = run_all([Part("long", ("-c", "import signal; signal.pause()"), 60)], 1, lambda: next(now))
    slow = run_all([Part("slow", ("-c", "import signal; signal.pause()"), 1)], 100, time.monotonic)
    assert [each.said for each in [*found, *slow]] == ["no time left after 1 s", "killed after 1 s"]
    assert [each.failed for each in [*found, *slow]] == [False, True]
    assert gpu._what_is_left(found, 0) == ["To go on: the same command with `--skip 0`."]
    assert Outcome("one", "failed with 2").failed


def test_a_table_is_printed_on_a_machine_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """After minutes of measuring that would be the end of it."""
    monkeypatch.setenv("PATH", "")
    assert "(no git)" in table.machine()


def test_one_that_ends_by_itself_is_told_when(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os, sys; print(sys.argv[1:], os.environ['PYTHONPATH'].split(os.pathsep)[0])"
    printing = Part("prints", ("-c", code), 60, ends_itself=True)
    assert run_all([printing], 1000, time.monotonic)[0].said == "done"
    assert f"['--within', '45'] {ROOT}" in capfd.readouterr().out, "and finds the checkout's packages"


@pytest.mark.timeout(300)  # an interpreter of kernels, in a process for each
def test_the_kernel_s_speed_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("triton") is None:
        skip_but_in_ci("needs triton, which there is for Linux on x86-64: pip install -e '.[triton]'")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    parser = argparse.ArgumentParser()
    kernel.add_arguments(parser)
    small = ("--device", "cpu", "--rows", "1", "--frames", "64", "--heads", "1", "--width", "16", "--tries", "1")
    kernel.run(parser.parse_args(small))
    out = capsys.readouterr().out
    for stored in ("bfloat16", "float8_e4m3fn"):
        for lanes in (16, 32):
            (line,) = (line for line in out.splitlines() if line.startswith(f"{stored}, {lanes} lanes: "))
            assert float(line.split()[3]) > 0, line

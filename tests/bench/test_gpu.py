"""One command measures a GPU that is only lent: what matters most first, and nothing that fails or hangs costs the
rest."""

from __future__ import annotations

import argparse
import importlib.util
import time

import psutil
import pytest

from bench import engine, gpu, kernel
from bench.gpu import Part, parts, run_all
from lab.waiting import until
from tests.support.missing import skip_but_in_ci
from tests.support.orphans import alive
from tests.support.server_process import ROOT

pytestmark = pytest.mark.slow


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    gpu.add_arguments(parser)
    return parser.parse_args(given)


def test_what_matters_most_comes_first_and_nothing_twice() -> None:
    found = parts(arguments())
    names = [each.name for each in found]
    assert names[:5] == [
        "tests",
        "kernel",
        "64 sessions, 750 frames, auto",
        "128 sessions, 750 frames, auto",
        "1 sessions, 750 frames, auto",
    ]
    assert names[5:7] == ["64 sessions, 3000 frames, auto", "128 sessions, 3000 frames, auto"]
    assert len(set(names)) == len(names)
    for slots in (1, 8, 16, 32, 50, 64, 80, 96, 128):
        assert {f"{slots} sessions, {fill} frames, auto" for fill in (750, 1500, 3000)} <= set(names)
    assert sum("--compare" in each.arguments for each in found) == 1, "the package alone is measured once"


def test_each_is_a_command_that_there_is() -> None:
    found = parts(arguments("--arch", "tiny"))
    for each in found:
        assert each.arguments[0] == "-m"
        if each.arguments[1] == "bench":
            parser = argparse.ArgumentParser()
            {"engine": engine, "kernel": kernel}[each.arguments[2]].add_arguments(parser)
            parser.parse_args(each.arguments[3:])
        else:
            assert (ROOT / each.arguments[-1]).is_file()


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

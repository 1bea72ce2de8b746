"""The engine is measured on a GPU machine that has torch and little else."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import gpu
from tests.support.server_process import ROOT

pytestmark = pytest.mark.slow

NOT_THERE = (
    *("aiohttp", "aioice", "aiortc", "av", "bitsandbytes", "cryptography", "ifaddr", "playwright", "psutil", "scipy"),
    *("sounddevice", "sphn", "uvloop"),
)


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment in whose processes, and those that they start, these packages cannot be imported."""
    for package in NOT_THERE:
        (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('no {package} here', name='{package}')")
    return os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


def bench(bare: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, env=bare, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.timeout(300)  # a process for each of what is measured, and each imports torch
def test_the_engine_s_benchmark_runs_there(bare: dict[str, str]) -> None:
    """Its own process, the engine's, and those of what it is compared with."""
    few = ("--seconds", "0.5", "--warm", "0.2", "--rounds", "1", "--steps", "3", "--fill", "20", "--pages", "auto")
    done = bench(bare, "engine", "--arch", "tiny", "--slots", "1", *few)
    assert done.returncode == 0, done.stderr
    for line in ("this server's engine", "moshi.server's loop", "bandwidth alone"):
        assert f"| {line}" in done.stdout
    assert not any(package in done.stderr for package in NOT_THERE)


def test_all_that_measures_a_gpu_can_be_imported_there(bare: dict[str, str]) -> None:
    """The tests of what only a GPU can do wrong included."""
    names = [name for part in gpu.parts(gpu_arguments()) for name in part.arguments if name.endswith(".py")]
    assert names
    modules = ["bench.engine", "bench.full", "bench.gpu", "bench.host", "bench.kernel", "bench.operations"]
    modules += [name.removesuffix(".py").replace("/", ".") for name in names]
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    command = [sys.executable, "-c", code, *modules]
    done = subprocess.run(command, env=bare, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


def gpu_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    gpu.add_arguments(parser)
    return parser.parse_args([])


def test_others_do_not(bare: dict[str, str]) -> None:
    """That these packages are missing there is no pretence."""
    assert "ModuleNotFoundError: no " in bench(bare, "calls", "--help").stderr

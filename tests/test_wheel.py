"""The wheel in a fresh environment, from another directory: it runs, or says in one sentence what it lacks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from rtc_server.usage.invocation import MOSHI

ROOT = Path(__file__).parent.parent
READY_S = 200
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]  # two models start, on a machine that may have other work


def link_packages(source: Path, target: Path, without: str) -> None:
    """All that is installed in ``source``, but for this project itself and what begins with ``without``."""
    for path in source.iterdir():
        own = path.name.lower().replace("-", "_").lstrip("_").startswith(("rtc_server", "editable___rtc"))
        if not own and path.suffix != ".pth" and not path.name.startswith(without):
            (target / path.name).symlink_to(path)


class Environment:
    """A virtual environment with the wheel, and by links with the packages of this one."""

    def __init__(self, directory: Path, wheel: Path, without: str) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
        self.python = directory / "bin" / "python"
        self.program = directory / "bin" / "rtc-server"
        (packages,) = directory.glob("lib/python*/site-packages")
        link_packages(Path(sysconfig.get_path("purelib")), packages, without)
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True)

    def start(self, where: Path, *arguments: str) -> subprocess.Popen[str]:
        """The program, in a directory that has nothing to do with the checkout."""
        mine = ("PYTHONPATH", "RTC_SERVER_", "VIRTUAL_ENV")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(mine)}
        return subprocess.Popen(
            [self.program, *arguments],
            cwd=where,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, where: Path, *arguments: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        process = self.start(where, *arguments)
        out, err = process.communicate(timeout=READY_S)
        return process.returncode, out, err

    @contextmanager
    def serving(self, where: Path, *arguments: str) -> Iterator[tuple[str, str]]:
        """Its address, and what it says once it is ready."""
        process = self.start(where, "serve", "--port", "0", "--allow-slow", "--log-level", "error", *arguments)
        assert process.stdout is not None
        said = ""
        try:
            for line in process.stdout:
                said += line
                if "Try saying" in line:
                    break
            found = re.search(r"Open (http://localhost:\d+) in", said)
            assert found is not None, process.communicate(timeout=10)
            yield found[1], said
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(directory), versions=["standard"])))


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    return Environment(tmp_path_factory.mktemp("complete") / "venv", wheel, without="no such package")


@pytest.fixture(scope="module")
def without_moshi(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """As "pip install ." leaves it."""
    return Environment(tmp_path_factory.mktemp("incomplete") / "venv", wheel, without="moshi")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        text: str = response.read().decode()
        return text


def test_it_has_the_package_and_nothing_that_stands_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top.partition("-")[0] for top in tops} == {"rtc_server"}


def test_it_serves_the_page_and_its_model(complete: Environment, tmp_path: Path) -> None:
    with complete.serving(tmp_path) as (url, said):
        assert "service dialogue: pico" in said
        assert "make " not in said
        page = get(url)
        for file in re.findall(r'(?:src|href)="(/?static/[^"]+)"', page):
            assert get(f"{url}/{file.lstrip('/')}")
        config = json.loads(get(f"{url}/api/config"))
    assert [service["name"] for service in config["services"]] == ["dialogue", "transcribe", "echo", "translate"]
    assert config["services"][0]["notice"]["hint"].endswith("rtc-server serve --model kyutai/moshiko-pytorch-bf16")
    assert not list(tmp_path.iterdir())


def test_what_it_says_of_the_machine_can_be_done_there(complete: Environment, tmp_path: Path) -> None:
    status, out, err = complete.run(tmp_path, "check")
    assert (status, err) == (0, "")
    assert "--model auto runs pico" in out
    assert "make " not in out


def test_the_relays_template_is_in_it(complete: Environment, tmp_path: Path) -> None:
    status, out, err = complete.run(tmp_path, "turn-config")
    assert (status, err) == (0, "")
    assert "\nuse-auth-secret\n" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--port", "0"),
        ("serve", "--port", "0", "--engine", "thread"),
        ("transcribe", "a.wav", "--stt", "pico-stt"),
    ],
)
def test_without_moshi_it_says_what_to_install_and_how(
    without_moshi: Environment, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Not "pip install moshi", which would take torch, aiohttp and numpy back to older versions."""
    (tmp_path / "a.wav").write_bytes(b"")
    status, out, err = without_moshi.run(tmp_path, *arguments, "--log-level", "warning")
    assert (status, out) == (1, "")
    error, hint = err.splitlines()
    assert re.fullmatch(r"error: The model pico(-stt)? wants the package moshi, which is not installed\.", error)
    assert hint.startswith("hint: Without its own pins")
    assert hint.endswith(f"{without_moshi.python} -m pip install --no-deps {MOSHI}")


def test_without_moshi_it_checks_sound_and_machine(without_moshi: Environment, tmp_path: Path) -> None:
    status, out, err = without_moshi.run(tmp_path, "check")
    assert (status, err) == (1, "")
    assert re.search(rf"^missing  moshi is not installed\n +hint: .*--no-deps {MOSHI}$", out, re.MULTILINE)
    assert "Traceback" not in out

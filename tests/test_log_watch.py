"""The watch over logs sees what it is there for: a test that leaks fails, in whatever way, and no other does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.log_watch import WATCH, LogWatch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
INNER = """
import asyncio
import logging
import os
import subprocess
import sys

import pytest

from rtc_server.access import credentials
from rtc_server.access.ephemeral import EphemeralKeys
from rtc_server.access.principals import ANONYMOUS
from rtc_server.turn import ice_servers
from rtc_server.sessions.state import SessionId
from tests.support.tokens import token

KEY = credentials.new_key()
PROGRAM = [sys.executable, "-c", f"import sys; print('at', {KEY!r}, file=sys.stderr)"]


def test_leaks_a_key():
    logging.getLogger("any").debug("with %s", KEY)


def test_leaks_most_of_a_key():
    logging.getLogger("any").debug("with %s", KEY[:30])


def test_leaks_a_token():
    logging.getLogger("any").info(token())


def test_leaks_an_address():
    logging.getLogger("any").info("GET /ws?x=1&token=abc")


def test_leaks_a_turn_password():
    made = ice_servers.make_credentials("the-secret-of-the-relay", "ada", 1)
    logging.getLogger("any").info("credential=%r", made.password)


def test_leaks_a_turn_secret():
    ice_servers.make_credentials("the-secret-of-the-relay", "ada", 1)
    logging.getLogger("any").info("static-auth-secret=the-secret-of-the-relay")


def test_leaks_a_session():
    logging.getLogger("any").info("GET /api/sessions/%s/events", SessionId("0", 0).text)


def test_leaks_a_session_of_openai_live():
    logging.getLogger("any").info("POST /v1/live/sessions/live_%s/hangup", SessionId("0", 0).text)


def test_leaks_a_client_secret():
    made, _ = EphemeralKeys().issue(ANONYMOUS, 0.0, 600.0)
    logging.getLogger("any").info("openai-insecure-api-key.%s", made)


def test_leaks_in_a_traceback():
    try:
        raise ValueError(KEY)
    except ValueError:
        logging.getLogger("any").exception("it failed")


def test_leaks_from_a_logger_that_is_off():
    logger = logging.getLogger("off")
    logger.setLevel(logging.CRITICAL)
    logger.propagate, logger.disabled = False, True
    logging.disable(logging.CRITICAL)
    logger.debug(KEY)
    logging.disable(logging.NOTSET)


def test_leaks_from_a_program():
    subprocess.run(PROGRAM, capture_output=True, check=True)


async def test_leaks_from_a_program_that_is_awaited():
    process = await asyncio.create_subprocess_exec(*PROGRAM, stderr=asyncio.subprocess.PIPE)
    await process.communicate()


def test_leaks_from_a_program_that_nobody_reads():
    subprocess.run(PROGRAM, check=True)


def test_leaks_on_standard_error():
    os.write(2, KEY.encode())


@pytest.fixture
def careless():
    yield
    logging.getLogger("any").debug("with %s", KEY)


def test_leaks_when_it_is_over(careless):
    pass


def test_leaks_a_record_that_cannot_be_read():
    logging.getLogger("any").debug("%d", "x")


def test_is_quiet(caplog):
    logging.getLogger("any").debug("%s rtc_engine_memory_bytes_of_the_engine", SessionId("0", 0).log_id)
    logging.getLogger("any").info("GET /ws, WebSocket of key/ada")
    assert len(caplog.records) <= 1, "what a test sees has the level that it always had"
"""


LATE = """
import logging

import pytest

from rtc_server.access import credentials


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    if getattr(session, "items", None):  # none are in the process that leads workers
        logging.getLogger("any").debug("with %s", credentials.new_key())
"""

RUNS = pytest.mark.parametrize("workers", [[], ["-n", "1", "--dist", "loadfile"]], ids=["one process", "a worker"])
"""How the tests may be run."""


def run_inner(directory: Path, workers: list[str]) -> subprocess.CompletedProcess[str]:
    """The tests in a directory, with what all tests of the project have."""
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.conftest",
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(directory),
    ]
    command = [sys.executable, "-m", "pytest", *options, *workers, "--import-mode=importlib", str(directory)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)


@RUNS
def test_a_test_that_leaks_fails(tmp_path: Path, workers: list[str]) -> None:
    (tmp_path / "test_inner.py").write_text(INNER)
    done = run_inner(tmp_path, workers)
    names = set(re.findall(r"^def (test_\w+)|^async def (test_\w+)", INNER, re.MULTILINE))
    leaky = {one or other for one, other in names} - {"test_is_quiet"}
    assert len(leaky) == 17
    found = set(re.findall(r"^ERROR \S+::(test_\w+)|^FAILED \S+::(test_\w+)", done.stdout, re.MULTILINE))
    assert {one or other for one, other in found} == leaky, done.stdout + done.stderr
    assert re.search(r"read [1-9]\d* log records for [1-9]\d* secrets", done.stdout)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


@RUNS
def test_a_leak_outside_of_tests_fails_the_run(tmp_path: Path, workers: list[str]) -> None:
    """In a worker as well: the process that leads the run logs nothing here."""
    (tmp_path / "test_inner.py").write_text("def test_is_quiet():\n    pass\n")
    (tmp_path / "conftest.py").write_text(LATE)
    done = run_inner(tmp_path, workers)
    assert "A credential is in the logs, outside of tests" in done.stderr, done.stdout + done.stderr
    assert done.returncode != 0


def test_it_watches_this_run() -> None:
    before = WATCH.records
    WATCH.prove()
    assert WATCH.records > before
    assert WATCH.secrets


def test_it_does_not_start_where_it_cannot_see(monkeypatch: pytest.MonkeyPatch) -> None:
    blind = LogWatch()
    with pytest.raises(AssertionError, match="did not see"):
        blind.prove()
    monkeypatch.undo()
    WATCH.take()  # what the blind one did not see, this one has

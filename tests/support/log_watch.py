"""Reads every log record of every test, at every level and of every logger, and fails the test in which a credential
is in one: a key, a token, a TURN secret or password, what resumes a session, and the id that ends one.

What it looks for is known by its form (keys, tokens), or has been made while it watched. It sees records before any
level, filter or handler, so no test can turn it off by configuring its logging; what child processes write to standard
error is read where pytest or a test captures it. ``tests/test_log_watch.py`` holds it to that, and it does not start
where it cannot see: see :meth:`LogWatch.prove`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import subprocess
import traceback
from collections.abc import Callable, Generator
from typing import Any, Final

import pytest

from rtc_server.sessions.resume import ResumeTokens
from rtc_server.sessions.state import SessionId
from rtc_server.turn import ice_servers

_FORMS: Final = (
    re.compile(r"rtc_(?=[a-z0-9_-]*[A-Z])[A-Za-z0-9_-]{20,}"),  # of keys; that of metrics has no capitals
    # Of tokens, and of client secrets, which are tokens behind "ek_".
    re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{16,}"),
    re.compile(r"[?&](?:token|auth_id)=[^&\s'\"]"),
)
_WORDS: Final = (re.compile(r"[\w.-]{12,}"), re.compile(r"[A-Za-z0-9+/=]{12,}"))
_PER_PACKET: Final = ("aiortc", "aioice", "torch")
"""They write a record for each packet, or each operation on a tensor, at DEBUG, which would slow down what is measured,
and know no credential of ours. ``tests/integration/test_turn.py`` reads them at DEBUG where they see most."""
_TOLD: Final = "log_watch"
"""Under this a worker tells the process that leads the run what its watch has seen."""
_LEAST: Final = 12
"""Characters of a secret that is looked for by itself: shorter ones of tests are words."""


class LogWatch:
    """``records``: how many it has read. ``secrets``: those that were made while it watched.

    ``secrets_elsewhere``: how many were made in front of the watches of other processes.
    """

    def __init__(self) -> None:
        self.records = 0
        self.secrets: set[str] = set()
        self.secrets_elsewhere = 0
        self._found: list[str] = []
        self._undo: list[Callable[[], None]] = []

    def install(self) -> None:
        """Put itself in the way of all records, and of all that makes secrets."""
        watch = self
        handle, is_enabled = logging.Logger.handle, logging.Logger.isEnabledFor

        def seen(logger: logging.Logger, record: logging.LogRecord) -> None:
            watch.read_record(record)
            if is_enabled(logger, record.levelno):
                handle(logger, record)

        self._replace(logging.Logger, "handle", seen)

        def is_read(logger: logging.Logger, level: int) -> bool:
            return level >= logging.INFO or not logger.name.startswith(_PER_PACKET) or is_enabled(logger, level)

        self._replace(logging.Logger, "isEnabledFor", is_read)
        self._after(ice_servers, "make_credentials", lambda made, secret, *_: self.expect(secret, made.password))
        self._after(ice_servers, "read_secret", lambda secret, *_: self.expect(secret))
        self._after(ResumeTokens, "issue", lambda token, *_: self.expect(token))
        self._after(SessionId, "__init__", lambda _, session, *__: self.expect(session.text))
        self._after(subprocess, "run", lambda done, *_: self.read_text("a program", done.stderr))
        communicate = asyncio.subprocess.Process.communicate

        async def communicated(process: asyncio.subprocess.Process, data: bytes | None = None) -> tuple[Any, Any]:
            out, errors = await communicate(process, data)
            watch.read_text("a program", errors)
            return out, errors

        self._replace(asyncio.subprocess.Process, "communicate", communicated)

    def uninstall(self) -> None:
        while self._undo:
            self._undo.pop()()

    def prove(self) -> None:
        """That it sees what is hidden from all others. Raises AssertionError."""
        logger = logging.Logger("hidden", logging.CRITICAL)  # noqa: LOG001 - one that is kept nowhere
        logger.propagate, logger.disabled = False, True
        logger.addFilter(lambda _: False)
        self.expect(secret := "a-secret-to-be-found")
        for text in (secret, f"Bearer rtc_{'aB3' * 14}c", f"eyJ{'a' * 9}.{'b' * 9}.{'c' * 20}", "GET /x?token=y"):
            logger.debug("with %s in it", text)
            assert self.take(), f"the watch over logs did not see {text!r}"
        logger.debug("with %s in it", "nothing")
        assert not self.take()

    def expect(self, *secrets: str) -> None:
        self.secrets.update(secret for secret in secrets if len(secret) >= _LEAST)

    def read_record(self, record: logging.LogRecord) -> None:
        self.records += 1
        try:
            text = record.getMessage()
        except Exception as error:  # a record that nobody could read: a fault of whoever wrote it
            self._found.append(f"{record.name} {record.pathname}:{record.lineno} cannot be formatted: {error!r}")
            return
        if record.exc_info and record.exc_info[1] is not None:
            text += "".join(traceback.format_exception(record.exc_info[1]))
        self.read_text(f"{record.levelname} {record.name} ({record.pathname}:{record.lineno})", text)

    def read_text(self, source: str, text: str | bytes | None) -> None:
        """``source``: who wrote it, for the report, which does not repeat the secret."""
        if not text:
            return
        shown = text.decode(errors="replace") if isinstance(text, bytes) else text
        form = next((form.pattern for form in _FORMS if form.search(shown)), None)
        words = {word for pattern in _WORDS for found in pattern.findall(shown) for word in (found, *found.split("/"))}
        words |= {word.partition("_")[2] for word in words}  # the ids of sessions as OpenAI's clients know them
        if form is not None or not words.isdisjoint(self.secrets):
            self._found.append(
                f"{source}: a credential, {'made in this run' if form is None else f'by its form {form}'}"
            )

    def take(self) -> list[str]:
        """What was found since the last call."""
        found, self._found = self._found, []
        return found

    def told(self) -> dict[str, Any]:
        """All that it has seen and not told yet, for the watch of another process; without the secrets."""
        return {"records": self.records, "secrets": len(self.secrets), "found": self.take()}

    def hear(self, told: dict[str, Any]) -> None:
        """What the watch of another process has seen."""
        self.records += told["records"]
        self.secrets_elsewhere += told["secrets"]
        self._found += told["found"]

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        before = getattr(owner, name)
        setattr(owner, name, value)
        self._undo.append(lambda: setattr(owner, name, before))

    def _after(self, owner: Any, name: str, look: Callable[..., object]) -> None:
        """``look`` gets the result of each call, and its arguments."""
        before = getattr(owner, name)

        @functools.wraps(before)
        def called(*args: Any, **kw: Any) -> Any:
            result = before(*args, **kw)
            look(result, *args)
            return result

        self._replace(owner, name, called)


WATCH: Final = LogWatch()


# What pytest calls: tests/conftest.py takes them in.


def pytest_configure() -> None:
    WATCH.install()
    WATCH.prove()


def pytest_unconfigure() -> None:
    WATCH.uninstall()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test is over when its fixtures are: what child processes have written is complete by then."""
    report = yield
    if report.when == "teardown":
        WATCH.read_text("standard error", report.capstderr)
        found = WATCH.take()
        if found:
            report.outcome = "failed"
            report.longrepr = "A credential is in the logs:\n" + "\n".join(dict.fromkeys(found))
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist is done. One that has crashed, which is an error by itself, tells nothing."""
    told = getattr(node, "workeroutput", {}).get(_TOLD)
    if told:
        WATCH.hear(told)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_TOLD] = WATCH.told()
        return
    found = WATCH.take()
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        raise pytest.UsageError("A credential is in the logs, outside of tests: " + "; ".join(found))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(
        f"read {WATCH.records} log records for {len(WATCH.secrets) + WATCH.secrets_elsewhere} secrets that were made, "
        "and for keys and tokens"
    )

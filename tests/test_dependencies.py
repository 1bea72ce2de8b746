"""What is wanted of other packages: nothing below which there are published vulnerabilities; and what ``make audit``
says of what is installed, by a stand-in for the service of advisories."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tools import audit

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WANTED = [Requirement(text) for text in PROJECT["dependencies"]]
FIRST_SOUND = {"aiohttp": "3.14.3", "cryptography": "48.0.1", "pyjwt": "2.12", "sentencepiece": "0.2.2"}


def floor(requirement: Requirement) -> Version:
    (found,) = [Version(each.version) for each in requirement.specifier if each.operator in (">=", "==")]
    return found


@pytest.mark.parametrize("name", FIRST_SOUND)
def test_no_version_with_published_vulnerabilities_will_do(name: str) -> None:
    (requirement,) = [each for each in WANTED if each.name == name]
    assert floor(requirement) >= Version(FIRST_SOUND[name])


@pytest.mark.parametrize("requirement", WANTED, ids=lambda requirement: requirement.name)
def test_what_is_installed_is_what_is_wanted(requirement: Requirement) -> None:
    """With a lower bound each, so that an old environment is brought up to date by the next "make"."""
    assert requirement.specifier.contains(importlib.metadata.version(requirement.name))
    assert floor(requirement)


@contextmanager
def advisories(of: dict[str, str]) -> Iterator[str]:
    """The address of a service that knows one advisory for each of these packages, by the protocol of osv.dev."""

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            vulns: list[dict[str, Any]] = []
            for name, fixed in of.items():
                if asked["package"]["name"] == name:
                    package = {"name": name, "ecosystem": "PyPI"}
                    events = [{"introduced": "0"}, {"fixed": fixed}]
                    affected = [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]
                    vulns.append({"id": "PYSEC-1", "affected": affected, "modified": "2026-01-01T00:00:00Z"})
            body = json.dumps({"vulns": vulns} if vulns else {}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def test_an_audit_that_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with advisories({}) as url:
        found = audit.ask(["aiohttp==3.14.0", "yarl==1.20.0"], url)
    assert audit.report(found) == audit.SOUND
    assert "2 packages, 0 published vulnerabilities" in capsys.readouterr().out


def test_an_audit_that_finds_something(capsys: pytest.CaptureFixture[str]) -> None:
    with advisories({"aiohttp": "3.14.3"}) as url:
        found = audit.ask(["aiohttp==3.14.0", "yarl==1.20.0"], url)
    assert audit.report(found) == audit.VULNERABLE
    assert "aiohttp 3.14.0: PYSEC-1; fixed in 3.14.3\n" in capsys.readouterr().out


def test_an_audit_without_an_answer_does_not_pass() -> None:
    """In one sentence, through the command that make calls."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.audit", "--osv-url", "http://127.0.0.1:9/"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == audit.NOT_AUDITED
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert "nothing was audited" in error
    assert hint.startswith("hint: ")


def test_what_could_not_be_asked_for_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    some: list[dict[str, Any]] = [
        {"name": "a", "version": "1", "vulns": []},
        {"name": "b", "skip_reason": "unheard of"},
    ]
    assert audit.report(some) == audit.SOUND
    assert "b: not audited: unheard of" in capsys.readouterr().out
    assert audit.report(some[1:]) == audit.NOT_AUDITED
    assert audit.report([]) == audit.NOT_AUDITED


def test_all_that_is_installed_is_asked_for_but_the_server_itself() -> None:
    names = {text.partition("==")[0] for text in audit.installed()}
    assert {requirement.name.lower() for requirement in WANTED} <= names
    assert "rtc-server" not in names
    assert not any("+" in text for text in audit.installed()), "local builds have no advisories"

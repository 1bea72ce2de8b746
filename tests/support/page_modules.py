"""Modules of the page that need no page, run by Node: no browser, no server.

Whatever such a module took of a browser would be missing here, and its test would say so.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.conftest import need_commands

STATIC: Final = Path(__file__).parents[2] / "static"
_RUNNER: Final = Path(__file__).with_name("modules.mjs")
_EXIT_TIMEOUT_S: Final = 10.0


class PageModules:
    """A Node process that has ``static/`` before it."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self._process = process
        self._directory = directory

    def run(self, module: str, script: str) -> Any:
        """What ``script`` returns, which sees the exports of ``static/MODULE.js`` as ``m``.

        Raises AssertionError with what it threw, and where.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question = {"module": (self._directory / f"{module}.js").as_uri(), "script": script}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"Node has ended: {self._process.wait(_EXIT_TIMEOUT_S)}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer.get("value")


@contextlib.contextmanager
def page_modules(directory: Path) -> Iterator[PageModules]:
    """``directory``: an empty one, for a copy that says what the server's content type says in a browser."""
    need_commands("node")
    shutil.copytree(STATIC, directory, dirs_exist_ok=True)
    (directory / "package.json").write_text('{"type": "module"}')
    with subprocess.Popen(
        ["node", str(_RUNNER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        try:
            yield PageModules(process, directory)
        finally:
            process.kill()

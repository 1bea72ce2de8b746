"""``python -m bench flame``: where the time of echo calls goes, as a flame graph and as a table.

Samples are taken by py-spy from without, of this server alone; C code counts to the line of Python that calls it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from bench.load import Load, LoadSpec
from bench.systems import OURS, SYSTEMS, of_tree
from bench.table import publish
from lab.servers import RunningServer, running

HELP = "a flame graph of this server under echo calls, and the shares of its parts (py-spy)"

_WARM_S: Final = 2.0
_SPARE_S: Final = 30.0
_FRAME: Final = re.compile(r".* \((?P<file>.+?)(?::\d+)?\)")
_LIBOPUS: Final = "rtc_server/media/libopus.py"
_LOOP: Final = "asyncio/runners.py"
"""The innermost function of Python while uvloop is at work."""
_WAITING: Final = "Condition.wait (threading.py"
"""A thread that does nothing, and was seen as it went to sleep."""
_LIBRARIES: Final = {"pylibsrtp": "libsrtp", "aiortc": "aiortc", "aioice": "aioice", "numpy": "numpy"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sessions", type=int, default=8, help="calls at a time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="sampled for so long (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=100, help="samples a second (default: %(default)s)")
    parser.add_argument("--beside", type=Path, help="a working tree of another version of this server, in its place")
    parser.add_argument("--out", type=Path, default=Path("flame.svg"), help="the graph (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    if shutil.which("py-spy") is None:
        sys.exit("py-spy is missing\nhint: pip install '.[bench]'")
    shares = shares_of(asyncio.run(_measure(arguments)))
    publish(
        f"Where the time of {arguments.sessions} echo calls goes",
        ["", "share"],
        [[part, f"{100 * share:.0f} %"] for part, share in shares.items() if share >= 0.01],
        [
            f"Of the samples in which a thread was busy: {arguments.rate} a second for {arguments.seconds:g} s, by the "
            "innermost function of Python.",
            f"The graph, of as many seconds: `{arguments.out}`.",
        ],
    )


async def _measure(arguments: argparse.Namespace) -> str:
    """Stacks, one a line, with how often each was seen."""
    system = SYSTEMS[OURS] if arguments.beside is None else of_tree(arguments.beside)
    async with running(system) as server:
        load = await Load.start(LoadSpec(server.url, system.dialect, arguments.sessions, _WARM_S, "speech"))
        with tempfile.TemporaryDirectory() as place:
            raw = Path(place) / "stacks"
            await _record(server, "raw", raw, arguments)
            await _record(server, "flamegraph", arguments.out, arguments)
            await load.stop()
            return raw.read_text()


async def _record(server: RunningServer, form: str, out: Path, arguments: argparse.Namespace) -> None:
    """Raises RuntimeError if py-spy does not, as where another process may not be looked into."""
    command = ["py-spy", "record", "--pid", str(server.pid), "--format", form, "--output", str(out)]
    command += ["--duration", f"{arguments.seconds:.0f}", "--rate", str(arguments.rate)]
    spy = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await asyncio.wait_for(spy.communicate(), arguments.seconds + _SPARE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            spy.kill()
    if spy.returncode:
        raise RuntimeError(f"py-spy failed:\n{said.decode()[-2000:]}")


def shares_of(stacks: str) -> dict[str, float]:
    """The share of each part, the greatest first. ``stacks``: lines of frames from the outermost on, parted by
    semicolons, and a count."""
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        innermost = frames.rpartition(";")[2]
        if not innermost.startswith(_WAITING):
            counts[_part(innermost)] += int(count)
    total = counts.total()
    return {part: count / total for part, count in counts.most_common()}


def _part(frame: str) -> str:
    found = _FRAME.fullmatch(frame)
    file = "" if found is None else found["file"]
    top, *rest = file.split("/")
    if file in (_LIBOPUS, _LOOP):
        return "libopus" if file == _LIBOPUS else "uvloop: sockets, timers"
    if top == "rtc_server" and rest:
        return f"{top}/{rest[0]}" if len(rest) > 1 else top
    return _LIBRARIES.get(top, "the rest")

"""A program on a machine whose clocks are wrong: ``python -m tests.support.other_clock SECONDS MODULE ARGUMENT ...``.

All that Python code asks of the time of day, and of the time since the machine was started, is off by so many seconds.
"""

from __future__ import annotations

import runpy
import sys
import time

_OFF_S = float(sys.argv[1]) if __name__ == "__main__" else 0.0


def _shift() -> None:
    """Before any module takes the functions from where they are."""
    day, since_start = time.time, time.monotonic
    time.time = lambda: day() + _OFF_S
    time.monotonic = lambda: since_start() + _OFF_S
    off_ns = round(_OFF_S * 1e9)
    day_ns, since_start_ns = time.time_ns, time.monotonic_ns
    time.time_ns = lambda: day_ns() + off_ns
    time.monotonic_ns = lambda: since_start_ns() + off_ns


if __name__ == "__main__":
    _shift()
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

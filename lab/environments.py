"""Virtual environments for programs of others, which do not go with the project's own packages: made once, and again
when what they shall hold has changed. Needs nothing but the standard library.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

STAMP: Final = "installed.txt"


def python_in(directory: Path) -> Path:
    """The interpreter of the environment in a directory, whether it is there or not."""
    return directory / "bin" / "python"


def holds(directory: Path, requirements: Sequence[str]) -> bool:
    """Whether the environment is there, and has been made of exactly these."""
    stamp = directory / STAMP
    return stamp.is_file() and stamp.read_text() == "\n".join(requirements)


def make(directory: Path, requirements: Sequence[str]) -> Path:
    """The interpreter of the environment, which is made if it is not there or not the one wanted. Raises
    CalledProcessError when pip fails."""
    python = python_in(directory)
    if holds(directory, requirements):
        return python
    sys.stderr.write(f"making {directory.name} (minutes)\n")
    subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, *requirements], check=True)
    (directory / STAMP).write_text("\n".join(requirements))
    return python

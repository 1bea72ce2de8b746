"""Virtual environments for the peers: made once, remade when what they hold has changed.

``python -m bench.peers.environments`` makes all of them ahead of time.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
REQUIREMENTS: Final[dict[str, tuple[str, ...]]] = {
    "aiortc": ("aiortc==1.16.0", "aiohttp>=3.14,<4"),
    "fastrtc": ("fastrtc==0.0.34", "uvicorn"),
}


def python_of(name: str) -> Path:
    """The interpreter of the environment ``name``, which is made if it is not there or not the one wanted.

    Raises CalledProcessError when pip fails.
    """
    directory = HERE / f".env-{name}"
    python = directory / "bin" / "python"
    wanted = "\n".join(REQUIREMENTS[name])
    stamp = directory / "installed.txt"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"making {directory.name} (a minute)", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]], check=True)
    stamp.write_text(wanted)
    return python


if __name__ == "__main__":
    for environment in REQUIREMENTS:
        print(python_of(environment))

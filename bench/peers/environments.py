"""Virtual environments for the peers: made once, remade when what they hold has changed.

``python -m bench.peers.environments`` makes all of them ahead of time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lab.environments import make

HERE: Final = Path(__file__).parent
_ROOT: Final = HERE.parent.parent
"""Not among our modules: what walks through those does not find them."""
REQUIREMENTS: Final[dict[str, tuple[str, ...]]] = {
    "aiortc": ("aiortc==1.16.0", "aiohttp>=3.14,<4"),
    "fastrtc": ("fastrtc==0.0.34", "uvicorn"),
}


def python_of(name: str) -> Path:
    """The interpreter of the environment ``name``, which is made if it is not there or not the one wanted.

    Raises CalledProcessError when pip fails.
    """
    return make(_ROOT / f".venv-{name}", REQUIREMENTS[name])


if __name__ == "__main__":
    for environment in REQUIREMENTS:
        print(python_of(environment))

"""The model that comes with the package: its public name, and where its files are.

It is a checkpoint directory like any other, and loaded like one; only its name is known here. Must not import
torch: the media plane asks as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

PICO: Final = "pico"
"""Some eight million parameters: it converses on a CPU, within what it has been taught."""

FILES: Final = ("config.json", "model.safetensors", "mimi.json", "mimi.safetensors", "tokenizer.model")
"""What there has to be in its directory."""

_DIRECTORIES: Final = {PICO: Path(__file__).parent / "models" / PICO}


def directory_of(model: str) -> Path | None:
    """Where the files of the bundled model of this name are; None for any other name. A directory of the same name
    in the working directory is ``./pico``."""
    return _DIRECTORIES.get(model)


def is_complete(model: str) -> bool:
    """Whether ``model`` is bundled, with all its files."""
    directory = directory_of(model)
    return directory is not None and not missing_files(directory)


def missing_files(directory: Path) -> list[str]:
    """Those of :data:`FILES` that are not there."""
    return [name for name in FILES if not (directory / name).is_file()]

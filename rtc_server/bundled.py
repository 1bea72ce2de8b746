"""Finds what comes with the package: the bundled models by their public names, the page, the relay's template.

The models are checkpoint directories like any other, and loaded like them; only their names are known here. Must not
import torch: the media plane asks as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, overload

PACKAGE: Final = Path(__file__).parent

PICO: Final = "pico"
"""Some eight million parameters: it converses on a CPU, within what it has been taught."""

PICO_STT: Final = "pico-stt"
"""It writes down what pico understands, and hears through the same codec."""

PICO_STT_PT: Final = "pico-stt-pt"
"""It writes down some Portuguese, and hears through the same codec."""

FILES: Final = ("config.json", "model.safetensors", "mimi.json", "mimi.safetensors", "tokenizer.model")
"""What there has to be of a model."""

_DIRECTORIES: Final = {name: PACKAGE / "models" / name for name in (PICO, PICO_STT, PICO_STT_PT)}
_CODEC_OF: Final = {PICO_STT: PICO, PICO_STT_PT: PICO}
"""Who has no codec of its own hears through another's."""


def beside_or_inside(in_checkout: str, in_wheel: str) -> Path:
    """Path of a file or directory that stands beside the package in a checkout, and inside it when installed."""
    return next(path for path in (PACKAGE.parent / in_checkout, PACKAGE / in_wheel) if path.exists())


@overload
def directory_of(model: Literal["pico", "pico-stt", "pico-stt-pt"]) -> Path: ...
@overload
def directory_of(model: str) -> Path | None: ...
def directory_of(model: str) -> Path | None:
    """Directory of the bundled model of this name; None for any other name. A directory of the same name
    in the working directory is ``./pico``."""
    return _DIRECTORIES.get(model)


def is_complete(model: str) -> bool:
    """Whether ``model`` is bundled, with all its files."""
    return model in _DIRECTORIES and not missing_files(model)


def missing_files(model: str) -> list[str]:
    """Those of :data:`FILES` of the bundled ``model`` that are not there."""
    return [name for name in FILES if not (_DIRECTORIES[_owner(model, name)] / name).is_file()]


def _owner(model: str, name: str) -> str:
    return _CODEC_OF.get(model, model) if name.startswith("mimi") else model

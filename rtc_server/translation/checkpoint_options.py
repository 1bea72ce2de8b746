"""What can be chosen of translators that the transformers package loads, and under which licences they are. Apart from
the models, which import torch: the media plane chooses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtc_server.translation.pocket_options import NOTICE as POCKET_NOTICE

FACTORY: Final = "rtc_server.translation.checkpoints:load"
PACKAGES: Final = ("torch", "transformers")
LARGE: Final = "facebook/seamless-m4t-v2-large"
MADLAD: Final = "google/madlad400-3b-mt"
SEAMLESS: Final = "seamless_m4t_v2"
"""What ``model_type`` of a checkpoint's configuration says."""
NOTICE: Final = "SeamlessM4T v2: its weights are licensed for non-commercial use only (CC BY-NC 4.0)."
_SEAMLESS_HUB: Final = "facebook/seamless-m4t-v2-"
_NOTICES: Final = {
    _SEAMLESS_HUB: NOTICE,
    "google/madlad400-": "MADLAD-400 by Google: Apache-2.0.",
    "Helsinki-NLP/opus-mt-": "OPUS-MT by the University of Helsinki: CC BY 4.0.",
}
"""By how the names of hub repositories begin."""


@dataclass(frozen=True, slots=True)
class CheckpointOptions:
    """``model``: a hub repository, or a directory; of models of text several, separated by commas. ``device``: ``cpu``,
    ``cuda`` or ``cuda:N``. ``threads``: of the CPU; None for torch's own choice. ``pocket_tts``: languages that
    Pocket TTS is to speak (:mod:`rtc_server.translation.pocket_options`), where the models write only."""

    model: str
    device: str = "cpu"
    threads: int | None = None
    pocket_tts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        return ", ".join(map(name_of, models_of(self.model)))

    @property
    def notice(self) -> str:
        """Under which licences its parts are, as far as that is known."""
        return " ".join(filter(None, (notice_of(self.model), POCKET_NOTICE if self.pocket_tts else "")))


def models_of(model: str) -> list[str]:
    """The single ones."""
    return [one for each in model.split(",") if (one := each.strip())]


def name_of(model: str) -> str:
    """For people: of a directory its name alone."""
    path = Path(model).expanduser()
    return path.resolve().name if path.exists() else model


def speaks(model: str) -> bool:
    """Whether ``model`` speaks its translations itself, as far as can be known before it is loaded: its name, or its
    directory, is that of a SeamlessM4T."""
    return model.startswith(_SEAMLESS_HUB) or _kind_of(Path(model).expanduser()) == SEAMLESS


def notice_of(model: str) -> str:
    """Under which licence each published model in ``model`` is, for people; of a directory, what its kind always is.
    Empty for what is not known."""
    found = dict.fromkeys(_notice_of(one) for one in models_of(model))
    return " ".join(filter(None, found))


def _notice_of(model: str) -> str:
    published = next((notice for begins, notice in _NOTICES.items() if model.startswith(begins)), "")
    return published or (NOTICE if _kind_of(Path(model).expanduser()) == SEAMLESS else "")


def _kind_of(directory: Path) -> str:
    try:
        return str(json.loads((directory / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""

"""What can be chosen of SeamlessM4T. Apart from the model, which imports torch: the media plane chooses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

FACTORY: Final = "rtc_server.translation.seamless:load"
PACKAGES: Final = ("torch", "transformers")
LARGE: Final = "facebook/seamless-m4t-v2-large"
NOTICE: Final = "SeamlessM4T v2: its weights are licensed for non-commercial use only (CC BY-NC 4.0)."


@dataclass(frozen=True, slots=True)
class SeamlessOptions:
    """``model``: a hub repository, or a directory. ``device``: ``cpu``, ``cuda`` or ``cuda:N``. ``threads``: of the
    CPU; None for torch's own choice."""

    model: str
    device: str = "cpu"
    threads: int | None = None

    @property
    def name(self) -> str:
        """For people: of a directory its name alone."""
        path = Path(self.model).expanduser()
        return path.resolve().name if path.exists() else self.model

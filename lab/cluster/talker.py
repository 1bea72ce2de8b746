"""Those who talk with the model while the cluster is broken: what each of them can do, and what they ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import av
import numpy as np

from rtc_server.audio import FloatArray

_QUESTION: Final = Path(__file__).with_name("count.opus")
"""A voice that says "count to twenty"."""
PATIENCE_S: Final = 60.0
AUDIBLE_DBFS: Final = -45.0
QUIET_S: Final = 0.2


class Talker(Protocol):
    """In a conversation. ``events``: what the server has told it, oldest first, each once."""

    @property
    def events(self) -> Sequence[Mapping[str, Any]]: ...

    @property
    def session(self) -> str:
        """The id of its session, as it was told last."""

    async def begin(self) -> None:
        """A new conversation in the same session; until what was being said is silent."""

    async def ask(self) -> None:
        """Say the question."""

    async def come_back(self) -> None:
        """Be in the conversation again, after its server has died without a word."""

    async def hear(self) -> None:
        """Until a voice is heard, of what comes from now on."""


def question(rate_hz: int) -> FloatArray:
    """Mono float32."""
    resampler = av.AudioResampler("flt", "mono", rate_hz)
    with av.open(str(_QUESTION)) as container:
        frames = [resampled for frame in container.decode(audio=0) for resampled in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32)


def node_of(session: str) -> str:
    """The media node that has a session."""
    return session.partition("-")[0]

"""The media plane's end of a transport to one engine.

A link starts one engine, or finds one that runs on another machine, and carries messages to and from it; when that
engine is gone, so is the link, and a new one is made. :mod:`rtc_server.engine.local`, :mod:`rtc_server.engine.process`
and :mod:`rtc_server.engine.remote` are the three there are of streaming models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from rtc_server.engine.messages import FromEngine, LoadFailed, Ping, ToEngine

OnMessage = Callable[[FromEngine], None]
OnExit = Callable[[], None]
To_contra = TypeVar("To_contra", contravariant=True)
From_co = TypeVar("From_co", covariant=True)


class Link(Protocol[To_contra, From_co]):
    """All calls come from the event loop's thread, and so do both callbacks. The parameters: what an engine of this
    kind is told, and what it says."""

    @property
    def pid(self) -> int | None:
        """The process that holds the model; None on another machine."""

    async def start(self, on_message: Callable[[From_co | LoadFailed], None], on_exit: OnExit) -> None:
        """Start the engine. ``on_exit`` is called once, when it has ended for whatever reason, or has forgotten us."""

    def send(self, message: To_contra | Ping) -> bool:
        """Never blocks. False if the engine does not take it: its queue is full, or it is gone."""

    async def close(self) -> None:
        """Stop the engine, if it was started here, and wait for its end; by force after a few seconds. Idempotent."""


EngineLink = Link[ToEngine, FromEngine]

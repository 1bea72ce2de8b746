"""Makes a model from its name and options, so that the engine's room need not import the models'.

Owns how options cross the border of a process: as JSON with the name of their class, which checks them on arrival.
"""

from __future__ import annotations

import gc
import importlib
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from rtc_server.engine.model import StreamingModel
from rtc_server.usage import invocation


class ModelOptions(Protocol):
    """What a kind of model lets its caller choose: a frozen dataclass of plain values, one class for each kind."""

    @property
    def slots(self) -> int:
        """Rows of the batch, fixed for the model's life."""


@dataclass(frozen=True, slots=True)
class SlotOptions:
    """Of a model that leaves nothing else to choose. ``slots``: see :class:`ModelOptions`."""

    slots: int


class PackedOptions(msgspec.Struct, frozen=True):
    """Options on their way to another process. ``kind``: their class, as ``module:class``; ``values``: its fields."""

    kind: str
    values: msgspec.Raw


def pack(options: object) -> PackedOptions:
    """``options``, a dataclass of plain values, for another process, whose :func:`unpack` has to find their class by
    name."""
    kind = type(options)
    return PackedOptions(f"{kind.__module__}:{kind.__qualname__}", msgspec.Raw(msgspec.json.encode(options)))


def unpack(packed: PackedOptions) -> Any:
    """Unpack options. Raises msgspec.ValidationError for values that are not of the types that the class declares. Any:
    what its name tells of it."""
    return msgspec.json.decode(packed.values, type=_find(packed.kind))


def make_model(factory: str, options: ModelOptions) -> StreamingModel:
    """A streaming model, by :func:`make`. Raises ModelLoadError."""
    model: StreamingModel = make(factory, options)
    return model


def keep_for_life() -> None:
    """Say that all there is now stays as long as this process: the garbage collector does not look through it any more,
    which takes it longer than conversations can wait (0.1 s and more, for 300,000 objects of torch). For a process that
    is there for one model, when that is warm: what compiles it, comes with its first steps.
    """
    gc.collect()
    gc.freeze()


def make(factory: str, options: object) -> Any:
    """Call ``factory`` (``module:function``) with ``options``. Raises ModelLoadError, also for a package that the model
    wants and this machine does not have.

    ``factory`` comes from the composition root, never from a request.
    """
    try:
        return _find(factory)(options)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package == __name__.partition(".")[0]:
            raise
        name = getattr(options, "model", factory.partition(":")[0])  # echo and the like have but one
        raise invocation.lacks(name, package) from error


def _find(name: str) -> Any:
    """Import what ``module:attribute`` names. Any: that is all that a name tells of it."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)

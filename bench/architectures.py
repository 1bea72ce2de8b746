"""What an engine can be measured with, and how large that is.

Owns the models of random weights that are made on the spot, and what a model takes of memory. Runs in the processes
that hold a model; a program that measures from outside must not import it, for it imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from moshi.models import loaders
from moshi.modules.streaming import State

from bench.weights import Age, Memory, Sizes, WeighedOptions
from rtc_server.engine.model import BoolArray, FloatArray, LaunchedStep, MemoryUse, ModelInfo, RowOutput
from rtc_server.models.kyutai import page_table
from rtc_server.models.kyutai.checkpoint import checkpoint_name, open_checkpoint
from rtc_server.models.kyutai.fit import count_pages
from rtc_server.models.kyutai.footprint import state_bytes, weight_bytes
from rtc_server.models.kyutai.model import KyutaiModel, build
from rtc_server.models.kyutai.options import KyutaiOptions

MOSHI_7B: Final = "moshi-7b"


class NumberedPieces:
    """A tokenizer for an untrained model: a word of its own for each token."""

    def __init__(self, size: int) -> None:
        self._size = size

    def piece_size(self) -> int:
        return self._size

    def id_to_piece(self, id: int) -> str:
        return f"\u2581{id}"

    def is_byte(self, id: int) -> bool:
        return False

    is_control = is_unknown = is_unused = is_byte


class Untrained(loaders.CheckpointInfo):
    """An architecture without files: the moshi package then leaves the weights as they were drawn, on the device.

    A step does as much work with them as with trained ones. Without an ``lm_config`` it is Moshi 7B with Mimi.
    """

    def __init__(self, lm_config: dict[str, Any] | None = None, mimi_config: dict[str, Any] | None = None) -> None:
        super().__init__(None, None, None, lm_config=lm_config, mimi_config=mimi_config)  # type: ignore[arg-type]

    def get_text_tokenizer(self) -> Any:
        config: dict[str, Any] = self.lm_config or loaders._lm_kwargs
        return NumberedPieces(config["text_card"])


def checkpoint_of(arch: str) -> loaders.CheckpointInfo:
    """``arch``: :data:`MOSHI_7B`, or whatever names a checkpoint. Raises ModelLoadError."""
    return Untrained() if arch == MOSHI_7B else open_checkpoint(arch)


def product_model(options: KyutaiOptions) -> KyutaiModel:
    """The product's own model, of whichever architecture. Raises ModelLoadError."""
    return build(checkpoint_name(options.model), checkpoint_of(options.model), options, count_pages=count_pages)


def engine(options: WeighedOptions) -> Weighed:
    """A model for an engine process."""
    age = Age(Path(options.age)) if options.age else None
    return Weighed(product_model(options.kyutai), Path(options.report), options.fill, age)


class Weighed:
    """A model that writes down what it takes of memory: once it is warm, and again when it has done its work."""

    def __init__(self, model: KyutaiModel, report: Path, fill: int = 0, age: Age | None = None) -> None:
        self._model = model
        self._report = report
        self._fill = fill
        self._age = age
        pages = model._open.pages
        self._frame_bytes = 0 if pages is None else pages.page_bytes // page_table.PAGE_FRAMES
        self._sizes = sizes_of(model.modules, model.streaming_states, model.info.slots)

    @property
    def info(self) -> ModelInfo:
        return self._model.info

    def warm_up(self) -> None:
        self._model.warm_up()
        self._model.read_at_least(self._fill)
        self._write()

    def reset(self, rows: BoolArray) -> None:
        self._model.reset(rows)

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        self._grow_old()
        return self._model.step(pcm, active)

    @property
    def computes_apart(self) -> bool:
        return self._model.computes_apart

    def launch(self, pcm: FloatArray, active: BoolArray) -> LaunchedStep:
        self._grow_old()
        return self._model.launch(pcm, active)

    def _grow_old(self) -> None:
        if self._age is not None and self._age.frames != self._fill:
            self._fill = self._age.frames
            self._model.read_at_least(self._fill)

    def memory(self) -> MemoryUse:
        return self._model.memory()

    def close(self) -> None:
        self._write()
        self._model.close()

    def _write(self) -> None:
        Memory(self._sizes, peak_bytes(torch.device(self.info.device)), self._frame_bytes).write(self._report)


def peak_bytes(device: torch.device) -> int:
    """The most this process has held so far: see :class:`Memory`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def sizes_of(modules: Sequence[torch.nn.Module], states: Mapping[str, State], slots: int) -> Sizes:
    """``states``: all streaming states of ``modules``, for so many slots."""
    parameters = sum(tensor.nbytes for module in modules for tensor in module.parameters())
    inside = [inner for module in modules for inner in module.modules()]
    tables = sum(inner.weight.nbytes for inner in inside if isinstance(inner, torch.nn.Embedding))
    return Sizes(weight_bytes(*modules), parameters - tables, state_bytes(states) // slots)


def shape(arch: str, context: int | None, dtype: str) -> Sizes:
    """The sizes of a model for one session, without its memory: on torch's ``meta`` device, where nothing is held."""
    found = checkpoint_of(arch)
    overrides = {} if context is None else {"context": context}
    blank = Untrained(found.lm_config, found.mimi_config)
    with torch.device("meta"), torch.no_grad():
        modules = (
            blank.get_mimi("meta"),
            blank.get_moshi("meta", getattr(torch, dtype), lm_kwargs_overrides=overrides),
        )
        for module in modules:
            module.streaming_forever(1)
    mimi, lm = (module.get_streaming_state() for module in modules)
    return sizes_of(modules, {f"mimi.{path}": state for path, state in mimi.items()} | lm, slots=1)

"""``python -m bench host``: what the host computes in a step of the engine, without a device.

The engine's own loop, slot table and messages, and the product's own model with Moshi 7B's numbers of slots, pages,
codebooks and tokens; of the networks alone nothing is computed, for their answers are there at once. Counted is the
time for which the thread that steps has had a processor, so that other programs hardly matter.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from bench.apart import apart
from bench.floor import counts
from bench.table import publish, spread
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES
from rtc_server.engine.core import EngineCore
from rtc_server.engine.core import run as run_loop
from rtc_server.engine.inbox import Arrival
from rtc_server.engine.messages import (
    PCM,
    Frame,
    FromEngine,
    Open,
    Opened,
    StepDone,
    Stop,
    ToEngine,
    decode_to_engine,
    encode,
)
from rtc_server.engine.model import BoolArray, FloatArray, LaunchedStep, MemoryUse, ModelInfo, RowOutput
from rtc_server.engine.owners import HOST, Owner

HELP = "what the host computes in a step, without a device"

_WARM_STEPS: Final = 20
_VOICES: Final = 64
"""Different frames that are heard in turn."""
_PAGES_OF_A_ROW: Final = 24
"""Two minutes."""
_SMALL: Final[dict[str, Any]] = {
    **{"dim": 64, "num_layers": 1, "num_heads": 2, "hidden_scale": 1.0},
    **{"depformer_dim": 32, "depformer_dim_feedforward": 64, "depformer_num_layers": 1, "depformer_num_heads": 2},
}
"""Of Moshi 7B's configuration, what the host never sees."""


@dataclass(slots=True)
class Shares:
    """Seconds of the stepping thread, an entry a step. ``between``: from the device's last answer to the next launch,
    when it has nothing to do. ``beside``: while it computes. ``reading``: of the frames' messages, which another thread
    of the engine's process does."""

    between: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    reading: list[float] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--slots", type=counts, default="16,64,128", help="rows of each step, one run for each")
    parser.add_argument("--steps", type=int, default=200, help="that are counted")
    parser.add_argument("--rounds", type=int, default=3, help="times each")


def run(arguments: argparse.Namespace) -> None:
    rounds = {
        slots: [apart(shares, slots, arguments.steps) for _ in range(arguments.rounds)] for slots in arguments.slots
    }
    publish(
        "The host's share of a step",
        ["rows", "between two steps, ms", "p99", "while the device computes, ms", "p99", "reading frames, ms"],
        [
            [
                str(slots),
                *_cells([each.between for each in found]),
                *_cells([each.beside for each in found]),
                _cells([each.reading for each in found])[0],
            ]
            for slots, found in rounds.items()
        ],
        [
            f"{arguments.rounds} round(s) of {arguments.steps} steps in which every row has a frame: median "
            "(least–most) of the rounds' medians, and of their 99th percentiles.",
            "Processor time of the thread that steps. Launching kernels and copying between host and device are not in "
            "it: there is no device. Reading frames is another thread's, in the same process.",
        ],
    )


def _cells(rounds: list[list[float]]) -> list[str]:
    return [
        spread([float(np.percentile(seconds, percentile)) * 1000 for seconds in rounds], digits=2)
        for percentile in (50, 99)
    ]


def shares(slots: int, steps: int) -> Shares:
    """Of so many steps of all slots. In a process of its own."""
    model = WithoutDevice(slots)
    gc.collect()
    gc.freeze()
    port = Port(model, _WARM_STEPS + steps)
    run_loop(EngineCore(model), port, lambda: port.given * FRAME_MS / 1000)
    found = model.shares
    return Shares(found.between[-steps:], found.beside[-steps:], port.reading[-steps:])


class WithoutDevice:
    """The product's model of so many slots, whose device has computed whatever it is given at once."""

    computes_apart = True

    def __init__(self, slots: int) -> None:
        import torch  # noqa: PLC0415 - in a process of its own
        from moshi.models import loaders  # noqa: PLC0415

        from bench.architectures import Untrained  # noqa: PLC0415
        from rtc_server.models.kyutai.model import build  # noqa: PLC0415
        from rtc_server.models.kyutai.options import KyutaiOptions  # noqa: PLC0415

        torch.set_num_threads(1)
        options = KyutaiOptions("", slots, pages=slots * _PAGES_OF_A_ROW, threads=1, seed=1)
        model = build("host", Untrained(loaders._lm_kwargs | _SMALL), options)
        self._model = model
        self.shares = Shares()
        self.launched = 0
        self._answered_at: float | None = None
        nets, dice = model._open, torch.Generator().manual_seed(1)
        tokens = torch.randint(4, 2_000, (slots, 1 + nets.lm_gen.lm_model.dep_q, 1), generator=dice)
        voices = 0.1 * torch.randn((slots, 1, FRAME_SAMPLES), generator=dice)
        answers = tokens[:, 0].float(), voices
        fetched = [answers[0].numpy(), voices[:, 0].numpy()]

        def received(_: Any) -> list[FloatArray]:
            self._answered_at = time.thread_time()
            self.shares.beside.append(self._answered_at - self._launched_at)
            return fetched

        self._launched_at = 0.0
        nets.step = lambda *_: (tokens, answers)  # type: ignore[method-assign]
        nets.exchange.receive = received  # type: ignore[method-assign, assignment]

    def leave_out(self, seconds: float) -> None:
        """What has just been computed for so long is none of the engine's."""
        self._launched_at += seconds
        if self._answered_at is not None:
            self._answered_at += seconds

    @property
    def info(self) -> ModelInfo:
        return self._model.info

    def warm_up(self) -> None:
        pass

    def reset(self, rows: BoolArray) -> None:
        self._model.reset(rows)

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        raise NotImplementedError

    def launch(self, pcm: FloatArray, active: BoolArray) -> LaunchedStep:
        launched = self._model.launch(pcm, active)
        self._launched_at = time.thread_time()
        if self._answered_at is not None:
            self.shares.between.append(self._launched_at - self._answered_at)
        self.launched += 1
        return launched

    def memory(self) -> MemoryUse:
        return MemoryUse()

    def close(self) -> None:
        self._model.close()


class Port:
    """Frames for every slot, as they come while a step runs; and the end after so many steps."""

    def __init__(self, model: WithoutDevice, steps: int) -> None:
        dice = np.random.default_rng(1)
        self._voices = [(0.1 * dice.standard_normal(FRAME_SAMPLES)).astype(PCM).tobytes() for _ in range(_VOICES)]
        self._model = model
        self._steps = steps
        self._slots: dict[int, int] = {}
        self.given = 0
        self.reading: list[float] = []
        self.heard = 0

    def receive(self, wait_s: float | None) -> Iterable[Arrival]:
        if not self._slots:
            return [Arrival(Open(slot), 0.0) for slot in range(self._model.info.slots)]
        if self.given > self._model.launched:
            return []
        self.given += 1
        if self.given > self._steps:
            return [Arrival(Stop(), 0.0)]
        began = time.thread_time()
        frames = self._frames()
        self._model.leave_out(time.thread_time() - began)
        return [Arrival(frame, self.given * FRAME_MS / 1000) for frame in frames]

    def _frames(self) -> list[ToEngine]:
        raw = [
            encode(Frame(slot, generation, self.given, self._voices[(slot + self.given) % _VOICES]))
            for slot, generation in self._slots.items()
        ]
        began = time.thread_time()
        frames: list[ToEngine] = [decode_to_engine(each) for each in raw]
        self.reading.append(time.thread_time() - began)
        return frames

    def send(self, message: FromEngine, owner: Owner = HOST) -> None:
        match message:
            case Opened():
                self._slots[message.slot] = message.generation
            case StepDone():
                self.heard += len(encode(message)) > 0
            case _:
                pass

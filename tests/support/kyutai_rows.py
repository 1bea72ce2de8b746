"""Conversations with a tiny model of the moshi package, alone and in rows of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.model import RowOutput
from rtc_server.models.kyutai.kv_cache import Ring
from rtc_server.models.kyutai.model import NO_TOKEN, KyutaiModel, load
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.models.kyutai.wipe import RowTensor

Floats = npt.NDArray[np.float32]
RING_FRAMES = 16
"""``context`` of the tiny checkpoints: longer conversations wrap every attention cache."""
PCM_TOLERANCE = 1e-5


def greedy(checkpoint: Path, slots: int, cfg_coef: float = 1.0, device: str = "cpu") -> KyutaiModel:
    """In float32 wherever it runs: rounding to bfloat16 would tell the sizes of batches apart."""
    options = KyutaiOptions(
        str(checkpoint), slots, device, "float32", temp=0.0, temp_text=0.0, threads=1, cfg_coef=cfg_coef
    )
    return load(options)


def fresh_row_tensor(path: str, owner: object, name: str, rows: int, slots: int) -> RowTensor:
    """In place of ``wipe._row_tensor`` on the device meta, where what a fresh row looks like cannot be read."""
    return RowTensor(path, owner, name, int(isinstance(owner, Ring)), rows // slots, 0.0)


def only(slots: int, *rows: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(slots, dtype=np.bool_)
    mask[list(rows)] = True
    return mask


def noise(rng: np.random.Generator, rows: int) -> Floats:
    """Noise whose loudness differs from row to row and frame to frame."""
    loudness = rng.uniform(0.001, 0.3, size=(rows, 1))
    return (loudness * rng.standard_normal((rows, FRAME_SAMPLES))).astype(np.float32)


@dataclass
class Conversation:
    """What one user said, and what came back: a token row, text and audio (or None) for each frame."""

    heard: list[Floats] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    text: str = ""
    pcm: list[Floats | None] = field(default_factory=list)
    pauses: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, heard: Floats, tokens: npt.NDArray[np.int64], output: RowOutput | None) -> None:
        assert output is not None
        self.heard.append(heard.copy())
        self.tokens.append(tokens.tolist())
        self.text += output.text
        self.pcm.append(output.pcm)
        self.pauses.append(output.pauses)


def random_schedule(model: KyutaiModel, steps: int, seed: int) -> list[Conversation]:
    """Users who come, pause and go at random: slots are reset and used again, masks differ at each step."""
    rng = np.random.default_rng(seed)
    slots = model.info.slots
    current = [Conversation() for _ in range(slots)]
    ended: list[Conversation] = []
    for _ in range(steps):
        leaving = rng.random(slots) < 0.04
        model.reset(leaving)
        for row in np.flatnonzero(leaving):
            ended.append(current[row])
            current[row] = Conversation()
        pcm, active = noise(rng, slots), rng.random(slots) < 0.7
        outputs = model.step(pcm, active)
        for row in range(slots):
            if active[row]:
                current[row].add(pcm[row], model.last_tokens[row], outputs[row])
            else:
                assert outputs[row] is None
                assert set(model.last_tokens[row].tolist()) == {NO_TOKEN}
    return [conversation for conversation in ended + current if conversation.heard]


def tensors_in(name: str, holder: object) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that can be reached from a streaming state, found without the code under test."""
    for attribute, value in vars(holder).items():
        if isinstance(value, torch.Tensor) and attribute != "exec_mask":
            yield f"{name}.{attribute}", value
        elif (
            type(value).__module__.startswith(("moshi.", "rtc_server.models.kyutai.kv_cache"))
            and type(value).__name__ != "CUDAGraphed"
        ):
            yield from tensors_in(f"{name}.{attribute}", value)


def row_contents(model: KyutaiModel, row: int) -> dict[str, npt.NDArray[np.float64]]:
    """What the states hold of a row, by name. Works for 3 slots: no other dimension of the tiny models is 3 or 6."""
    contents = {}
    for name, state in model.streaming_states.items():
        for path, tensor in tensors_in(name, state):
            dims = [dim for dim, size in enumerate(tensor.shape) if size in (3, 6)]
            if dims and tensor.numel():
                rows = range(row, tensor.shape[dims[0]], 3)
                contents[path] = np.stack([tensor.select(dims[0], at).double().cpu().numpy() for at in rows])
    return contents


def assert_same(one: Conversation, other: Conversation, tolerance: float = PCM_TOLERANCE) -> None:
    assert one.tokens == other.tokens
    assert one.text == other.text
    assert [pcm is None for pcm in one.pcm] == [pcm is None for pcm in other.pcm]
    for left, right in zip(one.pcm, other.pcm, strict=True):
        if left is not None and right is not None:
            np.testing.assert_allclose(left, right, rtol=0, atol=tolerance)
    np.testing.assert_allclose(one.pauses, other.pauses, rtol=0, atol=tolerance)


def alone(model: KyutaiModel, heard: list[Floats]) -> Conversation:
    """The same words to a model of one slot."""
    conversation = Conversation()
    for frame in heard:
        output = model.step(frame[None], only(1, 0))[0]
        conversation.add(frame, model.last_tokens[0], output)
    return conversation


def run(model: KyutaiModel, frames: list[Floats], row: int, from_row: Floats | None) -> list[Conversation]:
    """All rows hear ``frames`` ([steps][slots, 1920]), ``row`` hears ``from_row`` instead if that is given."""
    slots = model.info.slots
    conversations = [Conversation() for _ in range(slots)]
    for frame in frames:
        pcm = frame.copy()
        if from_row is not None:
            pcm[row] = from_row
        outputs = model.step(pcm, np.ones(slots, dtype=np.bool_))
        for index in range(slots):
            conversations[index].add(pcm[index], model.last_tokens[index], outputs[index])
    return conversations

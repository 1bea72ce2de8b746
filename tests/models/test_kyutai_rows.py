"""Rows of the moshi package's models: each is as if it were alone, poison stays in its own, and a reset wipes it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moshi.conditioners.base import ConditionAttributes
from moshi.models.lm import LMGen
from moshi.utils.compile import no_compile
from torch.utils._python_dispatch import TorchDispatchMode

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.models.kyutai.checkpoint import open_checkpoint
from rtc_server.models.kyutai.model import NO_TOKEN, load
from rtc_server.models.kyutai.options import KyutaiOptions
from tests.support.kyutai_rows import (
    PCM_TOLERANCE,
    RING_FRAMES,
    Conversation,
    Floats,
    alone,
    assert_same,
    greedy,
    noise,
    only,
    random_schedule,
    row_contents,
    run,
)

pytestmark = pytest.mark.slow

SAME_BATCH_TOLERANCE = {"cpu": 1e-6, "cuda": PCM_TOLERANCE}
"""Of two batches of one size. Some of CUDA's convolutions add up in the order in which they get there; of a CPU's, on
some processors, in one that depends on where in memory their numbers lie."""


@functools.cache
def of_the_package(checkpoint: Path, device: str) -> tuple[Any, Any, Any]:
    """Its codec, its language model and its tokenizer: a stream begins with nothing of the one before."""
    found = open_checkpoint(str(checkpoint))
    return found.get_mimi(device), found.get_moshi(device, torch.float32), found.get_text_tokenizer()


def stock_server(checkpoint: Path, heard: list[Floats], device: str = "cpu") -> Conversation:
    """The order of calls of the moshi package's own server, for one user, with nothing of ours."""
    mimi, lm, tokenizer = of_the_package(checkpoint, device)
    conditions = None
    if lm.condition_provider is not None:
        good = ConditionAttributes(text={"description": "very_good"})
        conditions = lm.condition_provider.prepare_and_provide([good])
    lm_gen = LMGen(lm, temp=0.0, temp_text=0.0, condition_tensors=conditions)
    conversation = Conversation(heard=heard)
    with torch.no_grad(), no_compile(), mimi.streaming(1), lm_gen.streaming(1):
        for index, frame in enumerate(heard):
            codes = mimi.encode(torch.from_numpy(frame).to(device)[None, None])
            if index == 0:
                mimi.reset_streaming()
            tokens = lm_gen.step(codes)
            conversation.pauses.append(())
            if tokens is None:
                conversation.tokens.append([NO_TOKEN] * (1 + lm.dep_q))
                conversation.pcm.append(None)
                continue
            conversation.tokens.append(tokens[0, :, 0].tolist())
            conversation.pcm.append(mimi.decode(tokens[:, 1:])[0, 0].cpu().numpy())
            token = int(tokens[0, 0, 0])
            if token not in (0, 3):
                conversation.text += tokenizer.id_to_piece(token).replace("▁", " ")
    return conversation


@pytest.mark.parametrize(("kind", "seed"), [("moshi", 0), ("hibiki", 3)])
def test_each_row_is_what_the_stock_server_would_have_said(
    request: pytest.FixtureRequest, device: str, kind: str, seed: int
) -> None:
    checkpoint: Path = request.getfixturevalue(f"{kind}_checkpoint")
    conversations = random_schedule(greedy(checkpoint, 4, device=device), steps=60, seed=seed)
    assert len(conversations) > 4, "no slot was used again"
    assert max(len(conversation.heard) for conversation in conversations) > RING_FRAMES + 1
    for conversation in conversations:
        assert_same(conversation, stock_server(checkpoint, conversation.heard, device))
    assert len({tuple(map(tuple, c.tokens[2:6])) for c in conversations if len(c.tokens) > 6}) > 4, "all said the same"


@pytest.mark.parametrize("seed", range(2))
def test_rows_of_a_speech_to_text_model_are_independent(stt_checkpoint: Path, device: str, seed: int) -> None:
    for conversation in random_schedule(greedy(stt_checkpoint, 3, device=device), steps=60, seed=seed):
        assert_same(conversation, alone(greedy(stt_checkpoint, 1, device=device), conversation.heard))


@pytest.mark.parametrize("cfg_coef", [1.0, 3.0])
def test_rows_of_a_guided_translation_are_independent(hibiki_checkpoint: Path, cfg_coef: float) -> None:
    """Guidance doubles the batch inside: slot i has rows i and slots + i."""
    for conversation in random_schedule(greedy(hibiki_checkpoint, 3, cfg_coef), steps=40, seed=5):
        assert_same(conversation, alone(greedy(hibiki_checkpoint, 1, cfg_coef), conversation.heard))


def test_warm_up_changes_nothing(moshi_checkpoint: Path, device: str) -> None:
    warm, cold = (greedy(moshi_checkpoint, 2, device=device) for _ in range(2))
    warm.warm_up()
    for one, other in zip(random_schedule(warm, 20, 1), random_schedule(cold, 20, 1), strict=True):
        assert_same(one, other, SAME_BATCH_TOLERANCE[device])


def test_a_seed_decides_what_is_sampled(moshi_checkpoint: Path) -> None:
    def sampled(seed: int) -> list[list[int]]:
        model = load(KyutaiOptions(str(moshi_checkpoint), slots=1, seed=seed, threads=1))
        model.warm_up()
        return alone(model, list(noise(np.random.default_rng(0), 10))).tokens

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_the_checkpoint_says_how_to_sample_unless_told(stt_checkpoint: Path) -> None:
    """The tiny STT's config.json has temperature 0."""
    frames = list(noise(np.random.default_rng(0), 12))

    def written(seed: int, temp_text: float | None) -> list[list[int]]:
        options = KyutaiOptions(str(stt_checkpoint), slots=1, seed=seed, temp_text=temp_text, threads=1)
        return alone(load(options), frames).tokens

    assert written(1, None) == written(2, None)
    assert written(1, 5.0) != written(2, 5.0)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_a_poisoned_row_reaches_neither_its_neighbours_nor_the_next_user(
    moshi_checkpoint: Path, device: str, poison: float
) -> None:
    tolerance = SAME_BATCH_TOLERANCE[device]
    rng = np.random.default_rng(11)
    first = [noise(rng, 3) for _ in range(8)]
    second = [noise(rng, 3) for _ in range(RING_FRAMES + 4)]
    model, clean, fresh = (greedy(moshi_checkpoint, 3, device=device) for _ in range(3))

    poisoned = run(model, first, 1, np.full(FRAME_SAMPLES, poison, dtype=np.float32))
    expected = run(clean, first, 1, None)
    for row in (0, 2):
        assert_same(poisoned[row], expected[row], tolerance)
    if np.isnan(poison):
        assert any(np.isnan(value).any() for value in row_contents(model, 1).values()), "the poison did not take"

    model.reset(only(3, 1))
    clean.reset(only(3, 1))
    after, clean_after = run(model, second, 1, None), run(clean, second, 1, None)
    for row in range(3):
        assert_same(after[row], clean_after[row], tolerance)
    assert_same(after[1], run(fresh, second, 1, None)[1], tolerance)


def test_what_an_inactive_row_is_given_is_ignored(moshi_checkpoint: Path) -> None:
    rng = np.random.default_rng(2)
    frames = list(noise(rng, 6))
    model = greedy(moshi_checkpoint, 2)
    conversation = Conversation()
    for frame in frames:
        model.step(np.full((2, FRAME_SAMPLES), np.nan, dtype=np.float32), only(2, 1))
        output = model.step(np.stack([frame, np.full_like(frame, np.nan)]), only(2, 0))[0]
        conversation.add(frame, model.last_tokens[0], output)
    assert_same(conversation, stock_server(moshi_checkpoint, frames))


@pytest.mark.parametrize(("kind", "cfg_coef"), [("moshi", 1.0), ("stt", 1.0), ("hibiki", 3.0)])
def test_reset_leaves_nothing_of_a_row_and_all_of_the_others(
    request: pytest.FixtureRequest, device: str, kind: str, cfg_coef: float
) -> None:
    checkpoint = request.getfixturevalue(f"{kind}_checkpoint")
    model = greedy(checkpoint, 3, cfg_coef, device)
    fresh = {row: row_contents(model, row) for row in range(3)}
    assert any(".kv_cache.cache" in name for name in fresh[0])
    assert any(name.endswith(".previous") for name in fresh[0])
    assert "lm_gen.cache" in fresh[0]

    random_schedule(model, steps=RING_FRAMES + 4, seed=3)
    used = {row: row_contents(model, row) for row in range(3)}
    changed = [name for name, value in used[1].items() if not np.array_equal(value, fresh[1][name])]
    assert len(changed) > 10

    model.reset(only(3, 1))
    for row in range(3):
        expected = fresh[row] if row == 1 else used[row]
        for name, value in row_contents(model, row).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=f"{name}, row {row}")
    assert set(model.last_tokens[1].tolist()) == {NO_TOKEN}


def test_reset_of_no_row_changes_nothing(moshi_checkpoint: Path) -> None:
    frames = list(noise(np.random.default_rng(4), 6))
    model = greedy(moshi_checkpoint, 1)
    conversation = Conversation()
    for frame in frames:
        model.reset(only(1))
        conversation.add(frame, *reversed((model.step(frame[None], only(1, 0))[0], model.last_tokens[0])))
    assert_same(conversation, stock_server(moshi_checkpoint, frames))


class Calls(TorchDispatchMode):
    """Counts what is asked of the device: all but views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func._schema.returns
        self.count += not any(value.alias_info is not None and not value.alias_info.is_write for value in returned)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["moshi", "hibiki"])
def test_a_reset_is_a_few_calls_and_no_step_moves_a_state(request: pytest.FixtureRequest, kind: str) -> None:
    """A call for each type of number, and one for each state that is not blank when it is zero."""
    model = greedy(request.getfixturevalue(f"{kind}_checkpoint"), 3)
    tensors = model._open._wiper.tensors
    assert len(tensors) > 20
    before = [each.tensor.data_ptr() for each in tensors]
    random_schedule(model, steps=8, seed=1)
    assert [each.tensor.data_ptr() for each in tensors] == before
    with torch.no_grad(), Calls() as calls:
        model._open.reset([1])
    assert calls.count <= 8

"""Attention over what is filled makes the package's own tokens: for every kind of model, through ring wraps, resets and
random masks; and it reads no further than it has to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from moshi.models.compression import MimiModel
from moshi.models.lm import LMGen
from moshi.utils.compile import no_compile

from rtc_server.models.kyutai import attention
from rtc_server.models.kyutai.attention import Filled, GraphOfEachExtent, read_what_is_filled
from rtc_server.models.kyutai.checkpoint import open_checkpoint
from rtc_server.models.kyutai.kv_cache import Ring
from rtc_server.models.kyutai.model import make_generator
from rtc_server.models.kyutai.options import KyutaiOptions
from tests.support.kyutai_rows import PCM_TOLERANCE, RING_FRAMES, greedy, noise

pytestmark = pytest.mark.slow

ROWS = 3
STEPS = 2 * RING_FRAMES + 8


def generator_of(model: str, cfg_coef: float = 1.0, dtype: torch.dtype = torch.float32) -> tuple[MimiModel, LMGen]:
    """The package's own, with rings so short that they wrap."""
    found = open_checkpoint(model)
    lm = found.get_moshi("cpu", dtype, lm_kwargs_overrides={"context": RING_FRAMES})
    options = KyutaiOptions(model, ROWS, temp=0.8, temp_text=0.7, cfg_coef=cfg_coef)
    lm_gen = make_generator(lm, found, options)
    lm_gen.use_sampling = True
    return found.get_mimi("cpu"), lm_gen


def in_turn(streaming: Any, filled: Filled | None, rng: np.random.Generator) -> Iterator[npt.NDArray[np.bool_]]:
    """Which rows of what is ``streaming`` take part in each step, bool, shape [rows]: they come, pause and go at
    random."""
    steps, most = np.zeros(ROWS, dtype=np.int64), 0
    streaming.streaming_forever(ROWS)
    for _ in range(STEPS):
        leaving, active = rng.random(ROWS) < 0.03, rng.random(ROWS) < 0.8
        streaming.reset_streaming(torch.from_numpy(leaving))
        streaming.set_exec_mask(torch.from_numpy(active))
        steps[leaving] = 0
        if filled is not None:
            filled.to(int(max(steps[active], default=0)) + 1)
        yield active
        steps[active] += 1
        most = max(most, steps.max())
    assert most > RING_FRAMES, "no ring wrapped"


def tokens_of(lm_gen: LMGen, filled: Filled | None, seed: int = 0) -> list[torch.Tensor]:
    """The tokens of each step, and the probabilities of extra heads."""
    lm, rng = lm_gen.lm_model, np.random.default_rng(seed)
    heard = lm.n_q - lm.dep_q
    torch.manual_seed(seed)
    made = []
    with torch.no_grad(), no_compile():
        for active in in_turn(lm_gen, filled, rng):
            found = lm_gen.step_with_extra_heads(torch.from_numpy(rng.integers(0, lm.card, (ROWS, heard, 1))))
            assert found is not None
            made.append(found[0][active])
            made += [head[active] for head in found[1]]
    return made


@pytest.mark.parametrize("in_buckets", [False, True], ids=["to the frame", "in buckets"])
@pytest.mark.parametrize(("kind", "cfg_coef"), [("moshi", 1.0), ("stt", 1.0), ("hibiki", 1.0), ("hibiki", 3.0)])
def test_every_token_is_the_package_s(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str, cfg_coef: float, in_buckets: bool
) -> None:
    monkeypatch.setattr(attention, "_LEAST_BUCKET", 4)
    checkpoint = str(request.getfixturevalue(f"{kind}_checkpoint"))
    mimi, ours = generator_of(checkpoint, cfg_coef)
    filled = read_what_is_filled(mimi, ours.lm_model)
    filled._cuda = in_buckets
    expected = tokens_of(generator_of(checkpoint, cfg_coef)[1], None)
    for one, other in zip(tokens_of(ours, filled), expected, strict=True):
        assert torch.equal(one, other) if not one.is_floating_point() else torch.allclose(one, other, atol=1e-6)
    assert len({tuple(each.flatten().tolist()) for each in expected}) > STEPS // 2, "it said the same all the time"


@pytest.mark.parametrize("model", ["pico", "pico-stt"])
def test_every_token_of_the_bundled_models_is_the_package_s(model: str) -> None:
    mimi, ours = generator_of(model)
    filled = read_what_is_filled(mimi, ours.lm_model)
    for one, other in zip(tokens_of(ours, filled), tokens_of(generator_of(model)[1], None), strict=True):
        assert torch.equal(one, other)


def heard_by(lm_gen: LMGen, filled: Filled | None) -> list[torch.Tensor]:
    """What the main transformer makes of the same noise in each step."""
    lm, rng = lm_gen.lm_model, np.random.default_rng(0)
    made = []
    with torch.no_grad(), no_compile():
        for active in in_turn(lm.transformer, filled, rng):
            given = torch.from_numpy(rng.standard_normal((ROWS, 1, lm.dim)))
            made.append(lm.transformer(given.to(lm.dtype))[active].float())
    return made


def test_in_bfloat16_it_is_the_package_s_but_for_rounding(moshi_checkpoint: Path) -> None:
    """In which order a processor adds up depends on how many numbers there are, and in bfloat16 the sum on the order:
    one token in some hundred is another then, on some processors and not on others."""
    mimi, ours = generator_of(str(moshi_checkpoint), dtype=torch.bfloat16)
    found = heard_by(ours, read_what_is_filled(mimi, ours.lm_model))
    expected = heard_by(generator_of(str(moshi_checkpoint), dtype=torch.bfloat16)[1], None)
    largest = max(float(each.abs().max()) for each in expected if each.numel())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2**-5 * largest)


@pytest.mark.parametrize("model", ["moshi", "pico"])
def test_mimi_hears_and_speaks_as_it_does_without(request: pytest.FixtureRequest, model: str) -> None:
    """Two positions a frame: each sees the one beside it only if that came before."""
    checkpoint = model if model == "pico" else str(request.getfixturevalue(f"{model}_checkpoint"))
    plain, ours = open_checkpoint(checkpoint).get_mimi("cpu"), open_checkpoint(checkpoint).get_mimi("cpu")
    filled = read_what_is_filled(ours, generator_of(checkpoint)[1].lm_model)
    rng = np.random.default_rng(1)
    steps, most = np.zeros(ROWS, dtype=np.int64), 0
    with torch.no_grad(), no_compile():
        for mimi in (plain, ours):
            mimi.streaming_forever(ROWS)
        for _ in range(STEPS):
            leaving, active = rng.random(ROWS) < 0.03, rng.random(ROWS) < 0.8
            steps[leaving] = 0
            filled.to(int(max(steps[active], default=0)) + 1)
            steps[active] += 1
            most = max(most, steps.max())
            frames = torch.from_numpy(noise(rng, ROWS))[:, None]
            spoken = torch.from_numpy(rng.integers(0, plain.cardinality, (ROWS, plain.num_codebooks, 1)))
            for mimi in (plain, ours):
                mimi.reset_streaming(torch.from_numpy(leaving))
                mimi.set_exec_mask(torch.from_numpy(active))
            assert torch.equal(plain.encode(frames)[active], ours.encode(frames)[active])
            torch.testing.assert_close(
                plain.decode(spoken)[active], ours.decode(spoken)[active], rtol=0, atol=PCM_TOLERANCE
            )
    assert 2 * most > 40, "no ring wrapped"


def test_no_more_is_read_than_is_filled(moshi_checkpoint: Path) -> None:
    """What lies beyond the extent may be anything: it does not even count as masked."""
    mimi, lm_gen = generator_of(str(moshi_checkpoint))
    filled = read_what_is_filled(mimi, lm_gen.lm_model)
    lm_gen.streaming_forever(ROWS)
    rings: list[Ring] = [
        state.kv_cache for state in lm_gen.lm_model.get_streaming_state().values() if hasattr(state, "kv_cache")
    ]
    assert rings
    for ring in rings:
        ring.cache[:, :, :, 8:] = torch.nan
    hidden: list[Any] = []
    lm_gen.on_text_logits_hook = hidden.append
    with no_compile():
        for frames in range(1, 9):
            filled.to(frames)
            lm_gen.step(torch.ones((ROWS, 4, 1), dtype=torch.long))
            assert hidden[-1].isfinite().all()
        filled.to(9)
        lm_gen.step(torch.ones((ROWS, 4, 1), dtype=torch.long))
        assert hidden[-1].isnan().any(), "the poison did not take"


def test_extents_follow_the_longest_row() -> None:
    filled = Filled(cuda=False, narrow=False)
    filled.add_ring(100)
    assert filled.extent(100, 1) == 100, "nothing has been said: it may be full"
    assert filled.buckets == []
    found = []
    for frames in (1, 8, 9, 99, 100_000):
        filled.to(frames)
        found.append((filled.extent(100, 1), filled.extent(100, 2)))
    assert found == [(8, 8), (8, 16), (16, 24), (100, 100), (100, 100)]


def test_extents_on_cuda_are_few() -> None:
    """Each is a graph of its own; of rings that are widened when they are read there is one."""
    filled = Filled(cuda=True, narrow=False)
    filled.add_ring(250)
    filled.add_ring(3000)
    assert filled.buckets == [3000, 2048, 1024, 512, 256]
    found = set()
    for frames in range(1, 4000, 7):
        filled.to(frames)
        extent = filled.extent(3000, 1)
        assert extent >= min(frames, 3000)
        found.add((extent, filled.extent(250, 2)))
    assert found == {(length, 250) for length in filled.buckets}
    narrow = Filled(cuda=True, narrow=True)
    narrow.add_ring(3000)
    narrow.to(1)
    assert narrow.buckets == [narrow.extent(3000, 1)] == [3000]


def test_each_extent_is_captured_once() -> None:
    """What a captured graph reads has the length that it was captured with."""
    filled = Filled(cuda=True, narrow=False)
    filled.add_ring(1000)

    class Captured:
        """As a graph does it: what was computed at the time of the capture is computed for ever."""

        def __init__(self, function: Any) -> None:
            self.extent: int = function()

        def __call__(self) -> int:
            return self.extent

    graphed = GraphOfEachExtent(lambda: filled.extent(1000, 1), filled, Captured)
    for frames in (1, 300, 3, 5000, 301, 700):
        filled.to(frames)
        assert graphed() == filled.extent(1000, 1)
    assert len(graphed.graphs) == 3


def test_a_warm_up_runs_at_each_extent(moshi_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Often enough for a graph: it is captured at the second call, and replayed from the third on."""
    monkeypatch.setattr(attention, "_LEAST_BUCKET", 4)
    model = greedy(moshi_checkpoint, 1)
    filled = model._open.filled
    filled._cuda = True
    step, seen = model.step, []

    def counted(pcm: Any, active: Any) -> Any:
        made = step(pcm, active)
        if made[0] is not None and made[0].pcm is not None:
            seen.append(filled.frames)
        return made

    monkeypatch.setattr(model, "step", counted)
    model.warm_up()
    assert {frames: seen.count(frames) >= 3 for frames in filled.buckets} == {16: True, 4: True, 8: True}
    model.step(np.zeros((1, 1920), np.float32), np.ones(1, np.bool_))
    assert filled.frames == 4, "the warm-up is over"


def test_those_who_measure_read_further_and_change_no_token(moshi_checkpoint: Path) -> None:
    models = greedy(moshi_checkpoint, 2), greedy(moshi_checkpoint, 2)
    for model in models:
        model.warm_up()
    models[1].read_at_least(9)
    rng, all_rows = np.random.default_rng(1), np.ones(2, np.bool_)
    read = []
    for _ in range(12):
        pcm = noise(rng, 2)
        for model in models:
            model.step(pcm, all_rows)
        assert np.array_equal(models[0].last_tokens, models[1].last_tokens)
        read.append(tuple(model._open.filled.frames for model in models))
    assert read == [(step, max(step, 9)) for step in range(1, 13)]

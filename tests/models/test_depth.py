"""The depth transformer without rings makes the package's own tokens, sampled ones included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from moshi.utils.compile import no_compile

from rtc_server.models.kyutai.depth import without_rings
from rtc_server.models.kyutai.sampler import RowSampler, noise_width
from tests.models.test_attention import ROWS, generator_of, tokens_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kind", "cfg_coef"), [("moshi", 1.0), ("hibiki", 3.0), ("pico", 1.0)])
def test_every_token_is_the_package_s(request: pytest.FixtureRequest, kind: str, cfg_coef: float) -> None:
    checkpoint = kind if kind == "pico" else str(request.getfixturevalue(f"{kind}_checkpoint"))
    plain, ours = generator_of(checkpoint, cfg_coef)[1], generator_of(checkpoint, cfg_coef)[1]
    assert without_rings(ours.lm_model)
    for one, other in zip(tokens_of(ours, None), tokens_of(plain, None), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_score_is_the_package_s_to_the_bit(moshi_checkpoint: Path, dtype: torch.dtype) -> None:
    plain, ours = (generator_of(str(moshi_checkpoint), dtype=dtype)[1].lm_model for _ in range(2))
    assert without_rings(ours)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), no_compile():
        for _ in range(3):
            hidden = torch.randn((ROWS, 1, plain.dim), generator=generator).to(dtype)
            assert plain.depformer is not None
            assert ours.depformer is not None
            with plain.depformer.streaming(ROWS), ours.depformer.streaming(ROWS):
                for codebook in range(plain.dep_q):
                    before = torch.randint(0, 16, (ROWS, 1, 1), generator=generator)
                    expected = plain.forward_depformer(codebook, before, hidden)
                    assert torch.equal(ours.forward_depformer(codebook, before, hidden), expected)


def test_rows_sample_with_the_chance_that_is_theirs(moshi_checkpoint: Path) -> None:
    """What draws for each row goes on drawing where the package's depth transformer would have asked for it."""
    found = []
    for ours in (False, True):
        lm_gen = generator_of(str(moshi_checkpoint))[1]
        if ours:
            assert without_rings(lm_gen.lm_model)
        noise = np.ones((ROWS, noise_width(lm_gen)), dtype=np.float32)
        sampler = RowSampler(lm_gen, noise, torch.from_numpy(noise), seed=3)
        generator = torch.Generator().manual_seed(5)
        lm_gen.streaming_forever(ROWS)
        made = []
        with no_compile():
            for step in range(20):
                sampler.draw(torch.ones(ROWS, dtype=torch.bool).numpy(), torch.full((ROWS,), step).numpy())
                tokens = lm_gen.step(torch.randint(0, 16, (ROWS, 4, 1), generator=generator))
                assert tokens is not None
                made.append(tokens)
        found.append(torch.stack(made))
    assert torch.equal(found[0], found[1])
    assert (found[0][2:, 0] != found[0][2:, 1]).any(), "all rows said the same"


def test_nothing_of_a_step_is_left_for_the_next(moshi_checkpoint: Path) -> None:
    """A row that was poisoned in one step is sound in the next."""
    lm = generator_of(str(moshi_checkpoint))[1].lm_model
    without_rings(lm)
    assert lm.depformer is not None
    before = torch.zeros((ROWS, 1, 1), dtype=torch.long)
    found = []
    with torch.no_grad(), no_compile():
        for poison in (torch.nan, 0.0):
            with lm.depformer.streaming(ROWS):
                hidden = torch.full((ROWS, 1, lm.dim), poison)
                found = [lm.forward_depformer(codebook, before, hidden) for codebook in range(lm.dep_q)]
            assert all(each.isnan().all() == (poison != 0.0) for each in found)


def test_a_model_without_one_is_left_alone(stt_checkpoint: Path) -> None:
    assert not without_rings(generator_of(str(stt_checkpoint))[1].lm_model)

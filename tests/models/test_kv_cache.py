"""Attention may remember in fewer bits: the same where nothing is rounded, nearly the same where something is, and no
conversation reaches another either way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from moshi.models.lm import LMGen
from moshi.modules.transformer import RingKVCache
from moshi.utils.compile import no_compile

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.models.kyutai.attention import read_what_is_filled
from rtc_server.models.kyutai.checkpoint import open_checkpoint
from rtc_server.models.kyutai.estimate import footprint
from rtc_server.models.kyutai.kv_cache import NarrowRing
from rtc_server.models.kyutai.model import KyutaiModel, load
from rtc_server.models.kyutai.options import KvDtype, KyutaiOptions
from tests.support.kyutai_rows import (
    RING_FRAMES,
    alone,
    assert_same,
    noise,
    only,
    random_schedule,
    row_contents,
    run,
)

pytestmark = pytest.mark.slow

ROWS, HEADS, CAPACITY, WIDTH = 3, 2, 5, 4


def narrow(checkpoint: Path, slots: int, kv_dtype: KvDtype) -> KyutaiModel:
    return load(KyutaiOptions(str(checkpoint), slots, kv_dtype=kv_dtype, temp=0.0, temp_text=0.0, threads=1))


def filled(stored: torch.dtype, factor: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys of the package's cache and of ours after more writes than they hold, with rows that were masked at times."""
    plain = RingKVCache(ROWS, HEADS, WIDTH, CAPACITY, device=torch.device("cpu"), dtype=torch.float32)
    ours = NarrowRing(plain, ROWS, stored)
    generator = torch.Generator().manual_seed(0)
    for _ in range(CAPACITY + 3):
        k, v = factor * torch.randn((2, ROWS, HEADS, 1, WIDTH), generator=generator)
        mask = torch.rand(ROWS, generator=generator) < 0.7
        ours.write(k, v, (plain.end_offset % CAPACITY)[:, None])
        expected = plain.complete(k, v, mask)
        found, _ = ours.read(CAPACITY, torch.float32, (plain.end_offset % CAPACITY)[:, None])
        assert found.dtype == torch.float32
    return expected.keys, found


@pytest.mark.parametrize(
    ("stored", "rounding"),
    [(torch.float32, 0.0), (torch.bfloat16, 2**-8), (torch.float16, 2**-11), (torch.float8_e4m3fn, 2**-4)],
    ids=str,
)
def test_numbers_come_back_as_exactly_as_their_type_can_say(stored: torch.dtype, rounding: float) -> None:
    """float8's smallest step is 2**-9, of which half may be lost."""
    expected, found = filled(stored)
    torch.testing.assert_close(found, expected, rtol=rounding, atol=2**-10 if rounding == 2**-4 else 1e-6)
    assert torch.equal(found, expected) or rounding


@pytest.mark.parametrize("stored", [torch.float16, torch.float8_e4m3fn], ids=str)
def test_what_is_too_large_becomes_the_largest_and_not_nan(stored: torch.dtype) -> None:
    _, found = filled(stored, factor=1e6)
    assert found.isfinite().all()
    assert found.abs().max() == torch.finfo(stored).max


def test_writes_are_in_place() -> None:
    """As a CUDA graph needs them: where the ring lies never changes."""
    like = RingKVCache(ROWS, HEADS, WIDTH, CAPACITY, device=torch.device("cpu"), dtype=torch.float32)
    ring = NarrowRing(like, ROWS, torch.float8_e4m3fn)
    before = ring.cache.data_ptr()
    for position in range(CAPACITY):
        keys, values = torch.randn(2, ROWS, HEADS, 1, WIDTH)
        ring.write(keys, values, torch.full((ROWS, 1), position))
    assert ring.cache.data_ptr() == before
    assert ring.cache.any()


def test_with_nothing_to_round_every_token_is_that_of_the_package(moshi_checkpoint: Path) -> None:
    def tokens(stored: torch.dtype | None) -> torch.Tensor:
        found = open_checkpoint(str(moshi_checkpoint))
        lm = found.get_moshi("cpu", torch.float32)
        if stored is not None:
            read_what_is_filled(found.get_mimi("cpu"), lm, stored)
        lm_gen = LMGen(lm, temp=0.0, temp_text=0.0, support_out_of_sync=True)
        lm_gen.streaming_forever(ROWS)
        generator = torch.Generator().manual_seed(1)
        made = []
        with no_compile():
            for _ in range(3 * RING_FRAMES):
                lm_gen.reset_streaming(torch.rand(ROWS, generator=generator) < 0.03)
                lm_gen.set_exec_mask(torch.rand(ROWS, generator=generator) < 0.8)
                step = lm_gen.step(torch.randint(0, 16, (ROWS, 4, 1), generator=generator))
                assert step is not None
                made.append(step)
        caches = [state.kv_cache for state in lm.get_streaming_state().values() if hasattr(state, "kv_cache")]
        assert {type(cache) for cache in caches} == {RingKVCache if stored is None else NarrowRing}
        return torch.stack(made)

    assert torch.equal(tokens(torch.float32), tokens(None))


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "float8"])
def test_rows_are_independent(moshi_checkpoint: Path, kv_dtype: KvDtype) -> None:
    for conversation in random_schedule(narrow(moshi_checkpoint, 3, kv_dtype), steps=40, seed=6):
        assert_same(conversation, alone(narrow(moshi_checkpoint, 1, kv_dtype), conversation.heard))


@pytest.mark.parametrize("kv_dtype", ["float16", "float8"])
def test_a_reset_leaves_nothing_of_a_row_and_all_of_the_others(moshi_checkpoint: Path, kv_dtype: KvDtype) -> None:
    model = narrow(moshi_checkpoint, 3, kv_dtype)
    fresh = {row: row_contents(model, row) for row in range(3)}
    random_schedule(model, steps=RING_FRAMES + 4, seed=3)
    used = {row: row_contents(model, row) for row in range(3)}
    caches = [name for name in fresh[0] if name.startswith("lm.") and name.endswith("kv_cache.cache")]
    assert caches
    assert all(used[1][name].any() for name in caches)
    model.reset(only(3, 1))
    for row in range(3):
        for name, value in row_contents(model, row).items():
            np.testing.assert_array_equal(value, (fresh if row == 1 else used)[row][name], err_msg=f"{name}, row {row}")


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "float8"])
def test_poison_stays_in_its_row_and_goes_with_it(moshi_checkpoint: Path, kv_dtype: KvDtype) -> None:
    rng = np.random.default_rng(11)
    first, second = [[noise(rng, 3) for _ in range(count)] for count in (8, RING_FRAMES + 4)]
    model, clean = narrow(moshi_checkpoint, 3, kv_dtype), narrow(moshi_checkpoint, 3, kv_dtype)
    poisoned = run(model, first, 1, np.full(FRAME_SAMPLES, np.nan, dtype=np.float32))
    expected = run(clean, first, 1, None)
    for row in (0, 2):
        assert_same(poisoned[row], expected[row], tolerance=0)
    model.reset(only(3, 1))
    clean.reset(only(3, 1))
    for after, clean_after in zip(run(model, second, 1, None), run(clean, second, 1, None), strict=True):
        assert_same(after, clean_after, tolerance=0)


@pytest.mark.parametrize(("kv_dtype", "share"), [("float16", 2), ("bfloat16", 2), ("float8", 4)])
def test_a_session_takes_so_much_less(moshi_checkpoint: Path, kv_dtype: KvDtype, share: int) -> None:
    """Of the language model's caches, all is gained; the rest of a session stays. Known before it is loaded."""
    wanted = KyutaiOptions(str(moshi_checkpoint), 2, kv_dtype=kv_dtype, threads=1)
    layers, keys_and_values, width, float32 = 2, 2, 32, 4
    whole = layers * keys_and_values * width * RING_FRAMES * float32
    before = load(KyutaiOptions(str(moshi_checkpoint), 2, threads=1)).memory().cache_bytes // 2
    after = load(wanted).memory().cache_bytes // 2
    assert before - after == whole - whole // share
    assert footprint(wanted).session_bytes == after
    assert footprint(wanted).working_bytes == whole // layers

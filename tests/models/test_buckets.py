"""A step of some rows says what a step of the whole batch does, and moves no state; and it is no larger than it has to
be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.models.kyutai import buckets, page_table
from rtc_server.models.kyutai.buckets import Bucket, Buckets, Part, chosen, sizes
from rtc_server.models.kyutai.model import KyutaiModel, load
from rtc_server.models.kyutai.options import KyutaiOptions
from tests.support.kyutai_rows import RING_FRAMES, assert_same, noise, only, random_schedule

SLOTS = 4


def test_sizes_double_up_to_the_whole_batch() -> None:
    assert sizes(1, cpu=True) == [1]
    assert sizes(4, cpu=True) == [1, 2, 4]
    assert sizes(6, cpu=True) == [1, 2, 4, 6]
    assert sizes(6, cpu=False) == [6]
    assert sizes(8, cpu=False) == [8]
    assert sizes(80, cpu=False) == [8, 16, 32, 64, 80]
    assert sizes(80, cpu=False, pages=False) == [80], "whole rings of rows that lie apart would have to be copied"


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.data())
def test_a_step_has_the_active_rows_first_and_none_twice(wanted: list[bool], data: st.DataObject) -> None:
    active = np.array(wanted)
    size = data.draw(st.integers(max(1, int(active.sum())), len(active)))
    rows = chosen(active, size)
    assert len(set(rows.tolist())) == len(rows) == size
    assert set(np.flatnonzero(active)) <= set(rows.tolist())
    if size < len(active):
        assert rows[: active.sum()].tolist() == np.flatnonzero(active).tolist()
    else:
        assert rows.tolist() == list(range(size)), "nothing is copied in the whole batch: rows are where they are"


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The sizes of steps."""
    found: set[int] = set()
    of = Buckets.of

    def noted(self: Buckets, rows: int) -> Bucket:
        bucket = of(self, rows)
        found.add(bucket.size)
        return bucket

    monkeypatch.setattr(Buckets, "of", noted)
    return found


def addresses(model: KyutaiModel) -> list[int]:
    """Of all that a graph would read: the states of the batch, and of each bucket."""
    nets = model._open
    parts = [each for each in nets.buckets._buckets if isinstance(each, Part)]
    assert [each.size for each in parts] == nets.buckets.sizes[:-1]
    inside = [
        getattr(owner, home.name) for each in parts for owner, home in zip(each._owners, each._homes, strict=True)
    ]
    return [each.data_ptr() for each in [*(home.tensor for home in nets._wiper.tensors), *inside]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("moshi", {}),
        ("moshi", {"kv_dtype": "float8"}),
        ("moshi", {"pages": 100}),
        ("moshi", {"pages": 9, "kv_dtype": "float8"}),
        ("moshi", {"temp": 0.8, "temp_text": 0.7}),
        ("stt", {}),
        ("hibiki", {"cfg_coef": 3.0}),
        ("hibiki", {"cfg_coef": 3.0, "pages": 100}),
    ],
    ids=str,
)
def test_every_token_is_that_of_the_whole_batch(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, used: set[int], kind: str, more: dict[str, Any]
) -> None:
    """Rows come, pause, go and are used again, and wrap their rings, in a bucket now and in another one then."""
    monkeypatch.setattr(page_table, "PAGE_FRAMES", 4)
    path = str(request.getfixturevalue(f"{kind}_checkpoint"))
    options = KyutaiOptions(path, SLOTS, seed=1, threads=1, **{"temp": 0.0, "temp_text": 0.0} | more)
    model = load(options)
    before = addresses(model)
    found = random_schedule(model, 4 * RING_FRAMES, seed=3)
    assert used == {1, 2, 4}
    assert addresses(model) == before
    monkeypatch.setattr(buckets, "sizes", lambda slots, **_: [slots])
    used.clear()
    expected = random_schedule(load(options), 4 * RING_FRAMES, seed=3)
    assert used == {SLOTS}
    assert max(len(each.heard) for each in expected) > 2 * RING_FRAMES, "no ring wrapped"
    assert len(expected) > SLOTS, "no row was used again"
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


@pytest.mark.slow
def test_a_poisoned_row_that_fills_a_step_up_hurts_no_other(moshi_checkpoint: Path) -> None:
    """Rows that take no part are computed to make a size full, whatever is in them."""
    models = [load(KyutaiOptions(str(moshi_checkpoint), 8, temp=0.0, temp_text=0.0, threads=1)) for _ in range(2)]
    for home in models[1]._open._wiper.tensors:
        if home.dtype.is_floating_point:
            home.put(8, 0, home.copy(8, 0).fill_(float("nan")))
    rng, active = np.random.default_rng(1), only(8, 1, 3, 6)
    for _ in range(6):
        pcm = noise(rng, 8)
        one, other = (model.step(pcm, active) for model in models)
        assert chosen(active, 4).tolist() == [1, 3, 6, 0]
        assert np.array_equal(models[0].last_tokens, models[1].last_tokens)
        for left, right in zip(one, other, strict=True):
            assert (left is None) == (right is None)
            if left is not None and right is not None and left.pcm is not None:
                assert right.pcm is not None
                np.testing.assert_allclose(left.pcm, right.pcm, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_warm_up_goes_through_every_size(moshi_checkpoint: Path, used: set[int]) -> None:
    model = load(KyutaiOptions(str(moshi_checkpoint), 6, threads=1))
    model.warm_up()
    assert used == {1, 2, 4, 6}
    assert model.step(np.zeros((6, FRAME_SAMPLES), np.float32), only(6, 5))[:5] == [None] * 5

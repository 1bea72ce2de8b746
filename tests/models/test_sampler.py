"""What a row samples by is the same whether it was drawn ahead of its step or not, and drawn once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import given
from hypothesis import strategies as st
from moshi.models.lm import LMGen

from rtc_server.models.kyutai.sampler import RowSampler, noise_width

ROWS = 4


class Generator(LMGen):
    """Of two codebooks; computes nothing."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        settings = SimpleNamespace(dep_q=2, text_card=8, card=6)
        told: dict[str, Any] = {"temp": 0.8, "temp_text": 0.7, "top_k": 5, "top_k_text": 3, "use_sampling": True}
        self.__dict__.update(told | {"lm_model": settings})


def sampler() -> tuple[RowSampler, npt.NDArray[np.float32]]:
    generator = Generator()
    noise = np.ones((ROWS, noise_width(generator)), dtype=np.float32)
    return RowSampler(generator, noise, torch.from_numpy(noise), seed=3), noise


ROW_SETS = st.lists(st.booleans(), min_size=ROWS, max_size=ROWS).map(np.array)


@given(st.lists(st.tuples(ROW_SETS, ROW_SETS, st.permutations(range(ROWS)), st.booleans()), max_size=8))
def test_drawn_ahead_or_not_it_is_the_same(
    story: list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], list[int], bool]],
) -> None:
    """Rows pause, and end, between a step and the next; a step is of all rows, or of some in any order."""
    (ahead, found), (plain, expected) = sampler(), sampler()
    steps = np.zeros(ROWS, dtype=np.int64)
    for active, ended, order, all_rows in story:
        rows = None if all_rows else np.array([row for row in order if active[row]], dtype=np.int64)
        for each in (ahead, plain):
            each.draw(active, steps, rows)
        seen = np.flatnonzero(active) if rows is None else np.arange(len(rows))
        assert np.array_equal(found[seen], expected[seen])
        steps[active] += 1
        ahead.draw_ahead(active, steps)
        for each in (ahead, plain):
            each.renew(np.flatnonzero(ended).tolist())
        steps[ended] = 0


def test_what_was_drawn_ahead_is_not_drawn_again() -> None:
    made, noise = sampler()
    everyone, steps = np.ones(ROWS, dtype=np.bool_), np.arange(ROWS)
    made.draw_ahead(everyone, steps)
    draws: list[int] = []
    draw_ahead = made.draw_ahead

    def counted(rows: npt.NDArray[np.bool_], steps: npt.NDArray[np.int64]) -> None:
        draws.extend(np.flatnonzero(rows).tolist())
        draw_ahead(rows, steps)

    made.draw_ahead = counted  # type: ignore[method-assign]
    made.draw(everyone, steps)
    assert draws == []
    made.renew([2])
    made.draw(everyone, steps)
    assert draws == [2], "it is another conversation's chance"
    made.draw(everyone, steps + (np.arange(ROWS) == 1))
    assert draws == [2, 1], "it is another step's"
    assert (noise > 0).all()

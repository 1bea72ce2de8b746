"""A step of Moshi 7B is so many kernels and no more, counted at its real shapes on torch's meta device, where nothing
is computed: what creeps back is found here, and not on a GPU."""

from __future__ import annotations

import functools

import pytest

from bench.launches import ROWS, counting, kernels, moshi_7b
from rtc_server.models.kyutai import wipe
from rtc_server.models.kyutai.attention import Filled
from rtc_server.models.kyutai.buckets import Part, _state_of, _streaming_modules
from rtc_server.models.kyutai.kv_cache import Ring
from rtc_server.models.kyutai.model import streaming_states
from tests.support.kyutai_rows import fresh_row_tensor
from tests.support.server_process import ROOT

pytestmark = pytest.mark.slow


@functools.cache
def counted(pages: int = 0, in_place: bool = False, ours: bool = True) -> dict[str, int]:
    return kernels(moshi_7b(pages, in_place, ours))


@pytest.mark.timeout(600)
def test_pages_that_are_read_in_place_cost_one_kernel_a_layer() -> None:
    """The second, which joins what the first has found; and masks there are none."""
    assert 32 < counted(100, True)["main"] - counted()["main"] <= 32 + 3


@pytest.mark.timeout(600)
def test_pages_cost_two_copies_a_layer() -> None:
    """Of keys and of values, as far as they are read; and a few once, to know where they are."""
    assert 2 * 32 < counted(100)["main"] - counted()["main"] <= 2 * 32 + 15


@pytest.mark.timeout(600)  # seconds of computing in a worker that gives way to all others
def test_a_step_takes_no_more_kernels_than_it_has_to() -> None:
    found = counted()
    assert all(found[part] > count for part, count in {"main": 300, "depth": 300}.items()), f"they count: {found}"
    most = {"main": 550, "depth": 670, "mimi's encoder transformer": 155}
    assert all(count <= most[part] for part, count in found.items()), found


@pytest.mark.timeout(600)
def test_the_table_in_the_documents_is_what_is_counted() -> None:
    """Give or take what another version of torch calls otherwise."""
    text = (ROOT / "docs" / "benchmarks.md").read_text().partition("`python -m bench launches`")[2]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    ways = [counted(0, False, False), counted(), counted(100), counted(100, True)]
    for (part, *cells), expected in zip(lines[2:5], ways[0], strict=True):
        assert part == expected
        assert [int(cell.replace(",", "")) for cell in cells] == [pytest.approx(way[part], rel=0.03) for way in ways]


@pytest.mark.timeout(600)
def test_a_step_of_fewer_rows_costs_two_copies_of_each_small_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """One there and one back: of convolutions, tokens and positions, and of no ring. When this was written: 52 of
    them."""

    monkeypatch.setattr(wipe, "_row_tensor", fresh_row_tensor)
    mimi, lm_gen = moshi_7b(pages=100, in_place=True)
    tensors = wipe.RowWiper(streaming_states(mimi, lm_gen), ROWS).tensors
    states = [_state_of(module) for module in _streaming_modules(mimi, lm_gen)]
    part = Part(ROWS // 2, ROWS, states, tensors, Filled(cuda=True, narrow=False))
    with counting() as counter:
        part._gather_now()
        part._scatter_now()
    small = [each for each in tensors if not isinstance(each.owner, Ring)]
    assert counter.kernels == 2 * len(small)
    assert len(small) < 60

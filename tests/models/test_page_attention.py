"""Attention over pages without a copy is attention: the kernels find what is found in float64, in every type that there
is; what a row does not see reaches it in no way, and where the kernels are not to be relied on, they are not used.

On a GPU they run as they are compiled, elsewhere in triton's interpreter.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moshi.models import loaders
from moshi.utils.compile import no_compile

from rtc_server.models.kyutai import page_attention, page_table
from rtc_server.models.kyutai.attention import read_what_is_filled
from rtc_server.models.kyutai.checkpoint import open_checkpoint
from rtc_server.models.kyutai.page_attention import reference, splits, working_bytes
from rtc_server.models.kyutai.page_table import NEVER, places
from rtc_server.models.kyutai.pages import Pages, pages_for
from tests.support.triton_here import DEVICE, need_triton

PAGE = 4
ROUNDING = 2**-8 if DEVICE == "cuda" else 2**-7
"""Of bfloat16: the interpreter cuts off."""
COMPILER = Path(__file__).parents[1] / "support" / "compiled_pages.py"
TARGETS = [
    (90, "bfloat16"),
    (90, "float16"),
    (90, "float32"),
    (90, "float8"),
    (80, "bfloat16"),
    (80, "float8"),
]


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pages so short that a row has several, and of which a row is split."""
    need_triton()
    monkeypatch.setattr(page_table, "PAGE_FRAMES", PAGE)
    monkeypatch.setattr(page_attention, "_PROGRAMS", 1)
    monkeypatch.setattr(page_attention, "_LEAST_SPLITS", 2)


class Rows:
    """Three rows of a ring of ten frames, whose entries are numbers where a row sees them, and NaN everywhere else."""

    capacity = 10

    def __init__(self, last: list[int], since: list[list[int]], heads: int, kv_heads: int, width: int) -> None:
        at = places(self.capacity, PAGE)
        numbers = torch.Generator().manual_seed(sum(last))
        count = 1 + at * len(last)
        self.last = torch.tensor(last)
        self.since = torch.tensor(since)
        self.pages = 1 + torch.randperm(count - 1, generator=numbers).view(-1, at)
        self.pages[self.since == NEVER] = 0
        self.least: torch.Tensor | None = None
        self.queries = torch.randn((len(last), heads, width), generator=numbers)
        self.cache = torch.full((2, kv_heads, count, PAGE, width), torch.nan)
        for row, now in enumerate(last):
            for position in range(max(0, now - self.capacity + 1), now + 1):
                place, frame = divmod(position % self.capacity, PAGE)
                if position >= since[row][place]:
                    entry = torch.randn((2, kv_heads, width), generator=numbers)
                    self.cache[:, :, self.pages[row, place], frame] = entry

    def found(self, dtype: torch.dtype, stored: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """What the kernels find, and what is expected: both float64."""
        queries, cache = self.queries.to(dtype), self.cache.to(stored)
        kept = cache.view(torch.uint8) if stored.itemsize == 1 else cache
        told = self.pages, self.since, self.last
        least = torch.zeros_like(self.last) if self.least is None else self.least
        found = page_attention.attend(*(each.to(DEVICE) for each in (queries, kept, *told, least)), self.capacity)
        assert (found.dtype, found.shape) == (dtype, queries.shape)
        return found.double().cpu(), reference(queries, cache, *told, self.capacity)


@pytest.mark.parametrize(
    ("dtype", "stored", "rounding"),
    [
        (torch.float32, torch.float32, 1e-6),
        (torch.bfloat16, torch.bfloat16, ROUNDING),
        (torch.float16, torch.float16, 2**-11),
        (torch.bfloat16, torch.float8_e4m3fn, ROUNDING),
        (torch.float32, torch.float8_e4m3fn, 1e-6),
        (torch.float32, torch.bfloat16, 1e-6),
    ],
    ids=str,
)
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(2, 2, 16), (4, 2, 24)])
@pytest.mark.usefixtures("kernels")
def test_it_is_attention_over_what_a_row_sees(
    dtype: torch.dtype, stored: torch.dtype, rounding: float, heads: int, kv_heads: int, width: int
) -> None:
    """A row at its beginning, one that is just full, one that has wrapped and has forgotten what is oldest: all beside
    NaN, which lies in their own pages as well, where they have written nothing yet. Only the output is rounded."""
    rows = Rows([1, 9, 25], [[0, NEVER, NEVER], [0, 4, 8], [20, NEVER, 18]], heads, kv_heads, width)
    found, expected = rows.found(dtype, stored)
    assert expected.isfinite().all()
    assert expected.abs().amax(2).min() > 0.01, "it mixes nothing"
    torch.testing.assert_close(found, expected, rtol=rounding, atol=1e-6)


@pytest.mark.usefixtures("kernels")
def test_through_rounds_and_gaps_of_all_kinds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        last = rng.integers(0, 35, 3).tolist()
        since = []
        for now in last:
            firsts = [int(now) - (int(now) % 10 - place * PAGE) % 10 for place in range(3)]
            kinds = rng.integers(0, 3, 3)
            since.append([[0, max(0, first), NEVER][kind] for first, kind in zip(firsts, kinds, strict=True)])
        found, expected = Rows(last, since, 2, 1, 16).found(torch.float32, torch.float32)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("kernels")
def test_of_nothing_it_makes_zeros() -> None:
    """Rows that have no page, or have forgotten all."""
    found, _ = Rows([0, 5, 14], [[NEVER] * 3, [NEVER] * 3, [15, 15, NEVER]], 2, 2, 16).found(
        torch.float32, torch.float32
    )
    assert not found.any()


@pytest.mark.usefixtures("kernels")
def test_nan_that_a_row_sees_is_its_own() -> None:
    rows = Rows([6, 6, 6], [[0, 0, NEVER]] * 3, 2, 2, 16)
    rows.cache[0, 1, rows.pages[1, 0], 2] = torch.nan
    found, expected = rows.found(torch.float32, torch.float32)
    assert found[1, 1].isnan().all()
    assert torch.equal(found.isnan(), expected.isnan())


@pytest.mark.parametrize("kind", ["float8", "float8 by its bits"])
@pytest.mark.usefixtures("kernels")
def test_every_number_of_eight_bits_is_what_it_means(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one frame that is seen, attention makes its values."""
    from rtc_server.models.kyutai import page_kernel

    if DEVICE == "cpu" or torch.cuda.get_device_capability() >= (8, 9):
        monkeypatch.setattr(page_kernel, "kind_of", lambda *_: kind)
    numbers = torch.arange(256, dtype=torch.uint8)
    if DEVICE == "cpu" and kind == "float8":
        numbers[[0x7F, 0xFF]] = 0  # the interpreter makes 480 of NaN
    cache = torch.zeros((2, 1, 1, PAGE, 256), dtype=torch.uint8)
    cache[1, 0, 0, 0] = numbers
    zero = torch.zeros((1, 1), dtype=torch.long)
    told = torch.zeros((1, 1, 256)), cache, zero, zero, zero[0], zero[0]
    found = page_attention.attend(*(each.to(DEVICE) for each in told), PAGE)
    torch.testing.assert_close(
        found[0, 0].cpu(), numbers.view(torch.float8_e4m3fn).float(), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.usefixtures("kernels")
def test_what_is_read_only_to_be_read_changes_nothing() -> None:
    """Of old rows as of new ones; and it is read, as NaN there shows."""
    rows = Rows([1, 9, 25], [[0, NEVER, NEVER], [0, 4, 8], [20, NEVER, 18]], 2, 2, 16)
    rows.pages[0, 1:] = rows.pages[1, :2]
    poisoned = rows.cache
    rows.cache = poisoned.nan_to_num()
    before, expected = rows.found(torch.float32, torch.float32)
    rows.least = torch.full_like(rows.last, rows.capacity)
    after, _ = rows.found(torch.float32, torch.float32)
    torch.testing.assert_close(before, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(after, before)
    rows.cache = poisoned
    found, _ = rows.found(torch.float32, torch.float32)
    assert found[[0, 2]].isnan().all(), "it is not read"


@pytest.mark.usefixtures("kernels")
def test_numbers_that_are_large_are_no_trouble() -> None:
    """Weights are relative to the largest score: no power overflows."""
    rows = Rows([9, 3, 25], [[0, 4, 8], [0, NEVER, NEVER], [20, 24, 18]], 2, 2, 16)
    rows.queries *= 1000
    found, expected = rows.found(torch.float32, torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_device_without_contents_has_the_shape() -> None:
    """As steps are counted and models are sized up; triton is not asked."""
    shapes = [(3, 4, 24), (2, 2, 7, PAGE, 24)]
    queries, cache = (torch.empty(shape, dtype=torch.bfloat16, device="meta") for shape in shapes)
    told = (torch.empty(shape, dtype=torch.long, device="meta") for shape in ((3, 3), (3, 3), (3,), (3,)))
    found = page_attention.attend(queries, cache, *told, 10)
    assert (found.shape, found.dtype, found.device.type) == (queries.shape, queries.dtype, "meta")


def test_many_rows_are_split_less_than_few() -> None:
    """One conversation with Moshi 7B is read by all multiprocessors; long ones among many still are by several."""
    assert [splits(rows, 32, 47) for rows in (1, 2, 8, 64, 128)] == [32, 16, 4, 4, 4]
    assert splits(1, 32, 1) == 1
    assert splits(64, 32, 2) == 2
    assert working_bytes(64, 32, 128, 47) == 64 * 32 * 4 * 130 * 4


# Whether it is used


@pytest.fixture
def lm(moshi_checkpoint: Path) -> Any:
    return open_checkpoint(str(moshi_checkpoint)).get_moshi(DEVICE, torch.float32)


@pytest.fixture
def at_hand(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a CPU, in the interpreter."""
    monkeypatch.setattr(page_attention, "at_hand", lambda _: True)


@pytest.mark.parametrize("stored", [None, torch.bfloat16, torch.float8_e4m3fn], ids=str)
@pytest.mark.usefixtures("at_hand")
def test_what_is_right_is_used(lm: Any, stored: torch.dtype | None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert page_attention.proven(lm, stored)
    assert [record.getMessage() for record in caplog.records] == [
        "attention reads its pages in place, by a kernel of triton"
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda queries, *_: queries * 0, "is wrong by 1 here"),
        (lambda queries, *_: queries * torch.nan, "is wrong by nan"),
        (lambda *_: 1 // 0, "does not run; each step copies them: ZeroDivisionError"),
    ],
    ids=["wrong", "NaN", "no compiler"],
)
@pytest.mark.usefixtures("at_hand")
def test_what_is_wrong_is_not(
    lm: Any, wrong: Any, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A conversation is rather slow than of nonsense, or not at all."""
    monkeypatch.setattr(page_attention, "attend", wrong)
    assert not page_attention.proven(lm, None)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert said in record.getMessage()


def test_without_triton_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not page_attention.at_hand(torch.device("cpu"))
    for found in (None, object()):
        monkeypatch.setattr("importlib.util.find_spec", lambda _, found=found: found)
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        assert page_attention.at_hand(torch.device("cuda")) == (found is not None)


def test_old_devices_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for capability, expected in (((7, 5), False), ((8, 0), True), ((9, 0), True), ((12, 0), True)):
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda _, found=capability: found)
        assert page_attention.at_hand(torch.device("cuda", 0)) == expected


@pytest.mark.slow
def test_a_model_on_a_cpu_copies_and_imports_no_kernel(moshi_checkpoint: Path) -> None:
    """In a process of its own, for here it may have been imported. Triton itself is, by torch's compiler."""
    program = (
        "import sys; from rtc_server.models.kyutai.model import load;"
        "from rtc_server.models.kyutai.options import KyutaiOptions;"
        f"model = load(KyutaiOptions({str(moshi_checkpoint)!r}, 1, pages=1, threads=1));"
        "assert not model._open.pages.in_place; assert 'rtc_server.models.kyutai.page_kernel' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_there_is_one_graph_and_no_copy(moshi_checkpoint: Path) -> None:
    """Of rows as long as they are: Mimi's rings alone have an extent. On the device where nothing is computed."""
    checkpoint = open_checkpoint(str(moshi_checkpoint))
    found = []
    for in_place in (False, True):
        mimi, lm = checkpoint.get_mimi("cpu"), checkpoint.get_moshi("cpu", torch.float32)
        pages = pages_for(lm, 3, 12, in_place=in_place)
        assert isinstance(pages, Pages)
        filled = read_what_is_filled(mimi, lm, torch.float8_e4m3fn, pages)
        with no_compile():
            lm.streaming_forever(3)
        found.append((pages.working_bytes, pages.widened_bytes(torch.float32), filled.buckets_on_cuda))
    one_page = 2 * 32 * page_table.PAGE_FRAMES  # keys and values, in eight bits
    assert found == [(3 * one_page, 3 * 4 * one_page, [16]), (working_bytes(3, 2, 16, 1), 0, [16])]


def test_of_moshi_only_mimi_has_an_extent_then() -> None:
    """5 graphs become one, and what reading takes of memory a hundredth."""
    with torch.device("meta"):
        checkpoint = loaders.CheckpointInfo(None, None, None)  # type: ignore[arg-type]
        mimi, lm = checkpoint.get_mimi("meta"), checkpoint.get_moshi("meta", torch.bfloat16)
    found = []
    for in_place in (False, True):
        pages = pages_for(lm, 64, 64 * 12, in_place=in_place)
        assert pages is not None
        filled = read_what_is_filled(mimi, lm, None, pages)
        lm.streaming_forever(64)
        found.append((filled.buckets_on_cuda, pages.working_bytes))
        lm._stop_streaming()
    (all_lengths, copy), (one, parts) = found
    assert (all_lengths, one) == ([3000, 2048, 1024, 512, 256], [250])
    assert copy == 64 * 47 * 2**20
    assert parts == 64 * 32 * 4 * 130 * 4


# That it can be compiled


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], dict[str, str]]:
    """What has become of the kernel for each target: in one program, which takes seconds to begin."""
    need_triton()
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    targets = [str(part) for target in TARGETS for part in target]
    command = [sys.executable, str(COMPILER), *targets]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "enable" not in done.stderr.lower(), "triton wonders about an option"
    lines = [dict(part.split("=") for part in line.split()) for line in done.stdout.splitlines()]
    return dict(zip(TARGETS, lines, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "stored"), TARGETS)
@pytest.mark.skipif(DEVICE == "cuda", reason="it runs here, as it is compiled")
def test_it_is_compiled_for_devices_that_are_not_here(
    compiled: dict[tuple[int, str], dict[str, str]], capability: int, stored: str
) -> None:
    """At the shape of Moshi 7B: nothing is spilled, keys and values are read 16 bytes at a time, six programs and
    more share a multiprocessor (by triton 3.9 eight), and no thread waits for another in the loop."""
    found = compiled[capability, stored]
    assert (found["spilled"], found["waits_in_loop"]) == ("0", "0")
    assert found["wide_loads"] == {"float32": "32", "float8": "8"}.get(stored, "16")
    assert int(found["registers"]) <= 80, "fewer than 6 programs on a multiprocessor"

"""Attention's memory in pages makes the tokens that it makes in rings: through wraps, resets, random masks and moves of
rows; nothing of a conversation is left in a page that another gets; and when pages run out, only what is oldest is
forgotten."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.config import DEFAULT_MODEL
from rtc_server.engine.model import PagesUse, SharingModel
from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai import buckets, page_attention, page_table
from rtc_server.models.kyutai.attention import _Transformer
from rtc_server.models.kyutai.estimate import footprint
from rtc_server.models.kyutai.model import KyutaiModel, load
from rtc_server.models.kyutai.options import KvDtype, KyutaiOptions
from rtc_server.models.kyutai.page_table import NEVER
from rtc_server.models.kyutai.pages import Pages
from tests.models.test_moving_rows import move, spoken
from tests.support.kyutai_rows import RING_FRAMES, assert_same, noise, only, random_schedule, run
from tests.support.triton_here import DEVICE, need_triton

pytestmark = pytest.mark.slow

PAGE = 4
FULL = RING_FRAMES // PAGE
SLOTS = 3


@pytest.fixture(autouse=True)
def _short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_table, "PAGE_FRAMES", PAGE)


def options(
    checkpoint: Path, pages: int, slots: int = SLOTS, kv_dtype: KvDtype = "auto", cfg_coef: float = 1.0
) -> KyutaiOptions:
    return KyutaiOptions(
        str(checkpoint),
        slots,
        dtype="float32",
        temp=0.0,
        temp_text=0.0,
        threads=1,
        pages=pages,
        kv_dtype=kv_dtype,
        cfg_coef=cfg_coef,
    )


def pages_in(model: KyutaiModel) -> Pages:
    found = model._open.pages
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "cfg_coef", "kv_dtype"),
    [("moshi", 1.0, "auto"), ("moshi", 1.0, "float8"), ("stt", 1.0, "bfloat16"), ("hibiki", 3.0, "auto")],
)
def test_every_token_is_that_of_rings(
    request: pytest.FixtureRequest, kind: str, cfg_coef: float, kv_dtype: KvDtype
) -> None:
    checkpoint = request.getfixturevalue(f"{kind}_checkpoint")
    plain = load(options(checkpoint, 0, kv_dtype=kv_dtype, cfg_coef=cfg_coef))
    paged = load(options(checkpoint, SLOTS * FULL, kv_dtype=kv_dtype, cfg_coef=cfg_coef))
    before = [ring.cache.data_ptr() for ring in pages_in(paged).rings]
    assert before
    steps = 4 * RING_FRAMES
    expected, found = random_schedule(plain, steps, seed=1), random_schedule(paged, steps, seed=1)
    assert max(len(each.heard) for each in expected) > 2 * RING_FRAMES, "no ring wrapped"
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    assert [ring.cache.data_ptr() for ring in pages_in(paged).rings] == before, "no page moves in a step"


@pytest.mark.parametrize(
    ("kind", "cfg_coef", "kv_dtype", "steps"),
    [("moshi", 1.0, "auto", 48), ("hibiki", 3.0, "auto", 24), ("moshi", 1.0, "float8", 24)],
)
@pytest.mark.timeout(600)  # an interpreter of kernels
def test_every_token_is_that_of_a_copy_where_pages_are_read_in_place(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    cfg_coef: float,
    kv_dtype: KvDtype,
    steps: int,
) -> None:
    """The longest goes through a wrap, and has too few pages: both forget the same. Rows that take no part, of which
    nothing is read, are there where a step is always of the whole batch: with float8."""
    need_triton()
    if kv_dtype == "float8":
        monkeypatch.setattr(buckets, "sizes", lambda slots, **_: [slots])
    checkpoint = request.getfixturevalue(f"{kind}_checkpoint")
    monkeypatch.setattr(page_attention, "_PROGRAMS", 1)
    monkeypatch.setattr(page_attention, "_LEAST_SPLITS", 2)
    wanted = dataclasses.replace(
        options(checkpoint, FULL + 1, slots=2, kv_dtype=kv_dtype, cfg_coef=cfg_coef), device=DEVICE
    )
    monkeypatch.setattr(page_attention, "at_hand", lambda _: False)
    copied = load(wanted)
    monkeypatch.setattr(page_attention, "at_hand", lambda _: True)
    in_place = load(wanted)
    assert (pages_in(copied).in_place, pages_in(in_place).in_place) == (False, True)
    expected, found = random_schedule(copied, steps, seed=5), random_schedule(in_place, steps, seed=5)
    longest = max(len(each.heard) for each in expected)
    assert longest > (RING_FRAMES if steps > 24 else 2 * PAGE), "no ring wrapped, or no row had several pages"
    assert len(expected) > 2, "no row was used again"
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


@pytest.mark.timeout(600)  # an interpreter of kernels
def test_those_who_measure_read_pages_further_and_change_no_token(
    moshi_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the pages that rows do not have, from the device's own memory, as often as any."""
    need_triton()
    monkeypatch.setattr(page_attention, "at_hand", lambda _: True)
    models = [load(dataclasses.replace(options(moshi_checkpoint, FULL + 2, slots=2), device=DEVICE)) for _ in range(2)]
    models[1].read_at_least(1000)
    rng, everyone = np.random.default_rng(1), np.ones(2, np.bool_)
    for _ in range(PAGE + 2):
        pcm = noise(rng, 2)
        for model in models:
            model.step(pcm, everyone)
        assert np.array_equal(models[0].last_tokens, models[1].last_tokens)
    told = models[1]._open.exchange.host_places
    assert told[:, -1].tolist() == [RING_FRAMES, RING_FRAMES]
    own = pages_in(models[1]).table.pages
    assert np.array_equal(told[:, :FULL][own > 0], own[own > 0])
    assert set(told[:, :FULL][own == 0].tolist()) == {3, 4, 1, 2}
    models[1].read_at_least(0)
    models[1].step(pcm, everyone)
    assert not told[:, -1].any()
    assert not told[:, :FULL][own == 0].any()


def test_rows_of_pages_move_with_all_that_they_remember(moshi_checkpoint: Path) -> None:
    """Early, in the middle, and after rings have wrapped; there and back, into other pages."""
    frames = list(noise(np.random.default_rng(4), 2 * RING_FRAMES + 8))
    stayed = spoken([load(options(moshi_checkpoint, 0))], frames, {})
    one, other = (load(options(moshi_checkpoint, SLOTS * FULL)) for _ in range(2))
    assert one.info.row_format == other.info.row_format != load(options(moshi_checkpoint, 0)).info.row_format
    random_schedule(other, 6, 3)
    other.reset(np.ones(SLOTS, dtype=np.bool_))
    moves = {1: (1, 2), RING_FRAMES // 2: (0, 1), RING_FRAMES + 3: (1, 0), 2 * RING_FRAMES + 5: (0, 0)}
    assert_same(spoken([one, other], frames, moves), stayed)


def test_a_row_that_has_forgotten_moves_as_it_is(moshi_checkpoint: Path) -> None:
    """What it lacks, it lacks elsewhere as well: until its next page, for which there is room here."""
    frames = list(noise(np.random.default_rng(4), RING_FRAMES))
    few, many = (load(options(moshi_checkpoint, count, slots=SLOTS)) for count in (SLOTS, SLOTS * FULL))
    for frame in frames[: 1 - PAGE]:
        few.step(np.tile(frame, (SLOTS, 1)), only(SLOTS, 0))
    assert len(pages_in(few).table.of(0)) == SLOTS < FULL
    move(few, 0, many, 1)
    assert pages_in(many).table.since[1].tolist() == pages_in(few).table.since[0].tolist()
    for frame in frames[1 - PAGE :]:
        pcm = np.tile(frame, (SLOTS, 1))
        few.step(pcm, only(SLOTS, 0))
        many.step(pcm, only(SLOTS, 1))
        assert few.last_tokens[0].tolist() == many.last_tokens[1].tolist()


def test_steps_of_others_leave_a_row_that_comes_as_it_is(moshi_checkpoint: Path) -> None:
    """It takes no part in them, but writes somewhere in each: where it would write next."""
    frames = list(noise(np.random.default_rng(4), 2 * RING_FRAMES))
    old, new = (load(options(moshi_checkpoint, SLOTS * FULL)) for _ in range(2))
    for frame in frames[: PAGE + 2]:
        old.step(np.tile(frame, (SLOTS, 1)), only(SLOTS, 0))
    reader, writer = old.export_row(0), new.import_row(1)
    for offset in range(0, reader.size, 1_000):
        writer.write(reader.read(offset, 1_000))
        new.step(np.tile(frames[0], (SLOTS, 1)), only(SLOTS, 2))
    assert row_of(new, 1) == row_of(old, 0)
    for frame in frames[PAGE + 2 :]:
        pcm = np.tile(frame, (SLOTS, 1))
        old.step(pcm, only(SLOTS, 0))
        new.step(pcm, only(SLOTS, 1))
        assert old.last_tokens[0].tolist() == new.last_tokens[1].tolist()


def row_of(model: KyutaiModel, row: int) -> bytes:
    """What a row has in its pages, but for the place of its next frame."""
    held, *rings = pages_in(model).parts()
    *_, heard = held.copy(SLOTS, row).tolist()
    contents = [ring.copy(SLOTS, row).flatten(3, 4)[..., : int(heard), :] for ring in rings]
    return torch.stack(contents).numpy().tobytes()


def test_a_row_without_pages_left_remembers_what_is_newest(
    moshi_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly as one in rings that is shown the frames of the last two pages and no others."""
    plain, paged = (load(options(moshi_checkpoint, count, slots=1)) for count in (0, 2))
    masked, capacity = _Transformer._masked, RING_FRAMES

    def shorter(self: _Transformer, now: torch.Tensor) -> Any:
        step = masked(self, now)
        if self.pages is None and self._capacity == capacity and now.shape[1] == 1:
            last = int(now[0])
            position = last - (last - self._ring_index[: step.extent]) % capacity
            step._unseen = step._unseen | (position < last // PAGE * PAGE - PAGE)
        return step

    monkeypatch.setattr(_Transformer, "_masked", shorter)
    everyone = np.ones(1, dtype=np.bool_)
    said = []
    for model in (plain, paged):
        rng = np.random.default_rng(2)
        tokens = []
        for _ in range(3 * RING_FRAMES):
            model.step(noise(rng, 1), everyone)
            tokens.append(model.last_tokens[0].tolist())
        said.append(tokens)
    assert said[0] == said[1]
    assert len({tuple(tokens) for tokens in said[0]}) > 3, "it said the same all the time"
    monkeypatch.undo()
    monkeypatch.setattr(page_table, "PAGE_FRAMES", PAGE)
    whole = load(options(moshi_checkpoint, 0, slots=1))
    rng = np.random.default_rng(2)
    for tokens in said[0]:
        whole.step(noise(rng, 1), everyone)
        if whole.last_tokens[0].tolist() != tokens:
            return
    pytest.fail("it would have said the same with all that it had heard")


def test_a_short_row_loses_nothing_when_pages_run_out(moshi_checkpoint: Path) -> None:
    """The longest row does, and goes on."""
    roomy, tight = (load(options(moshi_checkpoint, count)) for count in (SLOTS * FULL, FULL + 1))
    rng = np.random.default_rng(5)
    for number in range(2 * RING_FRAMES):
        pcm, active = noise(rng, SLOTS), only(SLOTS, 0, *([1] if number >= 2 * RING_FRAMES - 5 else []))
        for model in (roomy, tight):
            model.step(pcm, active)
        assert roomy.last_tokens[1].tolist() == tight.last_tokens[1].tolist()
    assert [len(pages_in(tight).table.of(row)) for row in range(SLOTS)] == [FULL - 1, 2, 0]


def test_nothing_is_left_in_a_page_that_another_row_gets(moshi_checkpoint: Path) -> None:
    """Neither when a conversation ends, nor when it forgets; of what is free, all is blank."""
    model = load(options(moshi_checkpoint, SLOTS + 2))
    pages = pages_in(model)
    random_schedule(model, 3 * RING_FRAMES, seed=3)
    for row in range(SLOTS):
        model.reset(only(SLOTS, row))
        free = sorted({0, *range(1, SLOTS + 3)} - {page for other in range(SLOTS) for page in pages.table.of(other)})
        assert all(not ring.cache[:, :, free].any() for ring in pages.rings)
    assert pages.table.free == SLOTS + 2


def test_what_is_poisoned_reaches_no_other_row_and_no_next_one(moshi_checkpoint: Path) -> None:
    """Not even through the page that rows write into that take no part: they are many in one."""
    poison = np.full(FRAME_SAMPLES, np.nan, dtype=np.float32)
    rng = np.random.default_rng(11)
    first, second = ([noise(rng, SLOTS) for _ in range(count)] for count in (8, RING_FRAMES + 4))
    model, clean = (load(options(moshi_checkpoint, SLOTS + 2)) for _ in range(2))
    poisoned, expected = run(model, first, 1, poison), run(clean, first, 1, None)
    for row in (0, 2):
        assert_same(poisoned[row], expected[row], tolerance=0)
    for each in (model, clean):
        each.reset(only(SLOTS, 1))
    for after, clean_after in zip(run(model, second, 1, None), run(clean, second, 1, None), strict=True):
        assert_same(after, clean_after, tolerance=0)


def test_fewer_pages_than_slots_are_refused(moshi_checkpoint: Path) -> None:
    with pytest.raises(ModelLoadError, match="2 pages are too few for 3 slots"):
        load(options(moshi_checkpoint, SLOTS - 1))


def test_a_model_tells_what_its_conversations_have_of_them(moshi_checkpoint: Path) -> None:
    """Of a slot that is not used any more, all is free already. In rings there is nothing to tell."""
    model = load(options(moshi_checkpoint, FULL + 3))
    assert isinstance(model, SharingModel)
    assert model.pages_use(only(SLOTS)) == PagesUse(FULL + 3, FULL + 3, 1)
    for number in range(PAGE + 1):
        model.step(noise(np.random.default_rng(number), SLOTS), only(SLOTS, 0, 2))
    assert model.pages_use(only(SLOTS, 0, 2)) == PagesUse(FULL + 3, FULL - 1, 0)
    assert model.pages_use(only(SLOTS, 2)) == PagesUse(FULL + 3, FULL + 1, 0)
    model.reset(only(SLOTS, 0, 2))
    assert model.pages_use(only(SLOTS)) == PagesUse(FULL + 3, FULL + 3, 1)
    assert load(options(moshi_checkpoint, 0)).pages_use(only(SLOTS)) is None


@pytest.mark.parametrize("kv_dtype", ["auto", "float8"])
def test_what_pages_take_is_known_before_they_are_there(moshi_checkpoint: Path, kv_dtype: KvDtype) -> None:
    """A page is a page, whatever fills it; there are two more; and no more than can be filled."""
    held = [load(options(moshi_checkpoint, count, kv_dtype=kv_dtype)).memory().cache_bytes for count in (3, 4, 12, 999)]
    page = 2 * 2 * 32 * PAGE * (4 if kv_dtype == "auto" else 1)  # layers, keys and values, width
    assert [each - held[0] for each in held] == [0, page, 9 * page, 9 * page]
    found = footprint(options(moshi_checkpoint, 4, kv_dtype=kv_dtype))
    assert found.session_bytes == held[1] // SLOTS
    one_layer = page // 2 * FULL
    assert found.working_bytes == one_layer + (0 if kv_dtype == "auto" else one_layer * 4)


def test_moshi_with_a_minute_for_each_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 conversations of a minute are 12 pages each, of 32 MiB: 48 GiB in place of 188."""
    monkeypatch.setattr(page_table, "PAGE_FRAMES", 64)
    wanted = KyutaiOptions(DEFAULT_MODEL, slots=128, device="cuda", pages=128 * 12)
    paged, whole = footprint(wanted), footprint(dataclasses.replace(wanted, pages=0))
    saved = 128 * (whole.session_bytes - paged.session_bytes) / 2**30
    assert saved == pytest.approx(128 * 3000 / 2048 - (128 * 12 + 2) / 32, rel=0.001)


def test_in_place_nothing_is_read_of_rows_that_take_no_part() -> None:
    """Of a copy each sees something, for of nothing at all a softmax makes NaN."""
    for in_place in (True, False):
        pages = Pages(3, 8, 6, in_place=in_place)
        told, frames = np.zeros((3, pages.width), dtype=np.float32), np.zeros(3, dtype=np.int64)
        everyone = np.ones(3, np.bool_)
        pages.prepare(everyone, frames, told)
        pages.read_at_least(8)
        pages.prepare(np.array([True, False, True]), frames + 1, told)
        since = told[:, pages.pages_a_slot : -2]
        assert (since[[0, 2]] != NEVER).any(axis=1).all()
        assert (since[1] == NEVER).all() == in_place
        assert told[:, -1].tolist() == ([8, 0, 8] if in_place else [0, 0, 0])

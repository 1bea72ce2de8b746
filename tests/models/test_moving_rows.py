"""A row that goes on in another model makes what it would have made where it was: each token of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.model import MovableModel
from rtc_server.models.echo import EchoModel
from rtc_server.models.kyutai.model import KyutaiModel, load
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.models.tiny import write_tiny_checkpoint
from tests.conftest import need_commands
from tests.support.kyutai_rows import (
    PCM_TOLERANCE,
    RING_FRAMES,
    Conversation,
    assert_same,
    noise,
    only,
    random_schedule,
)
from tests.support.script import spoken as said_by_espeak

pytestmark = pytest.mark.slow

FRAMES = 2 * RING_FRAMES + 8
PIECE_BYTES = 1_000
MOST_BYTES = 16_000_000


def move(old: MovableModel, row: int, new: MovableModel, to: int, size: int = PIECE_BYTES) -> None:
    """Copy a row in pieces of this size."""
    reader, writer = old.export_row(row), new.import_row(to)
    offset = 0
    while offset < reader.size:
        data = reader.read(offset, size)
        offset += len(data)
        assert writer.write(data) is (offset == reader.size)


def spoken(
    models: list[KyutaiModel], frames: list[np.ndarray], moves: dict[int, tuple[int, int]], slots: int = 3
) -> Conversation:
    """What a conversation comes to whose row is moved before these frames: to a model of ``models``, by its number, and
    a row there. It begins in the first row of the first. Other rows speak as well."""
    conversation = Conversation()
    at, row = 0, 0
    others = np.random.default_rng(9)
    for index, frame in enumerate(frames):
        if index in moves:
            there, to = moves[index]
            move(models[at], row, models[there], to)
            models[at].reset(only(slots, row))
            at, row = there, to
        pcm = noise(others, slots)
        pcm[row] = frame
        active = only(slots, row) | (others.random(slots) < 0.5)
        outputs = models[at].step(pcm, active)
        conversation.add(frame, models[at].last_tokens[row], outputs[row])
    return conversation


def sampled(checkpoint: Path, device: str, seed: int) -> KyutaiModel:
    return load(KyutaiOptions(str(checkpoint), 3, device, "float32", temp=0.8, temp_text=0.7, seed=seed, threads=1))


def greedy(checkpoint: Path, device: str, seed: int) -> KyutaiModel:
    return load(KyutaiOptions(str(checkpoint), 3, device, "float32", temp=0.0, temp_text=0.0, seed=seed, threads=1))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("make", [greedy, sampled])
@pytest.mark.parametrize("kind", ["moshi", "stt", "hibiki"])
def test_a_moved_row_makes_the_same_tokens_through_ring_wraps(
    request: pytest.FixtureRequest, device: str, kind: str, make: Callable[[Path, str, int], KyutaiModel]
) -> None:
    """Early, when its model has not spoken yet, in the middle, and after every ring has wrapped; there and back."""
    checkpoint: Path = request.getfixturevalue(f"{kind}_checkpoint")
    frames = list(noise(np.random.default_rng(4), FRAMES))
    stayed = spoken([make(checkpoint, device, 1)], frames, {})
    one, other = make(checkpoint, device, 1), make(checkpoint, device, 2)
    random_schedule(other, 6, 3)
    other.reset(np.ones(3, dtype=np.bool_))
    moves = {1: (1, 2), RING_FRAMES // 2: (0, 1), RING_FRAMES + 3: (1, 0), 2 * RING_FRAMES + 5: (0, 0)}
    moved = spoken([one, other], frames, moves)
    assert_same(moved, stayed, PCM_TOLERANCE)
    assert len({tuple(tokens) for tokens in stayed.tokens}) > 3, "it said the same all the time"


@pytest.mark.timeout(600)
def test_pico_counts_on_elsewhere() -> None:
    need_commands("espeak-ng")
    pcm = said_by_espeak("count to ten")
    frames = list(np.zeros((90, FRAME_SAMPLES), dtype=np.float32))
    for index in range(len(pcm) // FRAME_SAMPLES):
        frames[index + 2] = pcm[index * FRAME_SAMPLES : (index + 1) * FRAME_SAMPLES].astype(np.float32)
    one, other = (load(KyutaiOptions("pico", 3, threads=1)) for _ in range(2))
    stayed = spoken([one], frames, {})
    one.reset(np.ones(3, dtype=np.bool_))
    moved = spoken([one, other], frames, {55: (1, 2)})
    assert_same(moved, stayed)
    assert "seven eight" in stayed.text, stayed.text
    assert one.export_row(0).size < MOST_BYTES


def test_what_a_row_samples_depends_on_no_other_row_and_not_on_how_many_there_are(moshi_checkpoint: Path) -> None:
    frames = list(noise(np.random.default_rng(4), FRAMES))
    conversations = []
    for slots in (1, 4):
        options = KyutaiOptions(str(moshi_checkpoint), slots, temp=0.8, temp_text=0.7, seed=5, threads=1)
        conversations.append(spoken([load(options)], frames, {}, slots))
    assert_same(conversations[0], conversations[1])


def test_two_rows_that_hear_the_same_do_not_sample_the_same(moshi_checkpoint: Path) -> None:
    model = sampled(moshi_checkpoint, "cpu", 1)
    said: list[list[list[int]]] = [[], []]
    for frame in noise(np.random.default_rng(4), RING_FRAMES):
        model.step(np.stack([frame] * 3), only(3, 0, 1))
        for row in (0, 1):
            said[row].append(model.last_tokens[row].tolist())
    assert said[0] != said[1]


def test_a_copy_is_of_the_moment_it_was_made(moshi_checkpoint: Path) -> None:
    """The row that was copied goes on: the copy hears the same later, and says the same."""
    one, other = (sampled(moshi_checkpoint, "cpu", seed) for seed in (1, 2))
    frames = list(noise(np.random.default_rng(4), FRAMES))
    heard = Conversation()
    for frame in frames[:RING_FRAMES]:
        one.step(frame[None].repeat(3, 0), only(3, 0))
    reader, writer = one.export_row(0), other.import_row(1)
    for frame in frames[RING_FRAMES:]:
        heard.add(frame, *_stepped(one, 0, frame))
    assert writer.write(reader.read(0, reader.size))
    again = Conversation()
    for frame in frames[RING_FRAMES:]:
        again.add(frame, *_stepped(other, 1, frame))
    assert_same(again, heard)


def _stepped(model: KyutaiModel, row: int, frame: np.ndarray):  # type: ignore[no-untyped-def]
    outputs = model.step(frame[None].repeat(3, 0), only(3, row))
    return model.last_tokens[row], outputs[row]


def test_a_format_is_that_of_the_weights_and_of_what_they_are_run_with(
    tmp_path: Path, moshi_checkpoint: Path, stt_checkpoint: Path
) -> None:
    other = write_tiny_checkpoint(tmp_path / "other", "moshi", seed=1)
    options = KyutaiOptions(str(moshi_checkpoint), 1, temp=0.5, threads=1)
    same = load(options).info.row_format
    assert same
    assert load(KyutaiOptions(str(moshi_checkpoint), 3, temp=0.5, threads=1)).info.row_format == same
    different = [
        KyutaiOptions(str(moshi_checkpoint), 1, temp=0.6, threads=1),
        KyutaiOptions(str(moshi_checkpoint), 1, temp=0.5, context=8, threads=1),
        KyutaiOptions(str(moshi_checkpoint), 1, temp=0.5, kv_dtype="float8", threads=1),
        KyutaiOptions(str(stt_checkpoint), 1, threads=1),
        KyutaiOptions(str(other), 1, temp=0.5, threads=1),
    ]
    formats = {load(each).info.row_format for each in different}
    assert len(formats) == len(different)
    assert same not in formats


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "float8"])
def test_a_row_with_narrow_caches_moves_as_well(moshi_checkpoint: Path, kv_dtype: str) -> None:
    def make(seed: int) -> KyutaiModel:
        return load(KyutaiOptions(str(moshi_checkpoint), 3, kv_dtype=kv_dtype, seed=seed, threads=1))  # type: ignore[arg-type]

    frames = list(noise(np.random.default_rng(4), FRAMES))
    stayed = spoken([make(1)], frames, {})
    assert_same(spoken([make(1), make(2)], frames, {RING_FRAMES + 3: (1, 2)}), stayed)


def test_what_is_no_row_is_refused(moshi_checkpoint: Path) -> None:
    one, other = (greedy(moshi_checkpoint, "cpu", 1) for _ in range(2))
    reader = one.export_row(0)
    state = reader.read(0, reader.size)
    with pytest.raises(ValueError, match="more than a row"):
        other.import_row(0).write(state + b"\0")
    with pytest.raises(ValueError, match="like that"):
        other.import_row(0).write(b"\xff" * reader.size)
    assert not other.import_row(0).write(state[:-1])
    assert reader.read(reader.size, 10) == b""


def test_an_echo_moves_without_a_state() -> None:
    one, other = EchoModel(2), EchoModel(3)
    assert isinstance(one, MovableModel)
    assert one.info.row_format == other.info.row_format != ""
    reader = one.export_row(0)
    assert other.import_row(2).write(reader.read(0, reader.size))

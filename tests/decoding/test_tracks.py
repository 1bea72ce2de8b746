"""Several tracks: all that are parts of one conversation are heard, one of those that say the same in other words."""

from __future__ import annotations

import numpy as np
import pytest

from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.decoding.tracks import TrackMix
from tests.support.signals import sine

SECOND = MODEL_RATE_HZ


def tone(seconds: float, hz: float = 440.0) -> FloatArray:
    return sine(round(seconds * SECOND), hz, SECOND, amplitude=0.25)


def quiet(seconds: float) -> FloatArray:
    return np.zeros(round(seconds * SECOND), np.float32)


def heard(versions: list[str], *rows: FloatArray, piece_s: float = 0.1) -> tuple[FloatArray, TrackMix]:
    """As a file brings them: side by side."""
    mix = TrackMix(versions)
    blocks: list[FloatArray] = []
    piece = round(piece_s * SECOND)
    for start in range(0, max(row.size for row in rows), piece):
        for number, row in enumerate(rows):
            blocks += mix.push(number, row[start : start + piece])
    blocks += mix.flush()
    return np.concatenate(blocks), mix


def test_one_track_is_itself() -> None:
    pcm, _ = heard([""], tone(2.5))
    np.testing.assert_array_equal(pcm, tone(2.5))


def test_a_silent_track_costs_the_other_nothing() -> None:
    pcm, _ = heard(["", ""], quiet(3), tone(3))
    np.testing.assert_allclose(pcm, tone(3), atol=1e-6)


def test_callers_on_tracks_of_their_own_are_both_heard() -> None:
    first, second = np.concatenate((tone(2), quiet(2))), np.concatenate((quiet(2), tone(2, 1000)))
    pcm, mix = heard(["", ""], first, second)
    assert pcm.size == 4 * SECOND
    np.testing.assert_allclose(pcm[:SECOND], tone(1), atol=1e-6)
    assert np.abs(pcm[3 * SECOND :]).max() == pytest.approx(0.125, rel=0.05)
    assert not mix.left_out


def test_tracks_that_cancel_each_other_are_heard() -> None:
    pcm, _ = heard(["", ""], tone(3), -tone(3))
    np.testing.assert_allclose(pcm, tone(3), atol=1e-6)


def test_one_language_is_heard_and_the_other_is_told_of() -> None:
    pcm, mix = heard(["eng", "deu"], tone(3), tone(3, 1000))
    np.testing.assert_allclose(pcm, tone(3), atol=1e-6)
    assert mix.left_out


def test_the_language_that_has_sound_is_heard() -> None:
    late = np.concatenate((quiet(15), tone(5)))
    pcm, mix = heard(["eng", "deu"], quiet(20), late)
    np.testing.assert_allclose(pcm, late, atol=1e-6)
    assert not mix.left_out


def test_the_first_language_may_begin_a_little_later() -> None:
    first = np.concatenate((quiet(5), tone(5)))
    pcm, _ = heard(["eng", "deu"], first, tone(10, 1000))
    np.testing.assert_allclose(pcm, first, atol=1e-6)


def test_a_track_that_comes_late_is_waited_for_within_bounds_and_keeps_its_time() -> None:
    """Its silence before is given in its place, and not given twice when it comes."""
    mix = TrackMix(["", ""])
    blocks: list[FloatArray] = []
    for _ in range(30):
        blocks += mix.push(0, quiet(1))
        assert max(queue.samples for queue in mix._queues) <= 12 * SECOND
    for pcm in (quiet(10), quiet(10), quiet(10), tone(1)):
        blocks += mix.push(1, pcm)
    blocks += mix.flush()
    pcm = np.concatenate(blocks)
    assert pcm.size == 31 * SECOND
    assert not pcm[: 30 * SECOND].any()
    np.testing.assert_allclose(pcm[30 * SECOND :], tone(1), atol=1e-6)

"""What one member hears: originals, translations over them in order, levels that move gently, and bounds."""

from __future__ import annotations

import numpy as np

from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray, level_dbfs
from rtc_server.rooms.mixer import DUCKED, FULL, UNDER, Mixer, faded

FRAMES_PER_S = 12.5


def tone(frames: float, hz: float = 440.0, level: float = 0.3) -> FloatArray:
    at = np.arange(round(frames * FRAME_SAMPLES)) / MODEL_RATE_HZ
    return (level * np.sin(2 * np.pi * hz * at)).astype(np.float32)


def levels(mixer: Mixer, gains: dict[str, float], frames: int, speaking: bool = True) -> list[float]:
    """The level of each frame against that of the speaker, while they speak."""
    loud = float(np.abs(tone(1)).max())
    measured = []
    for _ in range(frames):
        if speaking:
            mixer.hear("ana", tone(1))
        measured.append(float(np.abs(mixer.pull(gains)[0]).max()) / loud)
    return measured


def gains_of(mixer: Mixer, gain: float, frames: int) -> FloatArray:
    """By how much each sample of a speaker is heard, while they make a sound that is always as loud."""
    heard = []
    for _ in range(frames):
        mixer.hear("ana", np.full(FRAME_SAMPLES, 0.5, dtype=np.float32))
        heard.append(mixer.pull({"ana": gain})[0] / np.float32(0.5))
    return np.concatenate(heard)


def test_a_speaker_of_the_same_language_is_heard_as_they_are() -> None:
    mixer = Mixer()
    mixer.hear("ana", tone(1))
    heard, played = mixer.pull({"ana": FULL})
    assert np.array_equal(heard, tone(1))
    assert played == []


def test_nothing_said_is_silence() -> None:
    heard, _ = Mixer().pull({"ana": FULL})
    assert heard.size == FRAME_SAMPLES
    assert not heard.any()


def test_an_original_is_faint_fainter_under_its_translation_and_comes_back_slowly() -> None:
    """A level never jumps, from one sample to the next: an original that breaks through loudly frightens."""
    mixer = Mixer()
    assert np.allclose(gains_of(mixer, UNDER, 5), UNDER, atol=1e-5)
    assert mixer.play("1", "ana", np.zeros(10 * FRAME_SAMPLES, dtype=np.float32)) == []
    ducked = gains_of(mixer, UNDER, 9)
    assert np.allclose(ducked[4 * FRAME_SAMPLES :], DUCKED, atol=1e-5)
    after = gains_of(mixer, UNDER, 20)
    assert np.allclose(after[-FRAME_SAMPLES:], UNDER, atol=1e-5)
    steps = np.diff(np.concatenate((ducked, after))) * (FRAME_SAMPLES - 1)
    assert steps.max() <= FRAME_MS / 1000 + 0.001, "from nothing to full in a second"
    assert steps.min() >= -FRAME_MS / 300 - 0.001, "and in a third of it down"
    between = (after > DUCKED + 0.01) & (after < UNDER - 0.01)
    assert between.sum() > FRAME_SAMPLES


def test_an_original_is_fainter_under_a_voice_that_translates_while_it_speaks() -> None:
    """And not under that voice's silence, nor under that of another speaker."""
    mixer = Mixer()
    levels(mixer, {"ana": UNDER}, 5)
    mixer.interpret("ana", np.zeros(FRAME_SAMPLES, dtype=np.float32))
    assert np.allclose(levels(mixer, {"ana": UNDER}, 3), UNDER, atol=0.01)
    mixer.interpret("bob", tone(1, level=0.01))
    mixer.pull({"ana": UNDER})
    assert np.allclose(levels(mixer, {"ana": UNDER}, 3), UNDER, atol=0.01)
    mixer.interpret("ana", tone(1, level=0.01))
    mixer.pull({"ana": UNDER})
    assert np.allclose(levels(mixer, {"ana": UNDER}, 5)[-1], DUCKED, atol=0.01)
    assert np.allclose(levels(mixer, {"ana": UNDER}, 20)[-1], UNDER, atol=0.01)


def test_a_voice_that_translates_is_heard_as_it_is_for_each_speaker_and_bounded() -> None:
    mixer = Mixer()
    for _ in range(20):
        mixer.interpret("ana", tone(1))
    heard = [float(np.abs(mixer.pull({})[0]).max()) for _ in range(8)]
    assert np.allclose(heard, [0.3] * 6 + [0.0] * 2, atol=0.01)
    mixer.interpret("ana", tone(1))
    mixer.end_interpreting("ana")
    assert not mixer.pull({})[0].any()
    mixer.interpret("ana", tone(1))
    assert mixer.clear() == []
    assert not mixer.pull({})[0].any()


def test_full_voice_comes_up_within_a_second_and_goes_down_in_a_third() -> None:
    mixer = Mixer()
    levels(mixer, {"ana": 0.0}, 2)
    up = levels(mixer, {"ana": FULL}, 14)
    assert up[3] < 0.5
    assert up[-1] > 0.99
    down = levels(mixer, {"ana": 0.0}, 6)
    assert down[0] > 0.5
    assert down[-1] == 0.0


def test_translations_are_played_one_after_the_other_and_said_so() -> None:
    mixer = Mixer()
    mixer.play("1", "ana", tone(1.5))
    mixer.play("2", "bob", tone(1, hz=880))
    heard, told = [], []
    for _ in range(4):
        pcm, played = mixer.pull({})
        heard.append(pcm)
        told += played
    assert told == [("1", "started"), ("1", "ended"), ("2", "started"), ("2", "ended")]
    expected = np.concatenate((tone(1.5), tone(1, hz=880)))
    assert np.allclose(np.concatenate(heard)[: expected.size], expected, atol=1e-6)


def test_a_listener_who_falls_behind_skips_the_oldest_that_wait() -> None:
    mixer = Mixer()
    mixer.play("0", "ana", tone(50))
    mixer.pull({})
    skipped = [each for number in range(1, 6) for each in mixer.play(str(number), "ana", tone(25))]
    assert skipped == [("1", "skipped"), ("2", "skipped")]
    assert mixer.behind_s < 12


def test_one_that_is_too_long_is_heard_all_the_same() -> None:
    mixer = Mixer()
    assert mixer.play("1", "ana", tone(400)) == []
    assert level_dbfs(mixer.pull({})[0]) > -20


def test_a_burst_of_a_speaker_does_not_make_them_late() -> None:
    mixer = Mixer()
    for number in range(20):
        mixer.hear("ana", np.full(FRAME_SAMPLES, number / 100, dtype=np.float32))
    heard = [float(mixer.pull({"ana": FULL})[0][0]) for _ in range(5)]
    assert np.allclose(heard, [0.17, 0.18, 0.19, 0.0, 0.0])


def test_ten_voices_at_once_stay_within_bounds_and_one_is_not_changed() -> None:
    mixer = Mixer()
    for number in range(10):
        mixer.hear(str(number), tone(1, hz=200 + 40 * number, level=0.6))
    heard, _ = mixer.pull({str(number): FULL for number in range(10)})
    assert np.abs(heard).max() <= 1.0
    assert np.isfinite(heard).all()


def test_one_who_has_left_is_not_heard() -> None:
    mixer = Mixer()
    mixer.hear("ana", tone(1))
    mixer.forget("ana")
    assert not mixer.pull({"ana": FULL})[0].any()


def test_what_is_cleared_is_told() -> None:
    mixer = Mixer()
    mixer.play("1", "ana", tone(5))
    mixer.play("2", "ana", tone(5))
    mixer.pull({})
    assert mixer.clear() == [("1", "ended"), ("2", "skipped")]
    assert mixer.behind_s == 0


def test_sound_begins_and_ends_without_a_click() -> None:
    made = faded(np.full(4800, 0.5, dtype=np.float32))
    assert made[0] == made[-1] == 0.0
    assert np.allclose(made[200:-200], 0.5)

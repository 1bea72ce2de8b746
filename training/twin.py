"""What espeak-ng would have said in a person's stead: the same words and phonemes at the same times.

Owns the anchors in time between the two, and the stretching of sound without a change of pitch. It is from such twins
that an encoder learns which codes a person's speech should have.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final

import numpy as np

from lab.speech import espeak, phonemes
from lab.speech.spoken import SpeechError, Spoken, Voice
from rtc_server.audio import MODEL_RATE_HZ, FloatArray

_VOICE: Final = "en-us+m3"
_SLOWEST, _FASTEST = 0.4, 3.0
"""How much faster or slower a stretch of sound may become between two phonemes."""
_HOP: Final = MODEL_RATE_HZ // 100
_WINDOW: Final = 2 * _HOP
_SEARCH: Final = MODEL_RATE_HZ // 160
"""How far a piece may be moved to join the one before it: half a period of a low voice."""


def twin(spoken: Spoken, text: str, pitch: int = 50) -> FloatArray:
    """``text`` by espeak-ng, as long as ``spoken`` and in step with it. Raises :class:`SpeechError` where the two do
    not have the same words."""
    other = _spoken(text, spoken.duration_s, pitch)
    if [word.lower() for _, word in other.words] != [word.lower() for _, word in spoken.words]:
        raise SpeechError(f"espeak-ng says other words than {text!r}.")
    theirs, ours = zip(*_anchors(other, spoken), strict=True)
    return stretched(other.pcm, np.array(theirs), np.array(ours), len(spoken.pcm))


def _spoken(text: str, duration_s: float, pitch: int) -> Spoken:
    """Roughly in that time."""
    voice = Voice(_VOICE, pitch=pitch)
    spoken = espeak.speak(text, voice)
    words_per_minute = round(min(260.0, max(90.0, voice.words_per_minute * spoken.duration_s / duration_s)))
    return espeak.speak(text, Voice(_VOICE, words_per_minute, pitch=pitch))


def _anchors(other: Spoken, spoken: Spoken) -> list[tuple[float, float]]:
    """Seconds in ``other`` and in ``spoken`` at which the same begins: words, and the phonemes that they share."""
    anchors = [(0.0, 0.0)]
    bounds = [_bounds(one) for one in (other, spoken)]
    for (theirs, theirs_end), (ours, ours_end) in zip(*bounds, strict=True):
        within = [(theirs, ours), *_shared(_phones(other, theirs, theirs_end), _phones(spoken, ours, ours_end))]
        for anchor in within:
            if _goes_on(anchors[-1], anchor):
                anchors.append(anchor)
    end = (other.duration_s, spoken.duration_s)
    while len(anchors) > 1 and not _goes_on(anchors[-1], end):
        anchors.pop()
    return [*anchors, end]


def _goes_on(last: tuple[float, float], following: tuple[float, float]) -> bool:
    theirs, ours = following[0] - last[0], following[1] - last[1]
    return theirs > 0 and ours > 0 and _SLOWEST <= theirs / ours <= _FASTEST


def _bounds(spoken: Spoken) -> list[tuple[float, float]]:
    begins = [at for at, _ in spoken.words]
    return list(zip(begins, [*begins[1:], spoken.duration_s], strict=True))


def _phones(spoken: Spoken, begins_s: float, ends_s: float) -> list[tuple[float, str]]:
    return [
        (at, name)
        for at, name in spoken.phonemes
        if begins_s - 0.005 <= at < ends_s - 0.005 and name != phonemes.SILENCE
    ]


def _shared(theirs: Sequence[tuple[float, str]], ours: Sequence[tuple[float, str]]) -> list[tuple[float, float]]:
    matcher = SequenceMatcher(None, [name for _, name in theirs], [name for _, name in ours], autojunk=False)
    return [
        (theirs[block.a + place][0], ours[block.b + place][0])
        for block in matcher.get_matching_blocks()
        for place in range(block.size)
    ]


def stretched(
    pcm: FloatArray,
    theirs: np.ndarray[tuple[int], np.dtype[np.float64]],
    ours: np.ndarray[tuple[int], np.dtype[np.float64]],
    count: int,
) -> FloatArray:
    """``count`` samples in which what ``pcm`` has at ``theirs`` seconds comes at ``ours``, at its pitch.

    Pieces that overlap by half, each moved a little to join the one before it (WSOLA, Verhelst and Roelands, 1993).
    """
    padded = np.pad(pcm, (_SEARCH + _WINDOW, _SEARCH + 2 * _WINDOW))
    window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    frames = count // _HOP + 2
    at_s = (np.arange(frames) - 1) * _HOP / MODEL_RATE_HZ
    wanted = np.round(np.interp(at_s, ours, theirs) * MODEL_RATE_HZ).astype(int)
    made = np.zeros((frames + 2) * _HOP, dtype=np.float32)
    follows = -1
    for frame, first in enumerate(wanted + _SEARCH + _WINDOW):
        if follows >= 0:
            goes_on = padded[follows : follows + _WINDOW]
            around = padded[first - _SEARCH : first + _SEARCH + _WINDOW]
            first += int(np.argmax(np.correlate(around, goes_on, "valid"))) - _SEARCH  # noqa: PLW2901
        piece = padded[first : first + _WINDOW]
        made[frame * _HOP : frame * _HOP + len(piece)] += piece * window[: len(piece)]
        follows = min(first + _HOP, len(padded) - _WINDOW)
    return made[_HOP : _HOP + count]

"""Whose voices the bundled model hears in training, and whose it is examined with.

Owns the split, by name, and who speaks which language how. Knows no phrases.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Literal

from lab.speech import espeak, people
from lab.speech.spoken import SpeechError, Spoken, Voice, guessed, trimmed

Language = Literal["en", "pt"]
_ACCENTS: Final[dict[Language, tuple[str, ...]]] = {
    "en": ("en-us", "en-us", "en-us", "en-gb-x-rp", "en-gb-x-rp", "en-029", "en-gb-scotland", "en-us-nyc"),
    "pt": ("pt-br", "pt-br", "pt-br", "pt"),
}
_TRAINED: Final = (
    "Alex Alicia Andy Annie Denis Diogo Gene Hugo Jacky Lee Mario Michael adam anika announcer aunty belinda "
    "boris caleb david ed edward f1 f2 f3 f4 grandma gustave iven john kaukovalta klatt klatt2 linda m1 m2 m3 m4 m5 "
    "marcelo max michel norbert pablo paul quincy rob robert sandro steph steph2 travis victor"
).split()
HELD_OUT: Final = (
    "en-us+f5 en-us+m6 en-us+m7 en-us+m8 en-us+Mike en-us+miguel en-us+zac en-us+shelby en-us+benjamin en-us+Henrique "
    "en-gb-x-rp+f5 en-gb-x-rp+m7 en-gb-x-rp+Marco en-us+klatt3 en-us+grandpa en-us+steph3"
).split()
"""Voices of espeak-ng that no part of the training has heard, for the examination."""
HELD_OUT_PORTUGUESE: Final = [f"pt-br+{name.partition('+')[2]}" for name in HELD_OUT if name.startswith("en-us+")]
"""The same ones, speaking Portuguese."""

MIXED: Final = "kokoro:mixed"
"""Another speaker for each phrase, somewhere between four or a little beyond."""
_MIXED_OF: Final = ("jm_kumo", "jf_alpha", "jf_gongitsune", "jf_tebukuro")
_BEYOND: Final = (1.0, 1.4)
"""Times as far from the middle of the four as a mixture of them is."""
PEOPLE_TRAINED: Final = (
    "flite:rms",
    "flite:kal16",
    "festival:kal",
    "hibari:heart",
    "kokoro:jm_kumo",
    "kokoro:jf_alpha",
    "kokoro:jf_gongitsune",
    "kokoro:jf_tebukuro",
    "kokoro:jm_kumo+jf_nezumi",
    "kokoro:jm_kumo+jf_alpha",
    MIXED,
)
"""Voices made from people's, to train with."""
PEOPLE_DEVELOPED: Final = ("festival:kdl", "kokoro:jf_nezumi")
"""To choose by: which of two trainings is the better."""
PEOPLE_RESERVED: Final = ("piper:joe", "flite:awb", "flite:slt", "festival:us-slt-hts")
"""For the examination: nothing is trained with them, and nothing chosen by them."""

ESPEAK: Final = "espeak-ng"
RESERVED: Final = (ESPEAK, *(name.partition(":")[2] for name in PEOPLE_RESERVED))
"""Who examines: all of espeak-ng's voices that are held out are one."""
DEVELOPED: Final = tuple(name.partition(":")[2] for name in PEOPLE_DEVELOPED)

_NAMES: Final = {name.partition(":")[2]: name for name in (*PEOPLE_RESERVED, *PEOPLE_DEVELOPED)}


def trained(random_: random.Random, language: Language = "en") -> Voice:
    """A voice of espeak-ng to train with."""
    return _varied(f"{random_.choice(_ACCENTS[language])}+{random_.choice(_TRAINED)}", random_)


def held_out(random_: random.Random, examiner: str = ESPEAK, language: Language = "en") -> Voice:
    """A voice of ``examiner``, one of :data:`RESERVED` or :data:`DEVELOPED`, to examine with. Portuguese is spoken by
    espeak-ng alone."""
    assert language == "en" or examiner == ESPEAK
    names = HELD_OUT if language == "en" else HELD_OUT_PORTUGUESE
    return _varied(random_.choice(names) if examiner == ESPEAK else _NAMES[examiner], random_)


def speaker(name: str, random_: random.Random) -> str:
    """Who speaks a phrase for ``name``, one of :data:`PEOPLE_TRAINED`: a voice of :mod:`lab.speech.people`."""
    if name != MIXED:
        return name
    drawn = [random_.expovariate(1.0) ** 2 for _ in _MIXED_OF]  # mostly near one of them
    middle, beyond = 1 / len(drawn), random_.uniform(*_BEYOND)
    weights = [middle + beyond * (one / sum(drawn) - middle) for one in drawn]
    mixed = "+".join(f"{weight:.2f}*{one}" for weight, one in zip(weights, _MIXED_OF, strict=True))
    return f"{MIXED.partition(':')[0]}:{mixed}"


def examiner_of(name: str) -> str:
    """Who the voice ``name`` belongs to."""
    return name.partition(":")[2] or ESPEAK


def missing(examiner: str) -> str:
    """What has to be installed before ``examiner`` can speak; empty if nothing has."""
    return "" if examiner == ESPEAK else people.missing(_NAMES[examiner])


def sounds(texts: Sequence[str], voice: Voice) -> list[Spoken]:
    """``texts`` in ``voice``; of people's voices without the times of words and phonemes."""
    if people.is_one(voice.name):
        return [trimmed(pcm) for pcm in people.speak(texts, voice.name, voice.pace)]
    return [espeak.speak(text, voice) for text in texts]


def spoken(texts: Sequence[str], voice: Voice) -> list[Spoken]:
    """``texts`` in ``voice``, with the times of words and phonemes. Raises :class:`lab.speech.spoken.SpeechError`."""
    if not people.is_one(voice.name):
        return [espeak.speak(text, voice) for text in texts]
    from training.alignment import aligned  # noqa: PLC0415 - an optional package

    return [aligned(one.pcm, text) for one, text in zip(sounds(texts, voice), texts, strict=True)]


def roughly_spoken(texts: Sequence[str], voice: Voice) -> list[Spoken]:
    """As :func:`spoken`; where an alignment fails, the times of the words are guessed."""
    made = []
    for text in texts:
        try:
            made += spoken([text], voice)
        except SpeechError:
            made += [guessed(one, text) for one in sounds([text], voice)]
    return made


def _varied(name: str, random_: random.Random) -> Voice:
    """Brisk or slow, high or low, lively or flat, as people are."""
    return Voice(name, random_.randint(135, 195), random_.randint(30, 70), random_.randint(30, 70))

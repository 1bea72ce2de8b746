"""Whose voices the bundled model hears in training, whose it is examined with, and which is its own.

Owns the split. Knows no phrases.
"""

from __future__ import annotations

import random
from typing import Final

from training.espeak import Voice

OWN: Final = Voice("en-us+f2", words_per_minute=160, pitch=55, pitch_range=45)
"""The one voice that the model speaks with."""

_ACCENTS: Final = ("en-us", "en-us", "en-us", "en-gb-x-rp", "en-gb-x-rp", "en-029", "en-gb-scotland", "en-us-nyc")
_TRAINED: Final = (
    "Alex Alicia Andy Annie Denis Diogo Gene Hugo Jacky Lee Mario Michael adam anika announcer aunty belinda "
    "boris caleb david ed edward f1 f2 f3 f4 grandma gustave iven john kaukovalta klatt klatt2 linda m1 m2 m3 m4 m5 "
    "marcelo max michel norbert pablo paul quincy rob robert sandro steph steph2 travis victor"
).split()
HELD_OUT: Final = (
    "en-us+f5 en-us+m6 en-us+m7 en-us+m8 en-us+Mike en-us+miguel en-us+zac en-us+shelby en-us+benjamin en-us+Henrique "
    "en-gb-x-rp+f5 en-gb-x-rp+m7 en-gb-x-rp+Marco en-us+klatt3 en-us+grandpa en-us+steph3"
).split()
"""Voices that no part of the training has heard, for the evaluation."""


def trained(random_: random.Random) -> Voice:
    """A voice to train with."""
    return _varied(f"{random_.choice(_ACCENTS)}+{random_.choice(_TRAINED)}", random_)


def held_out(random_: random.Random) -> Voice:
    """A voice to examine with."""
    return _varied(random_.choice(HELD_OUT), random_)


def _varied(name: str, random_: random.Random) -> Voice:
    """Brisk or slow, high or low, lively or flat, as people are."""
    return Voice(name, random_.randint(135, 195), random_.randint(30, 70), random_.randint(30, 70))

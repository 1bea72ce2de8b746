"""One set of phonemes for all synthesizers: ARPABET, without stress.

Owns their numbers and what espeak-ng calls them. Knows no sound.
"""

from __future__ import annotations

from typing import Final

NAMES: Final = (
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
).split()
SILENCE: Final = "_"
NUMBERS: Final = {SILENCE: 0} | {name: number for number, name in enumerate(NAMES, 1)}
COUNT: Final = len(NUMBERS)

_ESPEAK: Final = {
    name: arpabet
    for arpabet, names in {
        "AA": "0 0# A: A@ A#",
        "AE": "a aa a2",
        "AH": "@ @2 @- @5 V V@ a#",
        "AO": "O O: O2 O@ o@ o:",
        "AW": "aU aU@",
        "AY": "aI aI2 aI3 aI@",
        "B": "b",
        "CH": "tS",
        "D": "d d# d2",
        "DH": "D",
        "EH": "E E2 e@ e",
        "ER": "3 3: VR @r",
        "EY": "eI",
        "F": "f",
        "G": "g",
        "HH": "h",
        "IH": "I I2 I# IR i@ i@3",
        "IY": "i i: i2",
        "JH": "dZ",
        "K": "k x",
        "L": "l @L l#",
        "M": "m m#",
        "N": "n n-",
        "NG": "N",
        "OW": "oU oU# o",
        "OY": "OI",
        "P": "p",
        "R": "r r- r/",
        "S": "s s;",
        "SH": "S S;",
        "T": "t t# t[ t2 ?",
        "TH": "T",
        "UH": "U U@",
        "UW": "u u: w#u",
        "V": "v",
        "W": "w w#",
        "Y": "j",
        "Z": "z z# z2",
        "ZH": "Z",
    }.items()
    for name in names.split()
}


def of_espeak(name: str) -> str:
    """ARPABET's name of espeak-ng's ``name``; what has none, such as a pause, is silence."""
    return _ESPEAK.get(name, SILENCE)

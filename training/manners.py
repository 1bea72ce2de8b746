"""How people say what they say: casually, hesitating, and with words that the model does not know.

Owns the manners and the unknown words, some of which are held out. Knows no sound.
"""

from __future__ import annotations

import random
import re
from functools import cache
from typing import Final

from lab.pico import phrases

FILLERS: Final = ("um", "uh", "er")
"""Nothing that is written down."""
CASUAL: Final = 0.25
"""Of the questions, the share that training asks casually."""
_UNKNOWN_SHARE: Final = 0.3
_GARBLED_SHARE: Final = 0.25
_SAYS_LITTLE: Final = frozenset(
    "a am an are at be can did do does for have hey how i in is it me my now of okay on or please so tell that the "
    "then this to was well what when will with would you your".split()
)
"""Without one of these a question can still be understood."""
_UNKNOWN: Final = (
    "airport alarm answer artist autumn bakery balloon battle beauty bicycle blanket border bread bridge broken "
    "bubble business butter button cabin candle castle chapter charity chicken church circus climate coffee "
    "college concert contract copper corner courage cousin credit crystal culture custom danger daughter debate "
    "decade decision degree delay dentist desert diamond dinner disease distance doubt drawer drama economy "
    "editor effort energy evidence exchange expert factory famous festival fiction figure finger forest formula "
    "fortune freedom friend future gallery gentle global govern growth habit harvest health history holiday "
    "hospital humour hunger husband image income injury insect invite jungle justice kidney kingdom knowledge "
    "labour language laughter leather legend library liquid machine magic manage marble marriage measure medicine "
    "memory message metal minister mirror mistake moment museum mystery nature network notice number object ocean "
    "office opinion orchard oxygen package palace panic parade parent partner passage patient pattern payment "
    "peasant people perfume permit planet plastic poetry police policy pollen portrait power prayer present "
    "prison problem profit promise public purpose quality quarter question railway random reason record regret "
    "religion rescue reward ribbon rocket rumour safety salad sample scandal science season secret senate shadow "
    "signal silence skeleton smooth society soldier spirit stomach storm strategy stream student subject sunset "
    "support surface symbol system talent target teacher temple theory thunder tobacco tomato tradition traffic "
    "travel treasure trouble tunnel uncle union valley value vehicle victim village violin virtue vision volume "
    "voyage weapon weather wedding wisdom witness wonder worker yesterday "
).split()


def casually(text: str, random_: random.Random) -> str:
    """``text`` as people say it: shorter, with a word before or after it, hesitating, or with a word twice."""
    if random_.random() < 0.5:
        for long, short in phrases.SHORT.items():
            text = re.sub(rf"\b{long}\b", short, text)
    if random_.random() < 0.3:
        text = f"{random_.choice(phrases.BEFORE)} {text}"
    if random_.random() < 0.2:
        text = f"{text} {random_.choice(phrases.AFTER)}"
    words = text.split()
    if random_.random() < 0.4:
        words.insert(random_.randrange(len(words)), random_.choice(FILLERS))
    if random_.random() < 0.2:
        place = random_.randrange(len(words))
        words.insert(place, words[place])
    return " ".join(words)


@cache
def unknown() -> tuple[str, ...]:
    """Words that are in no question and no answer, and that a model which transcribes shall leave out."""
    return tuple(sorted({*_UNKNOWN} - {*phrases.vocabulary()}))


def strangely(random_: random.Random) -> str:
    """Something that the model does not know, to train with; now and then with a word that it does not know."""
    if random_.random() < _GARBLED_SHARE:
        return garbled(random_.choice(random_.choice(phrases.questions()).trained()), random_)
    text = phrases.strange(random_, held_out=False)
    return with_unknown(text, random_, held_out=False) if random_.random() < _UNKNOWN_SHARE else text


def word(random_: random.Random) -> str:
    """A word alone: every other time a number or a day, else any that a person may say."""
    return random_.choice((*phrases.NUMBERS, *phrases.DAYS) if random_.random() < 0.5 else _vocabulary())


@cache
def _vocabulary() -> tuple[str, ...]:
    return tuple(phrases.vocabulary())


def garbled(question: str, random_: random.Random) -> str:
    """``question`` with an unknown word for one that it cannot be understood without."""
    words = question.split()
    telling = [place for place, word in enumerate(words) if word.lower() not in _SAYS_LITTLE] or range(len(words))
    others = [one for one in unknown() if not phrases.is_held_out(one)]
    words[random_.choice(telling)] = random_.choice(others)
    return " ".join(words)


def with_unknown(text: str, random_: random.Random, *, held_out: bool) -> str:
    """``text`` with one of its words replaced by one that the model does not know."""
    words = text.split()
    others = [one for one in unknown() if phrases.is_held_out(one) == held_out]
    words[random_.randrange(len(words))] = random_.choice(others)
    return " ".join(words)

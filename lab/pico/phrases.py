"""What can be said to the bundled model and what it answers.

Owns the questions, their wordings, and which wordings are held out of training. Knows no sound.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

NUMBERS: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
).split()
DAYS: Final = "monday tuesday wednesday thursday friday saturday sunday".split()
_OPPOSITES: Final = (
    "hot cold, big small, up down, left right, black white, day night, fast slow, old new, open closed, high low, "
    "happy sad, wet dry, good bad, rich poor, early late, hard soft, long short, full empty, strong weak, light dark"
)
_COLOURS: Final = (
    "the sky blue, the sea blue, grass green, a frog green, snow white, milk white, coal black, the night black, "
    "the sun yellow, a banana yellow, blood red, a strawberry red, an orange orange, a carrot orange, "
    "chocolate brown, an elephant grey"
)
_FACTS: Final = (
    "is fire hot yes, is ice cold yes, is ice hot no, is fire cold no, can birds fly yes, can pigs fly no, "
    "can fish swim yes, can fish talk no, can dogs bark yes, do cats bark no, is snow white yes, is snow black no, "
    "is the sun hot yes, is sugar sweet yes, is a lemon sweet no, is the sea wet yes, is a desert wet no, "
    "do cows give milk yes, do trees grow yes, do stones grow no, is an elephant big yes, is a mouse big no, "
    "is water wet yes, can you walk no, can you see me no, can you hear me yes, are you a person no, "
    "are you a machine yes, is a feather heavy no, do babies cry yes"
)
REPEATABLE: Final = (
    "apple banana river window garden mountain table music rabbit yellow monkey paper kitchen doctor summer winter "
    "tiger potato hammer island cookie pencil bottle camera dragon engine flower guitar honey jacket"
).split()
NOT_UNDERSTOOD: Final = "sorry, I did not understand that"
NOTHING_TO_GO_ON_WITH: Final = "I was not counting"

Kind = Literal["say", "count", "stop", "go on"]


@dataclass(frozen=True, slots=True)
class Reply:
    """``parts``: what is said, each part spoken in one breath and from the beginning of a frame on. ``count_to``:
    of a count, else 0."""

    kind: Kind
    parts: tuple[str, ...] = ()
    count_to: int = 0

    @property
    def text(self) -> str:
        return " ".join(self.parts)


@dataclass(frozen=True, slots=True)
class Question:
    """``topic``: for figures by topic. ``wordings``: at least two, all of which ask for ``reply``."""

    topic: str
    wordings: tuple[str, ...]
    reply: Reply

    def trained(self) -> tuple[str, ...]:
        """The wordings that training may use. The first, which is how most people say it, is always among them."""
        return tuple(one for one in self.wordings if one == self.wordings[0] or not is_held_out(one))

    def held_out(self) -> tuple[str, ...]:
        """The wordings that training never uses; may be empty for a question that is asked in few ways."""
        trained = self.trained()
        return tuple(wording for wording in self.wordings if wording not in trained)


_TALK: Final[tuple[tuple[str, str, str], ...]] = (
    ("greeting", "hello, hello there, hi there, hi, hey you, hello computer", "hello, nice to talk to you"),
    ("greeting", "good morning, good morning to you, a very good morning", "good morning to you"),
    ("greeting", "good evening, good evening to you, a very good evening", "good evening to you"),
    ("greeting", "good night, sleep well, good night and sleep well", "good night, sleep well"),
    ("greeting", "goodbye, bye bye, see you later, see you tomorrow, goodbye for now", "goodbye, see you soon"),
    ("greeting", "how are you, how are you today, how do you do, how are you doing", "I am fine, thank you"),
    ("greeting", "thank you, thanks a lot, thank you very much, many thanks", "you are welcome"),
    ("self", "what is your name, who are you, tell me your name, what are you called", "my name is Pico"),
    (
        "self",
        "what are you, are you a robot, what kind of thing are you, what sort of machine are you",
        "I am a very small speech model",
    ),
    (
        "self",
        "what can you do, what do you know, tell me what you can do, what are you able to do",
        "I can count, add, and answer simple questions",
    ),
    (
        "help",
        "help, help me, can you help me, I need help, I need some help",
        "say count to ten or ask me what is two plus three",
    ),
    (
        "help",
        "what can I say, what should I say, what can I ask you, what shall I say",
        "ask me for the opposite of hot",
    ),
    ("self", "who made you, who built you, who trained you, who created you", "a computer taught me to speak"),
    ("self", "how old are you, what is your age, when were you born, tell me your age", "I am very young"),
    ("self", "where are you, where do you live, where are you now, where is your home", "I live in this computer"),
    ("self", "do you like music, are you fond of music, do you enjoy music", "yes, I like music"),
    ("self", "sing a song, sing me a song, can you sing, can you sing a song", "no, I can not sing"),
    ("self", "tell me a joke, do you know a joke, say something funny, make me laugh", "my jokes are too small"),
    ("self", "what time is it, what is the time, do you know the time, tell me the time", "I have no clock"),
    (
        "self",
        "how is the weather, what is the weather like, is it raining, will it rain today",
        "I can not see outside",
    ),
    ("self", "do you speak french, can you speak french, do you speak german", "no, only English"),
    ("self", "are you real, are you alive, are you human, are you awake", "I am only a model"),
    (
        "facts",
        "how many days are in a week, how many days does a week have, how many days are there in a week",
        "seven days",
    ),
    (
        "facts",
        "how many months are in a year, how many months does a year have, how many months are there in a year",
        "twelve months",
    ),
    ("facts", "how many legs does a dog have, how many legs has a dog, how many legs are on a dog", "four legs"),
    (
        "facts",
        "how many fingers are on a hand, how many fingers does a hand have, how many fingers has a hand",
        "five fingers",
    ),
)
_STOP: Final = ("stop", "stop it", "stop now", "stop that", "stop counting", "stop talking")
"""All with the one word, for the model falls silent as soon as it has heard that."""
_GO_ON: Final = ("go on", "please go on", "go on please", "continue", "please continue", "carry on", "keep going")

_WORDS: Final = {
    "who": "my brother, the teacher, an old man, her sister, the postman, our neighbour, a young lady, his uncle, "
    "the captain, a farmer, some children, the queen, nobody, the tall girl, a soldier, my aunt, the lawyer, "
    "their cousin, the baker, a nurse",
    "does": "bought, forgot, painted, lost, carried, found, cleaned, broke, wanted, followed, watched, borrowed, "
    "opened, hid, washed, remembered, repaired, dropped, admired, sold",
    "what": "the newspaper, a red umbrella, his wallet, the broken chair, a wooden boat, the letters, her bicycle, "
    "some cheese, an expensive watch, the curtains, a pair of shoes, my suitcase, the old bridge, a basket, "
    "three blankets, the ladder, a birthday cake, the map, his glasses, a silver spoon",
    "where": "at the station, in the forest, behind the church, near the harbour, on the balcony, under the bed, "
    "last thursday, after breakfast, before the concert, across the street, in the afternoon, at home, "
    "in the attic, by accident, without a word, every weekend, for a friend, on purpose, long ago, in spring",
}
_STRANGE: Final = (
    "{who} {does} {what}",
    "{who} {does} {what} {where}",
    "{does} {what} {where}",
    "{what} {where}",
    "why has {who} {does} {what}",
    "when was {what} {where}",
    "what is the opposite of {what}",
    "what colour is {what}",
    "is {who} {where}",
    "how many {noun} {where}",
    "who {does} {what}",
    "tell me about {what}",
    "{who} {where}",
)


SHORT: Final = {
    "what is": "what's",
    "how is": "how's",
    "who is": "who's",
    "where is": "where's",
    "I am": "I'm",
}
BEFORE: Final = ("well", "now", "right", "okay so", "so please", "alright")
AFTER: Final = ("thanks", "now", "then", "please")
"""What people say before and after what they ask, and how they shorten it."""


def questions() -> list[Question]:
    """Everything that the model can answer, in a fixed order."""
    return list(_questions())


@cache
def by_topic() -> dict[str, tuple[Question, ...]]:
    """All questions by their topics, in the order of :func:`questions`."""
    found: dict[str, list[Question]] = {}
    for question in _questions():
        found.setdefault(question.topic, []).append(question)
    return {topic: tuple(asked) for topic, asked in found.items()}


@cache
def _questions() -> tuple[Question, ...]:
    return tuple(itertools.chain(_talk(), _sums(), _knowledge(), _repetitions(), _counting()))


def words_of(text: str) -> list[str]:
    """Lower-case words, without anything between them."""
    return re.findall(r"[a-z']+", text.lower())


def normalised(text: str) -> str:
    return " ".join(words_of(text))


def is_held_out(wording: str) -> bool:
    """Whether ``wording`` is kept from training, to be asked in the evaluation: one in six."""
    return hashlib.sha256(wording.encode()).digest()[0] % 6 == 0


def strange(random_: random.Random, *, held_out: bool) -> str:
    """Something that the model does not know: a sentence, a piece of one, or nearly a question."""
    while True:
        text = _strange(random_)
        if is_held_out(text) == held_out:
            return text


def _strange(random_: random.Random) -> str:
    who, does, what, where = (random_.choice(_WORDS[key].split(", ")) for key in ("who", "does", "what", "where"))
    shape = random_.choice(_STRANGE)
    return shape.format(who=who, does=does, what=what, where=where, noun=what.split()[-1])


def vocabulary() -> list[str]:
    """Every word that a person may say, sorted."""
    strange_words = (re.sub(r"{\w+}|,", " ", text) for text in (*_STRANGE, *_WORDS.values()))
    casual = (*SHORT.values(), *BEFORE, *AFTER)
    texts = [*(text for one in questions() for text in one.wordings), *strange_words, *casual]
    return sorted({word for text in texts for word in text.lower().split()})


def _say(*parts: str) -> Reply:
    return Reply("say", parts)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _openings(wordings: Sequence[str]) -> tuple[str, ...]:
    """Each wording as it is, and as people begin or end it."""
    return tuple(
        dict.fromkeys(
            f"{before}{wording}{after}"
            for wording in wordings
            for before, after in (("", ""), ("please ", ""), ("okay ", ""), ("so ", ""), ("", " please"), ("hey ", ""))
        )
    )


def _talk() -> Iterator[Question]:
    for topic, wordings, answer in _TALK:
        yield Question(topic, _openings(_listed(wordings)), _say(answer))


def _sums() -> Iterator[Question]:
    for first, second in itertools.product(range(11), repeat=2):
        a, b = NUMBERS[first], NUMBERS[second]
        plus = (f"{a} plus {b}", f"what is {a} plus {b}", f"how much is {a} plus {b}", f"add {a} and {b}")
        yield Question("sums", _openings(plus), _say("that is", NUMBERS[first + second]))
        if first >= second:
            minus = (f"{a} minus {b}", f"what is {a} minus {b}", f"how much is {a} minus {b}")
            yield Question("sums", _openings(minus), _say("that is", NUMBERS[first - second]))


def _knowledge() -> Iterator[Question]:
    for index, day in enumerate(DAYS):
        after, before = DAYS[(index + 1) % 7], DAYS[index - 1]
        shapes = ("what day comes {} {}", "which day comes {} {}", "what comes {} {}", "what day is {} {}")
        for word, answer in (("after", after), ("before", before)):
            yield Question("days", _openings([shape.format(word, day) for shape in shapes]), _say(answer))
    for pair in _listed(_OPPOSITES):
        first, second = pair.split()
        for word, other in ((first, second), (second, first)):
            ways = ("what is the opposite of {}", "the opposite of {}", "tell me the opposite of {}")
            yield Question("opposites", _openings([way.format(word) for way in ways]), _say(other))
    for entry in _listed(_COLOURS):
        thing, colour = entry.rsplit(" ", 1)
        shapes = ("what colour is {}", "tell me the colour of {}", "which colour is {}", "what is the colour of {}")
        yield Question("colours", _openings([shape.format(thing) for shape in shapes]), _say(colour))
    for entry in _listed(_FACTS):
        question, answer = entry.rsplit(" ", 1)
        yield Question(
            "yes and no", _openings([question, f"tell me {question}", f"what do you think {question}"]), _say(answer)
        )


def _repetitions() -> Iterator[Question]:
    for word in (*NUMBERS, *REPEATABLE):
        shapes = ("say {}", "repeat {}", "repeat after me {}", "can you say {}", "say the word {}")
        yield Question("repeat", _openings([shape.format(word) for shape in shapes]), _say(word))


def _counting() -> Iterator[Question]:
    for number in range(2, 21):
        word = NUMBERS[number]
        shapes = ("count to {}", "count up to {}", "can you count to {}", "count from one to {}")
        yield Question("count", _openings([shape.format(word) for shape in shapes]), Reply("count", count_to=number))
    yield Question("stop", _openings(_STOP), Reply("stop"))
    yield Question("go on", _GO_ON, Reply("go on"))

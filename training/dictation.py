"""``python -m training.dictation``: examines the model that transcribes and prints how well it writes.

Voices, wordings and sentences are ones that no part of the training has heard, as in ``training.evaluate``; and there
are a person's recordings (``recordings.py``). Owns what is read out, the alignment of what was written with it, and the
figures. Steps the model directly: what a network does to sound is done to it before.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

import numpy as np

from lab.pico import phrases
from lab.speech.spoken import Spoken, guessed
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray, silence
from rtc_server.bundled import PICO_STT, PICO_STT_PT, directory_of
from rtc_server.engine.model import RowOutput, StreamingModel
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.transcription.live import FLUSH_EXTRA_S, frames_of
from rtc_server.transcription.words import Word, WordAssembler
from training import manners, recordings, voices
from training.disturbance import Bystander
from training.person import Condition, distorted, light_noise, loudness
from training.tongues import TONGUES
from training.voices import Language

_CONDITIONS: Final[tuple[Condition, ...]] = ("clean", "lossy", "telephone")
_SHIPPED: Final[dict[Language, str]] = {"en": PICO_STT, "pt": PICO_STT_PT}
_UNKNOWN: Final = 32
"""Sentences with a word that is not known."""
_PAUSE_S: Final = (0.4, 1.5)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one person reads out: ``pcm`` at 24 kHz, and the words, each with the second in which it begins."""

    pcm: FloatArray
    words: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class Score:
    """``errors``: words left out, put in, or other ones, of ``words`` read. ``starts_s``: of words that were written
    rightly, by how much their time is off."""

    words: int
    errors: int
    starts_s: tuple[float, ...]

    def __add__(self, other: Score) -> Score:
        return Score(self.words + other.words, self.errors + other.errors, self.starts_s + other.starts_s)


def read_out(
    sentences: int, condition: Condition, seed: int, examiner: str = voices.ESPEAK, language: Language = "en"
) -> Reading:
    """``sentences``, with pauses, by one person in one place. The same ``seed`` reads the same in every condition."""
    random_, generator = random.Random(seed), np.random.default_rng(seed)
    voice = voices.held_out(random_, examiner, language)
    gain = loudness(random_, condition)
    texts = [TONGUES[language].held_out(random_) for _ in range(sentences)]
    return _read_out(voices.roughly_spoken(texts, voice), gain, condition, random_, generator)


def recorded(utterances: Sequence[Spoken], condition: Condition, seed: int) -> Reading:
    """``utterances`` of a person, with pauses."""
    random_, generator = random.Random(seed), np.random.default_rng(seed)
    return _read_out(utterances, loudness(random_, condition), condition, random_, generator)


def _read_out(
    utterances: Sequence[Spoken],
    gain: np.float32,
    condition: Condition,
    random_: random.Random,
    generator: np.random.Generator,
) -> Reading:
    parts, words, at = [], [], 0
    for spoken in utterances:
        pause = silence(round(random_.uniform(*_PAUSE_S) * MODEL_RATE_HZ))
        begins_s = (at + len(pause)) / MODEL_RATE_HZ
        words += [(begins_s + at_s, word.lower()) for at_s, word in spoken.words]
        parts += [pause, spoken.pcm * gain]
        at += len(pause) + len(spoken.pcm)
    spoken_pcm = np.concatenate(parts)
    noise = light_noise(len(spoken_pcm), gain, random_, generator, condition)
    return Reading(distorted(spoken_pcm + noise, spoken_pcm, condition, generator), tuple(words))


def unknown_words(examiner: str, count: int, seed: int) -> list[tuple[Reading, int]]:
    """``count`` sentences that have one word each which is not to be written, and how many are."""
    random_ = random.Random(seed)
    made = []
    for index in range(count):
        text = manners.with_unknown(phrases.strange(random_, held_out=True), random_, held_out=True)
        spoken = voices.roughly_spoken([text], voices.held_out(random_, examiner))
        made.append((recorded(spoken, "clean", seed + index), len(text.split()) - 1))
    return made


def words_alone(examiner: str, seed: int) -> list[Spoken]:
    """Each number and each day, by one speaker."""
    words = (*phrases.NUMBERS, *phrases.DAYS)
    made = voices.sounds(words, voices.held_out(random.Random(seed), examiner))
    return [guessed(one, word) for one, word in zip(made, words, strict=True)]


def written_alone(
    model: StreamingModel, said: Sequence[Spoken], condition: Condition, seed: int
) -> list[tuple[str, ...]]:
    """What ``model`` writes of each of ``said``, when that is all there is."""
    readings = [recorded([one], condition, seed + index) for index, one in enumerate(said)]
    return [tuple(word.text.lower() for word in words) for words in _written_in_turns(model, readings)]


def written(model: StreamingModel, readings: Sequence[Reading]) -> list[list[Word]]:
    """What ``model``, with as many rows, writes of ``readings``."""
    info = model.info
    prefix, flush = frames_of(info.prefix_s), frames_of(info.delay_s + FLUSH_EXTRA_S)
    frames = prefix + max(-(-len(one.pcm) // FRAME_SAMPLES) for one in readings) + flush
    pcm = np.zeros((len(readings), frames * FRAME_SAMPLES), dtype=np.float32)
    for row, one in enumerate(readings):
        first = prefix * FRAME_SAMPLES
        pcm[row, first : first + len(one.pcm)] = one.pcm
    assemblers = [WordAssembler(info.delay_s, prefix * FRAME_MS / 1000) for _ in readings]
    words: list[list[Word]] = [[] for _ in readings]
    every_row = np.ones(len(readings), dtype=np.bool_)
    model.reset(every_row)
    for frame in range(frames):
        outputs = model.step(pcm[:, frame * FRAME_SAMPLES : (frame + 1) * FRAME_SAMPLES], every_row)
        for row, output in enumerate(outputs):
            words[row] += _push(assemblers[row], frame + 1, output)
    return words


def in_disturbance(model: StreamingModel, seconds: float, seed: int) -> int:
    """How many words ``model`` writes in so much silence, noise, music and talk, shared out to its rows."""
    count = round(seconds / model.info.slots * MODEL_RATE_HZ)
    bystanders = [Bystander(seconds / model.info.slots, seed + row) for row in range(model.info.slots)]
    return sum(map(len, written(model, [Reading(one.microphone(count, 0.0), ()) for one in bystanders])))


def _push(assembler: WordAssembler, frame: int, output: RowOutput | None) -> Iterable[Word]:
    made = [] if output is None else assembler.push(frame, output.mark, output.text)
    return [one for one in made if isinstance(one, Word)]


def score(read: Sequence[tuple[float, str]], wrote: Sequence[Word]) -> Score:
    """The least number of words that have to be changed, and the times of the others (Levenshtein's alignment)."""
    # The cheapest way to each pair of places: errors, and the times of the words that are right.
    best: list[tuple[int, tuple[float, ...]]] = [(place, ()) for place in range(len(wrote) + 1)]
    for line, (begins_s, word) in enumerate(read, 1):
        before, best = best, [(line, ())]
        for place, one in enumerate(wrote, 1):
            right = one.text.lower() == word
            cost, times = before[place - 1]
            met = (cost, (*times, one.start_s - begins_s)) if right else (cost + 1, times)
            left_out, put_in = before[place], best[place - 1]
            ways = (met, (left_out[0] + 1, left_out[1]), (put_in[0] + 1, put_in[1]))
            best.append(min(ways, key=lambda way: way[0]))
    errors, times = best[-1]
    return Score(len(read), errors, times)


def main() -> None:
    arguments = _parser().parse_args()
    from rtc_server.models.kyutai.model import load  # noqa: PLC0415 - help needs no torch

    language: Language = arguments.language
    directory = arguments.model or directory_of(_SHIPPED[language])
    model = load(KyutaiOptions(str(directory), arguments.readers))
    print(f"{'':16}{'':12}{'words':>8}{'errors':>10}{'start, median':>16}{'start, 95 %':>14}")
    for name in arguments.voices if language == "en" else (voices.ESPEAK,):
        if voices.missing(name):
            print(f"{name:16}left out: it needs {voices.missing(name)}")
            continue
        for condition in arguments.conditions:
            seeds = range(arguments.seed * 1000, arguments.seed * 1000 + arguments.readers)
            readings = [read_out(arguments.sentences, condition, seed, name, language) for seed in seeds]
            _examine(model, name, condition, readings, arguments.failures)
        if language == "en":
            _examine_words(model, name, arguments.seed)
            _examine_unknown(model, name, arguments.seed)
    if language != "en":
        print("other voices, words that are not known and recordings are examined in English alone")
    elif recordings.missing():
        print(f"a person's recordings are left out: they need {recordings.missing()}")
    else:
        for condition in arguments.conditions:
            _examine_recordings(model, condition, arguments.seed, arguments.failures)
    if arguments.disturbance:
        false = in_disturbance(model, arguments.disturbance, arguments.seed)
        print(f"{false} words in {arguments.disturbance:.0f} s of silence, noise, music and talk")
    model.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.dictation", description=(__doc__ or "").partition("\n\n")[2]
    )
    add = parser.add_argument
    add("--model", type=Path, metavar="DIR", help="default: the shipped one that writes the language")
    add("--language", choices=get_args(Language), default="en", help="that is read out (default: %(default)s)")
    add("--conditions", nargs="*", choices=get_args(Condition), default=list(_CONDITIONS))
    add("--voices", nargs="*", choices=(*voices.RESERVED, *voices.DEVELOPED), default=list(voices.RESERVED))
    add("--readers", type=int, default=16, help="at a time (default: %(default)s)")
    add("--sentences", type=int, default=15, help="each reads out (default: %(default)s)")
    add(
        "--disturbance",
        type=float,
        default=600.0,
        metavar="S",
        help="of silence, noise, music and talk (default: %(default)s)",
    )
    add("--seed", type=int, default=7, help="default: %(default)s")
    add("--failures", type=int, default=0, help="readings shown beside what was written")
    return parser


def _examine(model: StreamingModel, name: str, condition: str, readings: Sequence[Reading], failures: int) -> None:
    """Print a line on ``readings``, as many at a time as the model has rows, and some of what was written."""
    wrote = _written_in_turns(model, readings)
    scores = [score(one.words, words) for one, words in zip(readings, wrote, strict=True)]
    print(f"{name:16}{_line(condition, sum(scores, Score(0, 0, ())))}", flush=True)
    for one, words in list(zip(readings, wrote, strict=True))[:failures]:
        print(f"  read:  {' '.join(word for _, word in one.words)}\n  wrote: {' '.join(word.text for word in words)}")


def _written_in_turns(model: StreamingModel, readings: Sequence[Reading]) -> list[list[Word]]:
    rows, nothing = model.info.slots, Reading(silence(FRAME_SAMPLES), ())
    wrote: list[list[Word]] = []
    for first in range(0, len(readings), rows):
        some = readings[first : first + rows]
        wrote += written(model, [*some, *[nothing] * (rows - len(some))])[: len(some)]
    return wrote


def _examine_recordings(model: StreamingModel, condition: Condition, seed: int, failures: int) -> None:
    """Print how many of a person's words are written rightly when each is alone, and when they are in sentences."""
    alone = recordings.words()
    wrote = written_alone(model, alone, condition, seed)
    print(f"{recordings.SPEAKER:16}{condition:12}{right_of(alone, wrote)} of {len(alone)} numbers and days alone")
    for one, words in list(zip(alone, wrote, strict=True))[:failures]:
        print(f"  read:  {one.words[0][1]}\n  wrote: {' '.join(words)}")
    together = [recorded([one], condition, seed + index) for index, one in enumerate(recordings.sentences(seed))]
    _examine(model, recordings.SPEAKER, condition, together, failures)


def _examine_words(model: StreamingModel, name: str, seed: int) -> None:
    """Print how many numbers and days are written rightly, each alone, in one voice."""
    alone = words_alone(name, seed)
    right = right_of(alone, written_alone(model, alone, "clean", seed))
    print(f"{name:16}{right} of {len(alone)} numbers and days alone", flush=True)


def right_of(said: Sequence[Spoken], wrote: Sequence[Sequence[str]]) -> int:
    """Of how many of ``said`` exactly that is written."""
    pairs = zip(said, wrote, strict=True)
    return sum([word.lower() for _, word in one.words] == list(words) for one, words in pairs)


def _examine_unknown(model: StreamingModel, name: str, seed: int) -> None:
    """Print for how many of the words that it does not know the model writes none of its own."""
    sentences = unknown_words(name, _UNKNOWN, seed)
    wrote = _written_in_turns(model, [reading for reading, _ in sentences])
    left_out = sum(len(words) <= known for words, (_, known) in zip(wrote, sentences, strict=True))
    print(f"{name:16}{left_out} of {len(sentences)} unknown words left out", flush=True)


def _line(condition: str, made: Score) -> str:
    off = sorted(abs(value) for value in made.starts_s) or [float("nan")]
    median, p95 = statistics.median(off) * 1000, off[int(len(off) * 0.95)] * 1000
    return f"{condition:12}{made.words:8}{made.errors / made.words:10.1%}{median:13.0f} ms{p95:11.0f} ms"


if __name__ == "__main__":
    main()

"""The whole recipe, from nothing to a checkpoint: ``python -m training``.

Every stage goes on where it was interrupted. Owns the order of the stages.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, get_args

import torch

from lab.pico import own_voice
from rtc_server.bundled import PICO, directory_of
from training import adapt, bank, codec, dataset, language, polish, reading, transcription, voices
from training.checkpoint import hearing_of, voice_of, write_codec, write_tokenizer
from training.language import Plan
from training.voices import Language

_STAGES: Final = ("voices", "codec", "data", "language", "polish", "transcription", "plots")
_OF_ANOTHER_LANGUAGE: Final = ("data", "transcription", "plots")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much of everything. ``phrases``: files of ``phrases_each`` of each of ``people``, voices that were made from
    people's. ``files``: of ``conversations`` of 32 s each; ``words``: of as many readings of words alone."""

    people: tuple[str, ...] = voices.PEOPLE_TRAINED
    phrases: int = 12
    phrases_each: int = bank.PHRASES
    codec: codec.Plan = codec.Plan()
    adapt: adapt.Plan = adapt.Plan()
    files: int = 80
    words: int = 24
    conversations: int = dataset.CONVERSATIONS
    language: language.Plan = language.Plan()
    transcription: Plan = transcription.PLAN


_FURTHER: Final = Recipe(
    phrases=4,
    adapt=adapt.Plan(steps=2700),
    files=60,
    language=language.Plan(steps=4000, rate=3e-4, warm_up=60),
    transcription=replace(transcription.PLAN, steps=3400, batch=10, frames=240, rate=6e-4, warm_up=40),
)
"""With ``--begin-with``: what is known already has to be kept, and at a rate of 4e-4 the language model loses some.
Conversations are many, so that few are read often: what is known by heart teaches no owning up."""

_ANOTHER_LANGUAGE: Final = Recipe(files=24, conversations=48, transcription=transcription.ANOTHER_LANGUAGE)
"""With ``--language``: only the model that transcribes learns, and hears as it did."""

_REHEARSAL: Final = Recipe(
    people=("flite:rms",),
    phrases=1,
    phrases_each=8,
    adapt=adapt.Plan(steps=2, reader=1, batch=2),
    codec=codec.Plan(listen=2, quantize=codec.SEMANTIC + 1, polish=2, batch=4, utterances=64, thin=64),
    files=1,
    words=1,
    conversations=4,
    language=language.Plan(steps=2, batch=4),
    transcription=replace(transcription.PLAN, steps=2, batch=4),
)
"""A minute's run of everything, to see that all of it works; what comes out can say nothing."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stages that were asked for, in their order."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path("training-run"), help="what a run needs to go on")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("training-run/pico"),
        help="the checkpoint; of the model that transcribes, the same with -stt",
    )
    parser.add_argument(
        "--files",
        type=int,
        help=f"of {dataset.CONVERSATIONS} conversations of 32 s each; default: {Recipe().files}, with --begin-with "
        f"{_FURTHER.files}",
    )
    parser.add_argument(
        "--steps",
        type=int,
        help=f"of the language model; default: {Recipe().language.steps}, with --begin-with {_FURTHER.language.steps}. "
        f"With --language, of the model that transcribes; default: {transcription.ANOTHER_LANGUAGE.steps}",
    )
    parser.add_argument(
        "--encoder-steps",
        type=int,
        metavar="STEPS",
        help=f"with --begin-with, of the encoder; what follows is made for it. Default: {_FURTHER.adapt.steps}",
    )
    parser.add_argument(
        "--begin-with",
        type=Path,
        metavar="DIR",
        help="a checkpoint, beside the one that transcribes: its encoder learns to hear the voices, its models go on "
        "learning, its own voice stays; default: begin with nothing",
    )
    parser.add_argument(
        "--phrases",
        type=int,
        help=f"files of {bank.PHRASES} of each of the voices that were made from people's; default: "
        f"{Recipe().phrases}, with --begin-with {_FURTHER.phrases}",
    )
    parser.add_argument(
        "--language",
        choices=get_args(Language),
        default="en",
        help="another than English: one more model that transcribes, which hears through the codec of --begin-with and "
        f"begins with what the one beside that knows; nothing else learns. Default of --begin-with, then: {PICO}",
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="of torch, and processes that make readings; 0: as many as they like"
    )
    parser.add_argument("--stages", nargs="+", choices=_STAGES, default=list(_STAGES))
    parser.add_argument("--rehearse", action="store_true", help="a minute's run of all of it, with nothing learnt")
    chosen = parser.parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    tongue: Language = chosen.language
    larger = _ANOTHER_LANGUAGE if tongue != "en" else _FURTHER if chosen.begin_with else Recipe()
    recipe = _REHEARSAL if chosen.rehearse else larger
    if chosen.files:
        recipe = replace(recipe, files=chosen.files)
    if chosen.phrases:
        recipe = replace(recipe, phrases=chosen.phrases)
    if chosen.encoder_steps:
        recipe = replace(recipe, adapt=replace(recipe.adapt, steps=chosen.encoder_steps))
    if chosen.steps:
        which = "language" if tongue == "en" else "transcription"
        recipe = replace(recipe, **{which: replace(getattr(recipe, which), steps=chosen.steps)})
    for stage in [stage for stage in _STAGES if stage in chosen.stages]:
        if tongue == "en":
            print(f"== {stage}", flush=True)
            _run(stage, recipe, chosen.directory, chosen.out, chosen.begin_with, chosen.threads)
        elif stage in _OF_ANOTHER_LANGUAGE:
            print(f"== {stage}", flush=True)
            knows = chosen.begin_with or directory_of(PICO)
            _run_another(
                stage, tongue, recipe, chosen.directory, _transcribing(chosen.out, tongue), knows, chosen.threads
            )


def _run(stage: str, recipe: Recipe, directory: Path, out: Path, begin_with: Path | None, processes: int) -> None:
    phrases = directory / "voices"
    voice = voice_of(begin_with) if begin_with else out
    if stage == "voices":
        for path in bank.make(phrases, recipe.people, recipe.phrases, recipe.phrases_each):
            print(path.name, flush=True)
    elif stage == "codec":
        write_tokenizer(out, own_voice.all_words())
        if begin_with is None:
            write_codec(out, codec.train(directory, recipe.codec, phrases))
        else:
            write_codec(out, adapt.train(directory, begin_with, voice, out, phrases, recipe.adapt))
    elif stage == "data":
        sources = dataset.Sources(out, voice, phrases)
        dataset.make(_data(directory, out), sources, range(1, recipe.files + 1), recipe.conversations)
        reading.make(
            _words(directory, out), out, "en", range(1, recipe.words + 1), recipe.conversations, processes, phrases
        )
    elif stage == "language":
        language.train(directory, out, voice, _data(directory, out), recipe.language, begin_with)
    elif stage == "polish":
        if begin_with is None:  # else the decoder has learnt to speak, and the codes are what they were
            polish.train(directory, out, recipe.codec)
    elif stage == "transcription":
        known = begin_with and _transcribing(begin_with)
        data = [_data(directory, out), _words(directory, out)]
        transcription.train(directory, out, _transcribing(out), data, recipe.transcription, known)
    else:
        from training.plots import plot  # noqa: PLC0415 - an optional package

        plot(directory)


def _run_another(
    stage: str, tongue: Language, recipe: Recipe, directory: Path, out: Path, knows: Path, processes: int
) -> None:
    """Into ``out``, a model that transcribes ``tongue``, from the checkpoint ``knows`` and the model beside that."""
    data = directory / f"data-{tongue}-{hearing_of(knows)}"
    if stage == "data":
        reading.make(data, knows, tongue, range(1, recipe.files + 1), recipe.conversations, processes)
    elif stage == "transcription":
        directory.mkdir(parents=True, exist_ok=True)
        transcription.train(directory, knows, out, [data], recipe.transcription, _transcribing(knows), tongue)
    else:
        from training.plots import plot  # noqa: PLC0415 - an optional package

        plot(directory)


def _data(directory: Path, out: Path) -> Path:
    """Where conversations lie as the codec of ``out`` hears them: of one whose encoder has learnt more, elsewhere."""
    return directory / f"data-{hearing_of(out)}"


def _words(directory: Path, out: Path) -> Path:
    """Where readings of words alone lie, as the same codec hears them."""
    return directory / f"words-{hearing_of(out)}"


def _transcribing(checkpoint: Path, tongue: Language = "en") -> Path:
    """Where the model that transcribes the language ``tongue`` lies."""
    return checkpoint.with_name(f"{checkpoint.name}-stt" + ("" if tongue == "en" else f"-{tongue}"))


if __name__ == "__main__":
    main()

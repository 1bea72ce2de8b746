"""The whole recipe, from nothing to a checkpoint: ``python -m training``.

Every stage goes on where it was interrupted. Owns the order of the stages.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from training import codec, dataset, language, own_voice, polish, transcription
from training.checkpoint import write_codec, write_tokenizer
from training.language import Plan

_STAGES: Final = ("codec", "data", "language", "polish", "transcription", "plots")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much of everything. ``files``: of ``conversations`` of 32 s each."""

    codec: codec.Plan = codec.Plan()
    files: int = 80
    conversations: int = dataset.CONVERSATIONS
    language: language.Plan = language.Plan()
    transcription: Plan = transcription.PLAN


_REHEARSAL: Final = Recipe(
    codec=codec.Plan(listen=2, quantize=codec.SEMANTIC + 1, polish=2, batch=4, utterances=64),
    files=1,
    conversations=8,
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
        "--files", type=int, help=f"of {dataset.CONVERSATIONS} conversations of 32 s each; default: {Recipe().files}"
    )
    parser.add_argument("--steps", type=int, help=f"of the language model; default: {Recipe().language.steps}")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as many as it likes")
    parser.add_argument("--stages", nargs="+", choices=_STAGES, default=list(_STAGES))
    parser.add_argument("--rehearse", action="store_true", help="a minute's run of all of it, with nothing learnt")
    chosen = parser.parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    recipe = _REHEARSAL if chosen.rehearse else Recipe()
    if chosen.files:
        recipe = replace(recipe, files=chosen.files)
    if chosen.steps:
        recipe = replace(recipe, language=replace(recipe.language, steps=chosen.steps))
    for stage in [stage for stage in _STAGES if stage in chosen.stages]:
        print(f"== {stage}", flush=True)
        _run(stage, recipe, chosen.directory, chosen.out)


def _run(stage: str, recipe: Recipe, directory: Path, out: Path) -> None:
    data = directory / "data"
    if stage == "codec":
        write_tokenizer(out, own_voice.all_words())
        write_codec(out, codec.train(directory, recipe.codec))
    elif stage == "data":
        dataset.make(data, out, range(1, recipe.files + 1), recipe.conversations)
    elif stage == "language":
        language.train(directory, out, data, recipe.language)
    elif stage == "polish":
        polish.train(directory, out, recipe.codec)
    elif stage == "transcription":
        transcription.train(directory, out, out.with_name(f"{out.name}-stt"), data, recipe.transcription)
    else:
        from training.plots import plot  # noqa: PLC0415 - an optional package

        plot(directory)


if __name__ == "__main__":
    main()

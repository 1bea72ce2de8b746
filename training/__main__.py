"""The whole recipe, from nothing to a checkpoint: ``python -m training``.

Every stage goes on where it was interrupted. Owns the order of the stages.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from training import codec, dataset, language, polish
from training.checkpoint import write_codec, write_tokenizer

_STAGES: Final = ("codec", "data", "language", "polish", "plots")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stages that were asked for, in their order."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path("training-run"), help="what a run needs to go on")
    parser.add_argument("--out", type=Path, default=Path("training-run/pico"), help="the checkpoint")
    parser.add_argument("--files", type=int, default=36, help="of 160 conversations of 32 s each; default: 36")
    parser.add_argument("--steps", type=int, default=language.Plan().steps, help="of the language model")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as many as it likes")
    parser.add_argument("--stages", nargs="+", choices=_STAGES, default=list(_STAGES))
    chosen = parser.parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    data = chosen.directory / "data"
    codec_plan, language_plan = codec.Plan(), replace(language.Plan(), steps=chosen.steps)
    for stage in [stage for stage in _STAGES if stage in chosen.stages]:
        print(f"== {stage}", flush=True)
        if stage == "codec":
            write_tokenizer(chosen.out)
            write_codec(chosen.out, codec.train(chosen.directory, codec_plan))
        elif stage == "data":
            dataset.make(data, chosen.out, range(1, chosen.files + 1))
        elif stage == "language":
            language.train(chosen.directory, chosen.out, data, language_plan)
        elif stage == "polish":
            polish.train(chosen.directory, chosen.out, codec_plan)
        else:
            from training.plots import plot  # noqa: PLC0415 - an optional package

            plot(chosen.directory)


if __name__ == "__main__":
    main()

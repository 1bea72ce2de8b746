"""``python -m bench transcribe``: files through the product's engine against a plain loop over the moshi package.

The loop is what Kyutai's own scripts do: one file after the other, a batch of one. Both load the same tiny checkpoint,
which says what batching and the way from file to words cost and gain, not what a real model takes.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

import av
import numpy as np

from bench.apart import apart
from bench.quiet import errors_only
from bench.table import publish, spread
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ
from rtc_server.config import parse
from rtc_server.decoding.reader import Decoders
from rtc_server.metrics import Metrics
from rtc_server.services import make_transcriber
from rtc_server.transcription.file import Progress, transcribe
from rtc_server.transcription.live import FLUSH_EXTRA_S, frames_of

HELP = "files a second, against a plain loop over the moshi package"

_WARM_FRAMES: Final = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", default="1,4,16", help="at a time, one run for each")
    parser.add_argument("--seconds", type=float, default=30, help="of audio in each file")
    parser.add_argument("--rounds", type=int, default=3, help="times each")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the model, in both")


@errors_only("rtc_server")
def run(arguments: argparse.Namespace) -> None:
    from rtc_server.models.tiny import write_tiny_checkpoint  # noqa: PLC0415 - imports torch, for the table's sake

    counts = [int(text) for text in arguments.files.split(",")]
    ours: dict[int, list[float]] = {count: [] for count in counts}
    plain: dict[int, list[float]] = {count: [] for count in counts}
    words: set[bool] = set()
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = write_tiny_checkpoint(Path(directory) / "tiny-stt", "stt")
        paths = [_recording(Path(directory), number, arguments.seconds) for number in range(max(counts))]
        # Rounds outside: what else the machine does meets both alike.
        for _ in range(arguments.rounds):
            for count in counts:
                took_s, texts = asyncio.run(_ours(checkpoint, paths[:count], arguments.threads))
                ours[count].append(count * arguments.seconds / took_s)
                took_s, expected = apart(_plain, checkpoint, paths[:count], arguments.threads)
                plain[count].append(count * arguments.seconds / took_s)
                words.add(texts == expected)
    publish(
        f"Files: tiny stt, {arguments.threads} thread(s)",
        ["files at a time", "rtc-server, × real time", "plain loop, × real time", "gain"],
        [
            [
                str(count),
                spread(ours[count], digits=1),
                spread(plain[count], digits=1),
                spread([mine / theirs for mine, theirs in zip(ours[count], plain[count], strict=True)], digits=2),
            ]
            for count in counts
        ],
        [
            f"{arguments.rounds} rounds: median (least–most). Files of {arguments.seconds:g} s, 24 kHz WAV; from the "
            "first byte of the first to the last word of the last, loading and warming the model not counted.",
            "The plain loop is batch 1 over moshi's MimiModel and LMGen, one file after the other. A tiny model of "
            "random weights: what a step of it costs is mostly the calls, so batching gains more than it computes.",
            f"The words of both are {'the same' if words == {True} else 'NOT THE SAME'}.",
        ],
    )


def _recording(directory: Path, number: int, seconds: float) -> Path:
    """Noise that swells: the tiny model has much to say about it."""
    rng = np.random.default_rng(number)
    samples = round(seconds * MODEL_RATE_HZ)
    loudness = np.repeat(rng.uniform(0.001, 0.3, samples // FRAME_SAMPLES + 1), FRAME_SAMPLES)[:samples]
    pcm = (np.clip(loudness * rng.standard_normal(samples), -1, 1) * 32767).astype(np.int16)
    path = directory / f"{number}.wav"
    with av.open(path, "w") as output:
        stream = output.add_stream("pcm_s16le", rate=MODEL_RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = MODEL_RATE_HZ
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


async def _ours(checkpoint: Path, paths: list[Path], threads: int) -> tuple[float, list[str]]:
    """Seconds, and the text of each file."""
    arguments = ["--stt", str(checkpoint), "--stt-slots", str(len(paths)), "--threads", str(threads), "--device", "cpu"]
    settings = parse([*arguments, "--log-level", "error"], environment={})
    engine, decoders = make_transcriber(settings, Metrics(), len(paths)), Decoders()
    engine.start()

    async def one(path: Path) -> str:
        with path.open("rb") as file:
            made = await transcribe(engine, decoders, file, settings, _ignore)
        return " ".join(word.text for word in made.words)

    try:
        await engine.wait_settled()
        await decoders.warm()
        started = time.monotonic()
        texts = await asyncio.gather(*(one(path) for path in paths))
        return time.monotonic() - started, texts
    finally:
        await engine.close()
        await decoders.close()


async def _ignore(_: Progress) -> None:
    pass


def _plain(checkpoint: Path, paths: list[Path], threads: int) -> tuple[float, list[str]]:
    import sphn  # noqa: PLC0415 - torch and its threads must not be in the process that measures
    import torch  # noqa: PLC0415
    from moshi.models.lm import LMGen  # noqa: PLC0415
    from moshi.utils.compile import no_compile  # noqa: PLC0415

    from rtc_server.models.kyutai.checkpoint import open_checkpoint  # noqa: PLC0415

    torch.set_num_threads(threads)
    found = open_checkpoint(str(checkpoint))
    mimi, lm, tokenizer = found.get_mimi("cpu"), found.get_moshi("cpu", torch.float32), found.get_text_tokenizer()
    lm_gen = LMGen(lm, temp=0.0, temp_text=0.0)
    prefix = frames_of(found.stt_config["audio_silence_prefix_seconds"]) * FRAME_SAMPLES
    flush = frames_of(found.stt_config["audio_delay_seconds"] + FLUSH_EXTRA_S) * FRAME_SAMPLES

    def text_of(pcm: torch.Tensor) -> str:
        text = ""
        mimi.reset_streaming()
        lm_gen.reset_streaming()
        for index, frame in enumerate(torch.split(pcm, FRAME_SAMPLES)):
            codes = mimi.encode(frame[None, None])
            if index == 0:
                mimi.reset_streaming()
            tokens = lm_gen.step(codes)
            token = 3 if tokens is None else int(tokens[0, 0, 0])
            text += "" if token in (0, 3) else tokenizer.id_to_piece(token).replace("▁", " ")
        return text.strip()

    with torch.no_grad(), no_compile(), mimi.streaming(1), lm_gen.streaming(1):
        text_of(torch.zeros(_WARM_FRAMES * FRAME_SAMPLES))
        started = time.monotonic()
        texts = []
        for path in paths:
            pcm = sphn.read(str(path), sample_rate=MODEL_RATE_HZ)[0][0]
            padded = np.pad(pcm, (prefix, -pcm.size % FRAME_SAMPLES + flush))
            texts.append(text_of(torch.from_numpy(padded.astype(np.float32))))
        return time.monotonic() - started, texts

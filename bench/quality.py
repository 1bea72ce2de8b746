"""``python -m bench quality``: what lost packets leave of speech, as PESQ and STOI judge it.

No network and no clock: synthetic speech, encoded as a browser does that knows the loss, losses from a seed, and
several ways to receive what is left. Everything is in virtual time, so the same command gives the same table.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np
import soxr

from bench.table import publish
from lab.network.link import Link, LinkSettings
from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.media import libopus
from rtc_server.media.codecs import OPUS_CLOCK_HZ, FallbackOpusDecoder, OpusDecoder, PacketDecoder, StreamRenderer
from rtc_server.media.inbound import InboundStream
from rtc_server.media.jitter import JitterBuffer

HELP = "speech quality under packet loss (PESQ, STOI), by way of receiving"

JUDGE_HZ: Final = 16_000
"""Of wide-band PESQ (ITU-T P.862.2); STOI resamples to 10 kHz by itself."""
_PACKET_S: Final = audio.PACKET_MS / 1000
_PACKET_TICKS: Final = OPUS_CLOCK_HZ * audio.PACKET_MS // 1000
_BITRATE: Final = 32_000
_AFTERWARDS_S: Final = 0.5
"""For which a receiver goes on after the last packet, so that all it holds comes out."""
_MAX_SHIFT_S: Final = 1.0

_TALKERS: Final = (
    ("en-gb", "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background. "
     "It is easy to tell the depth of a well."),
    ("en-us+f3", "These days a chicken leg is a rare dish. Rice is often served in round bowls. "
     "The juice of lemons makes fine punch."),
    ("en-gb-scotland", "The box was thrown beside the parked truck. The hogs were fed chopped corn and garbage. "
     "Four hours of steady work faced us."),
    ("en-us+f5", "A large size in stockings is hard to sell. The boy was there when the sun rose. "
     "A rod is used to catch pink salmon."),
)  # fmt: skip
"""Lists 1 and 2 of the Harvard sentences (IEEE, 1969), three at a time: P.862.3 asks for 8 s or more."""


class Receiver(Protocol):
    """Packets in, audio at 24 kHz out; times in seconds."""

    @property
    def deadline(self) -> float | None: ...

    def push(self, number: int, payload: bytes, now: float) -> list[FloatArray]: ...

    def poll(self, now: float) -> list[FloatArray]: ...


class Deployed:
    """A call's microphone, as the server has it."""

    def __init__(self) -> None:
        self._stream = InboundStream(0.0)

    @property
    def deadline(self) -> float | None:
        return self._stream.deadline

    def push(self, number: int, payload: bytes, now: float) -> list[FloatArray]:
        return self._stream.push("OPUS", 1, number, number * _PACKET_TICKS, payload, now)

    def poll(self, now: float) -> list[FloatArray]:
        return self._stream.poll(now)


class Bare:
    """The same jitter buffer in front of another decoder."""

    def __init__(self, decoder: PacketDecoder) -> None:
        self._jitter = JitterBuffer(OPUS_CLOCK_HZ)
        self._renderer = StreamRenderer(decoder)

    @property
    def deadline(self) -> float | None:
        return self._jitter.deadline

    def push(self, number: int, payload: bytes, now: float) -> list[FloatArray]:
        items = self._jitter.push(1, number, number * _PACKET_TICKS, _PACKET_TICKS, payload, now)
        return [self._renderer.render(item) for item in items]

    def poll(self, now: float) -> list[FloatArray]:
        return [self._renderer.render(item) for item in self._jitter.poll(now)]


class WithoutFec(OpusDecoder):
    """libopus, not told of the packet behind a gap."""

    def conceal(self, ticks: int, after: bytes | None) -> FloatArray:
        return super().conceal(ticks, None)


class WithoutConcealment(OpusDecoder):
    """libopus, and nothing where nothing came."""

    def conceal(self, ticks: int, after: bytes | None) -> FloatArray:
        return audio.silence(ticks * audio.MODEL_RATE_HZ // OPUS_CLOCK_HZ)


DEPLOYED: Final = "this server"
RECEIVERS: Final[dict[str, Callable[[], Receiver]]] = {
    DEPLOYED: Deployed,
    "concealment, no FEC": lambda: Bare(WithoutFec()),
    "FFmpeg, faded repeat": lambda: Bare(FallbackOpusDecoder()),
    "silence": lambda: Bare(WithoutConcealment()),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """``settings`` of the way; ``expected_percent``: the loss that the encoder has been told of; ``complexity``: its
    own; ``receivers``: names of :data:`RECEIVERS`."""

    settings: LinkSettings
    expected_percent: int
    seed: int
    complexity: int = Settings().opus_complexity
    receivers: tuple[str, ...] = tuple(RECEIVERS)


@dataclass(frozen=True, slots=True)
class Score:
    """``pesq``: P.862.2, 1.0 to 4.6. ``stoi``: 0 to 1."""

    pesq: float
    stoi: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--loss", nargs="+", type=float, default=[0, 2, 5, 10, 20], help="packets lost, in percent")
    parser.add_argument("--loss-run", type=float, default=0, help="mean length of a loss; 0: each packet by itself")
    parser.add_argument("--jitter", type=float, default=0, help="each packet's own delay, 0 to twice that, in ms")
    parser.add_argument("--expected", type=int, help="loss that the encoder is told of, in percent (default: the loss)")
    parser.add_argument("--rounds", type=int, default=5, help="times each, with seeds that follow each other")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--complexity", nargs="+", type=int, help="compare so hard encoders, not ways to receive")


def run(arguments: argparse.Namespace) -> None:
    _require_tools()
    if arguments.complexity:
        _compare_encoders(arguments)
        return
    losses: list[float] = arguments.loss
    conditions = {loss: [_condition(arguments, loss, number) for number in range(arguments.rounds)] for loss in losses}
    scores = _measure_all(conditions)
    seconds = _seconds()
    spreads = [_spread([each[name] for each in group]) for group in scores.values() for name in RECEIVERS]
    rows = [
        [f"{loss:g} %", *(_cell([each[name] for each in group]) for name in RECEIVERS)]
        for loss, group in scores.items()
    ]
    publish(
        "Speech quality under packet loss",
        ["packets lost", *RECEIVERS],
        rows,
        [
            "PESQ (wide band, ITU-T P.862.2, at most 4.64) / STOI (at most 1), against what was said, so that the "
            f"codec's own loss is in every figure. Medians of {arguments.rounds} rounds, seeds from {arguments.seed}; "
            f"a round is the mean over {len(_TALKERS)} talkers, {seconds:.0f} s in all. Widest spread of rounds in a "
            f"cell: {max(each.pesq for each in spreads):.2f} / {max(each.stoi for each in spreads):.2f}.",
            f"Opus at {_BITRATE // 1000} kbit/s, {audio.PACKET_MS} ms packets, in-band FEC; the encoder expects "
            + ("the loss that there is." if arguments.expected is None else f"{arguments.expected} % loss.")
            + " All receivers get the same packets at the same times, through the same jitter buffer.",
            f"pesq {importlib.metadata.version('pesq')}, pystoi {importlib.metadata.version('pystoi')}; "
            "speech by espeak-ng.",
        ],
    )


def _compare_encoders(arguments: argparse.Namespace) -> None:
    levels: list[int] = arguments.complexity
    conditions = {
        (loss, level): [
            dataclasses.replace(_condition(arguments, loss, number), complexity=level, receivers=(DEPLOYED,))
            for number in range(arguments.rounds)
        ]
        for loss in arguments.loss
        for level in levels
    }
    scores = _measure_all(conditions)
    cells = {key: [each[DEPLOYED] for each in group] for key, group in scores.items()}
    spreads = [_spread(each) for each in cells.values()]
    publish(
        "Speech quality by the encoder's complexity",
        ["packets lost", *(f"complexity {level}" for level in levels)],
        [
            *([f"{loss:g} %", *(_cell(cells[loss, level]) for level in levels)] for loss in arguments.loss),
            ["a packet, µs", *(f"{encode_us(level):.0f}" for level in levels)],
        ],
        [
            "PESQ (wide band) / STOI of what this server receives, as in the table of ways to receive: medians of "
            f"{arguments.rounds} rounds, seeds from {arguments.seed}, {_seconds():.0f} s of {len(_TALKERS)} talkers. "
            f"Widest spread of rounds in a cell: {max(each.pesq for each in spreads):.2f} / "
            f"{max(each.stoi for each in spreads):.2f}.",
            "A packet: the time of libopus for 20 ms, the least of five turns over all talkers.",
        ],
    )


Key = TypeVar("Key")


def _measure_all(conditions: dict[Key, list[Condition]]) -> dict[Key, list[dict[str, Score]]]:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = iter(list(pool.map(measure, (each for group in conditions.values() for each in group))))
    return {key: [next(found) for _ in group] for key, group in conditions.items()}


def _seconds() -> float:
    return sum(pcm.size for pcm in utterances()) / audio.MODEL_RATE_HZ


def encode_us(complexity: int) -> float:
    """What a packet of speech costs to encode."""

    def turn() -> float:
        began = time.process_time()
        packets = sum(len(encode(said, 5, complexity)) for said in spoken)
        return (time.process_time() - began) / packets * 1e6

    spoken = utterances()
    return min(turn() for _ in range(5))


def _require_tools() -> None:
    missing = [name for name in ("pesq", "pystoi") if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"error: {' and '.join(missing)} missing\nhint: pip install -e '.[bench]'")
    if shutil.which("espeak-ng") is None:
        raise SystemExit("error: espeak-ng missing\nhint: on Debian: sudo apt-get install espeak-ng")
    if not libopus.available():
        raise SystemExit("error: libopus missing\nhint: install the av package from its wheel")


def _condition(arguments: argparse.Namespace, loss: float, number: int) -> Condition:
    settings = LinkSettings(
        loss=loss / 100, loss_run=arguments.loss_run, delay_ms=arguments.jitter, jitter_ms=arguments.jitter
    )
    expected = round(loss) if arguments.expected is None else arguments.expected
    return Condition(settings, expected, arguments.seed + number)


def measure(condition: Condition) -> dict[str, Score]:
    """Every receiver's score, the mean over the talkers."""
    scores: dict[str, list[Score]] = {name: [] for name in condition.receivers}
    for talker, said in enumerate(utterances()):
        packets = encode(said, condition.expected_percent, condition.complexity)
        link = Link(condition.settings, f"{condition.seed}/{talker}")
        arrivals = arrival_times(link, packets)
        for name in condition.receivers:
            scores[name].append(judge(said, align(said, receive(RECEIVERS[name](), packets, arrivals))))
    return {name: _of(each, statistics.fmean) for name, each in scores.items()}


def utterances() -> list[FloatArray]:
    """What the talkers say, at 24 kHz."""
    from lab.speech.clips import SPEECH_HZ, speak  # noqa: PLC0415 - the other functions need no espeak-ng

    return [soxr.resample(speak(text, voice), SPEECH_HZ, audio.MODEL_RATE_HZ) for voice, text in _TALKERS]


def encode(pcm: FloatArray, expected_percent: int, complexity: int = Settings().opus_complexity) -> list[bytes]:
    encoder = libopus.Encoder(audio.MODEL_RATE_HZ, _BITRATE, complexity)
    encoder.set_expected_loss(expected_percent)
    whole = pcm[: pcm.size - pcm.size % audio.PACKET_SAMPLES]
    return [encoder.encode(block) for block in whole.reshape(-1, audio.PACKET_SAMPLES)]


def arrival_times(link: Link, packets: list[bytes]) -> list[tuple[float, int]]:
    """When each packet that arrives does so, and its number; one is sent every 20 ms."""
    sent = ((number * _PACKET_S, number) for number in range(len(packets)))
    return sorted((at, number) for now, number in sent for at in link.send(now, len(packets[number])))


def receive(receiver: Receiver, packets: list[bytes], arrivals: list[tuple[float, int]]) -> FloatArray:
    """All that comes out of a receiver that is polled exactly when it asks to be."""

    def blocks() -> Iterator[FloatArray]:
        for at, number in arrivals:
            yield from wait(at)
            yield from receiver.push(number, packets[number], at)
        yield from wait(len(packets) * _PACKET_S + _AFTERWARDS_S)

    def wait(until: float) -> Iterator[FloatArray]:
        while (due := receiver.deadline) is not None and due <= until:
            yield from receiver.poll(due)

    return np.concatenate([audio.silence(0), *blocks()])


def align(reference: FloatArray, heard: FloatArray) -> FloatArray:
    """``heard``, moved by up to a second to where it fits ``reference`` best, and made as long."""
    size = 1 << (reference.size + heard.size - 1).bit_length()
    fit = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(reference, size)), size)
    furthest = round(_MAX_SHIFT_S * audio.MODEL_RATE_HZ)
    shifts = np.arange(-furthest, furthest + 1)
    shift = int(shifts[np.argmax(fit[shifts])])
    moved = heard[shift:] if shift >= 0 else np.concatenate((audio.silence(-shift), heard))
    return np.pad(moved[: reference.size], (0, max(0, reference.size - moved.size)))


def judge(reference: FloatArray, heard: FloatArray) -> Score:
    """Both at 24 kHz, aligned, of the same length."""
    from pesq import pesq  # noqa: PLC0415 - optional
    from pystoi import stoi  # noqa: PLC0415 - optional

    first, second = (soxr.resample(pcm, audio.MODEL_RATE_HZ, JUDGE_HZ) for pcm in (reference, heard))
    return Score(pesq(JUDGE_HZ, first, second, "wb"), float(stoi(first, second, JUDGE_HZ)))


def _of(scores: list[Score], figure: Callable[[list[float]], float]) -> Score:
    return Score(figure([score.pesq for score in scores]), figure([score.stoi for score in scores]))


def _spread(scores: list[Score]) -> Score:
    return _of(scores, lambda values: max(values) - min(values))


def _cell(scores: list[Score]) -> str:
    middle = _of(scores, statistics.median)
    return f"{middle.pesq:.2f} / {middle.stoi:.2f}"

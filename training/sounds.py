"""What happens to speech before a server hears it: rooms, noise, telephones, lost packets; and sound that is no speech.

Owns the distortions of the training data, all of mono float32 at 24 kHz. Knows no words.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
import soxr

from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.media.g711 import ULAW

_TELEPHONE_HZ: Final = 8_000
_PACKET: Final = MODEL_RATE_HZ // 50
_LEVELS: Final = np.unique(ULAW.levels)
_STORED_S: Final = 40
_NOISES: Final = 40
_TUNES: Final = 24
_SIGNALS: Final = 12
_PIECE: Final = 1024
_SMOOTH: Final = 50
"""Coefficients of a cepstrum that say which formants there are; later ones, which pitch below 480 Hz."""
_MOST: Final = 2.0
"""By how much a harmonic becomes louder or softer, as a natural logarithm."""
_REPEATS: Final = 5
"""Of a tune in the store: to make all of it would take most of a minute, in every process."""

Generator = np.random.Generator


def noise(count: int, random: Generator) -> FloatArray:
    """``count`` samples of white, pink, brown or humming noise, with an RMS of one."""
    spectrum = np.fft.rfft(random.standard_normal(count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / MODEL_RATE_HZ), 20.0)
    spectrum *= frequency ** -random.choice([0.0, 0.25, 0.5, 0.75, 1.0])
    if random.random() < 0.3:  # rumble or hiss
        edge = random.uniform(300, 6000)
        spectrum *= 1 / (1 + (frequency / edge) ** 4) if random.random() < 0.5 else 1 / (1 + (edge / frequency) ** 4)
    pcm = np.fft.irfft(spectrum, count)
    pcm /= np.sqrt(np.mean(pcm**2)) + 1e-9
    if random.random() < 0.2:
        time = np.arange(count) / MODEL_RATE_HZ
        base = random.choice([50, 60, 100, 120])
        pcm += random.uniform(0.3, 2) * sum(np.sin(2 * np.pi * base * k * time) / k for k in range(1, 5))
    if random.random() < 0.2:  # clicks, as of a keyboard
        clicks = random.random(count) < 3 / MODEL_RATE_HZ
        pcm += np.convolve(clicks * random.normal(0, 20, count), np.exp(-np.arange(200) / 40), "same")
    return _unit(pcm)


def music(count: int, random: Generator) -> FloatArray:
    """``count`` samples of chords, melodies and a beat, with an RMS of one."""
    time = np.arange(count) / MODEL_RATE_HZ
    pcm = np.zeros(count)
    beat_s = random.uniform(0.25, 0.8)
    root = random.uniform(80, 300)
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16])
    harmonics = random.integers(1, 8)
    decay = random.uniform(0.5, 4)
    for start in np.arange(0, count / MODEL_RATE_HZ, beat_s):
        first = int(start * MODEL_RATE_HZ)
        here = time[: min(count - first, int(2 * beat_s * MODEL_RATE_HZ))]
        if len(here) == 0:
            break
        envelope = np.exp(-decay * here / beat_s) * np.minimum(1, here / 0.01)
        for _ in range(random.integers(1, 4)):
            pitch = root * 2 ** (random.choice(scale) / 12)
            vibrato = 1 + 0.003 * np.sin(2 * np.pi * 5 * here)
            tone = sum(np.sin(2 * np.pi * pitch * k * here * vibrato) / k for k in range(1, harmonics + 1))
            pcm[first : first + len(here)] += envelope * tone
        if random.random() < 0.5:
            hit = random.standard_normal(len(here)) * np.exp(-here * random.uniform(20, 80))
            pcm[first : first + len(here)] += random.uniform(0, 2) * hit
    return _unit(pcm)


def tones(count: int, random: Generator) -> FloatArray:
    """``count`` samples of tones that begin at once and stay, as of a device: one or a chord, steady or on and off,
    with an RMS of one."""
    time = np.arange(count) / MODEL_RATE_HZ
    pcm = np.zeros(count)
    at = 0
    while at < count:
        length = int(random.uniform(0.1, 4.0) * MODEL_RATE_HZ)
        here = time[at : at + length]
        root, harmonics = random.uniform(150, 1500), random.integers(1, 4)
        for ratio in random.choice([1, 5 / 4, 4 / 3, 3 / 2, 5 / 3, 2], random.integers(1, 5), replace=False):
            pcm[at : at + length] += sum(
                np.sin(2 * np.pi * root * ratio * k * here) / k for k in range(1, harmonics + 1)
            )
        at += length + (int(random.uniform(0.05, 1.0) * MODEL_RATE_HZ) if random.random() < 0.5 else 0)
    return _unit(pcm)


def sized(pcm: FloatArray, size: float) -> FloatArray:
    """As from a body of ``size``, a factor: pitch and formants together, and so the pace."""
    if size == 1.0:
        return pcm
    return np.asarray(soxr.resample(pcm, MODEL_RATE_HZ, MODEL_RATE_HZ * size, quality="LQ"), dtype=np.float32)


def shaped(pcm: FloatArray, shape: float) -> FloatArray:
    """As from a throat of another ``shape``: formants at so many times their frequency, at the same pitch and pace.

    Each piece of 43 ms keeps its harmonics; only how loud they are follows the smoothed spectrum, moved. That is what
    recognisers call a perturbation of the vocal tract's length.
    """
    if shape == 1.0:
        return pcm
    window = np.sqrt(np.hanning(_PIECE + 1)[:-1])
    hop = _PIECE // 4
    padded = np.pad(pcm, (_PIECE, 2 * _PIECE))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, _PIECE)[::hop]
    spectra = np.fft.rfft(pieces * window)
    cepstra = np.fft.irfft(np.log(np.abs(spectra) + 1e-5))
    cepstra[:, _SMOOTH : _PIECE - _SMOOTH + 1] = 0.0
    envelopes = np.fft.rfft(cepstra).real
    wanted = np.minimum(np.arange(_PIECE // 2 + 1) / shape, _PIECE // 2)
    lower = np.minimum(wanted.astype(int), _PIECE // 2 - 1)
    share = wanted - lower
    moved = envelopes[:, lower] * (1 - share) + envelopes[:, lower + 1] * share
    made = np.fft.irfft(spectra * np.exp(np.clip(moved - envelopes, -_MOST, _MOST))) * window
    whole = np.zeros(len(padded) + _PIECE)
    for index, piece in enumerate(made):
        whole[index * hop : index * hop + _PIECE] += piece
    return np.asarray(whole[_PIECE : _PIECE + len(pcm)] / 2, dtype=np.float32)


def room(pcm: FloatArray, random: Generator) -> FloatArray:
    """As heard across a small room."""
    length = int(random.uniform(0.05, 0.3) * MODEL_RATE_HZ)
    tail = random.standard_normal(length) * np.exp(-np.arange(length) / (length / 5))
    response = tail * random.uniform(0.02, 0.12)
    response[0] = 1.0
    size = 1 << int(np.ceil(np.log2(len(pcm) + length)))
    wet = np.fft.irfft(np.fft.rfft(pcm, size) * np.fft.rfft(response, size), size)[: len(pcm)]
    return np.asarray(wet, dtype=np.float32)


def coloured(pcm: FloatArray, random: Generator) -> FloatArray:
    """As a small microphone leaves it: without the lowest tones, with a tilt, a resonance and a gap."""
    size = 1 << int(np.ceil(np.log2(len(pcm))))
    spectrum, frequency = np.fft.rfft(pcm, size), np.maximum(np.fft.rfftfreq(size, 1 / MODEL_RATE_HZ), 1.0)
    edge, tilt_db = random.uniform(60, 300), random.uniform(-4, 4)
    response = 1 / np.sqrt(1 + (edge / frequency) ** 4) * 10 ** (tilt_db / 20 * np.log2(frequency / 1000).clip(-4, 4))
    for gain_db in (random.uniform(2, 8), random.uniform(-10, -2)):
        octaves = np.log2(frequency / np.exp(random.uniform(np.log(300), np.log(6000))))
        response *= 10 ** (gain_db / 20 * np.exp(-((octaves / random.uniform(0.2, 0.8)) ** 2)))
    made = np.fft.irfft(spectrum * response, size)[: len(pcm)]
    return np.asarray(made * (np.abs(pcm).max() / (np.abs(made).max() + 1e-9)), dtype=np.float32)


def controlled(pcm: FloatArray, random: Generator) -> FloatArray:
    """With a browser's gain control, which begins far too high, clips, and takes its time to come down."""
    over_db, settles_s = random.uniform(6, 20), random.uniform(0.15, 0.8)
    time = np.arange(len(pcm), dtype=np.float32) / MODEL_RATE_HZ
    begins = int(np.argmax(np.abs(pcm) > 0.1 * np.abs(pcm).max()))
    after = np.maximum(0.0, time - time[begins])
    loud = pcm * 10 ** (over_db / 20 * np.exp(-after / settles_s))
    most = max(0.05, float(np.abs(pcm).max())) * random.uniform(0.8, 1.3)
    return np.asarray(most * np.tanh(loud / most), dtype=np.float32)


def telephone(pcm: FloatArray) -> FloatArray:
    """Through 8 kHz and the mu-law of G.711, and back."""
    narrow = np.clip(soxr.resample(pcm, MODEL_RATE_HZ, _TELEPHONE_HZ), -1, 1)
    spectrum = np.fft.rfft(narrow)
    spectrum[np.fft.rfftfreq(len(narrow), 1 / _TELEPHONE_HZ) < 250] *= 0.1
    narrow = np.clip(np.fft.irfft(spectrum, len(narrow)), -1, 1)
    narrow = _LEVELS[np.searchsorted((_LEVELS[1:] + _LEVELS[:-1]) / 2, narrow)]
    wide = np.asarray(soxr.resample(narrow, _TELEPHONE_HZ, MODEL_RATE_HZ), dtype=np.float32)
    return np.pad(wide, (0, max(0, len(pcm) - len(wide))))[: len(pcm)]


def lose_packets(pcm: FloatArray, share: float, random: Generator) -> FloatArray:
    """With ``share`` of the packets of 20 ms gone, each concealed by what came before it, fading out."""
    packets = pcm[: len(pcm) // _PACKET * _PACKET].reshape(-1, _PACKET).copy()
    faded = 1.0
    for index in range(1, len(packets)):
        lost = random.random() < share
        faded = faded * 0.6 if lost else 1.0
        if lost:
            packets[index] = packets[index - 1] * (faded if faded < 0.6 else 0.8)
    return np.concatenate((packets.reshape(-1), pcm[packets.size :]))


def background(count: int, random: Generator, level_db: float) -> FloatArray:
    """Light noise, music or tones, at ``level_db`` against full scale: up to 40 s, cut from a store."""
    store = _store()
    pcm = store[random.integers(_NOISES, len(store)) if random.random() < 0.15 else random.integers(_NOISES)]
    first = int(random.integers(len(pcm) - count + 1))
    return np.asarray(pcm[first : first + count] * np.float32(10 ** (level_db / 20)), dtype=np.float32)


@cache
def _store() -> list[FloatArray]:
    """Noises, then pieces of music and tones: making them again for every clip would take longer than all the rest."""
    random = np.random.default_rng(0)
    count = _STORED_S * MODEL_RATE_HZ
    noises = [noise(count, random) for _ in range(_NOISES)]
    tunes = [np.tile(music(count // _REPEATS, random), _REPEATS) for _ in range(_TUNES)]
    return [*noises, *tunes, *(tones(count, random) for _ in range(_SIGNALS))]


def captured(pcm: FloatArray, random: Generator) -> FloatArray:
    """``pcm`` as a server may get it: louder or softer, in a room, with noise, by telephone, with packets lost."""
    pcm = pcm * np.float32(10 ** ((random.uniform(-16, 4) if random.random() < 0.8 else random.uniform(-38, -16)) / 20))
    if random.random() < 0.35:
        pcm = room(pcm, random)
    if random.random() < 0.4:
        pcm = coloured(pcm, random)
    if random.random() < 0.15:
        pcm = controlled(pcm, random)
    if random.random() < 0.8:
        loud = np.abs(pcm) > 0.05 * np.abs(pcm).max()
        level = np.sqrt(np.mean(pcm[loud] ** 2)) if np.any(loud) else 0.05
        snr_db = random.uniform(7, 45)
        pcm = pcm + background(len(pcm), random, 20 * np.log10(level + 1e-6) - snr_db)
    if random.random() < 0.3:
        pcm = telephone(pcm.astype(np.float32))
    if random.random() < 0.3:
        pcm = lose_packets(pcm, random.uniform(0.01, 0.12), random)
    return np.clip(pcm, -1, 1).astype(np.float32)


def _unit(pcm: np.ndarray[Any, Any]) -> FloatArray:
    return np.asarray(pcm / (np.sqrt(np.mean(pcm**2)) + 1e-9), dtype=np.float32)

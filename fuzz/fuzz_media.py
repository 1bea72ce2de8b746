"""``python -m fuzz.fuzz_media``: files to transcribe, through the processes that decode them, with their bounds.

Each is heard, or refused by name; and a sound one behind it is heard. What breaks FFmpeg costs its process alone, which
is what is held here: such an input is kept as ``artifacts/fuzz/contained-…`` for those who mend FFmpeg.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import time

import atheris

from fuzz.harness import FINDINGS, fuzz

with atheris.instrument_imports(include=["rtc_server.decoding.structure"]):
    from rtc_server.decoding.structure import parts_of

import numpy as np

from lab.inputs.files import encode, file_with, noise
from lab.inputs.mutations import seeds
from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.decoding.findings import REFUSALS, Refusal
from rtc_server.decoding.reader import Decoders, MediaReader
from rtc_server.decoding.wire import Limits
from rtc_server.errors import NotAudio, TooLarge

_LIMITS = Limits(cpu_s=5.0, stall_s=20.0)
_LONGEST_S = 60.0
_SOUND = encode(noise(0.2))
_SOUND_EVERY = 50
_CONTAINED = {REFUSALS[refusal] for refusal in (Refusal.CRASHED, Refusal.STALLED, Refusal.MEMORY)}


class Fuzzer:
    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._decoders = Decoders(_LIMITS)
        self._runs = 0

    def test_one(self, data: bytes) -> None:
        parts = parts_of(io.BytesIO(data))
        between = (data[before.end : after.start] for before, after in itertools.pairwise(parts))
        assert all(not gap or gap.startswith(b"ID3") for gap in between)
        assert all(before.end <= after.start for before, after in itertools.pairwise(parts))
        assert not parts or parts[-1].end == len(data)
        started = time.monotonic()
        self._runner.run(self._decode(data))
        assert time.monotonic() - started < _LONGEST_S
        self._runs += 1
        if self._runs % _SOUND_EVERY == 0:
            assert self._runner.run(self._decode(_SOUND)) == round(0.2 * MODEL_RATE_HZ)

    async def _decode(self, data: bytes) -> int:
        """Samples that are heard."""
        samples = 0
        with file_with(data) as file:
            try:
                async with MediaReader(self._decoders, file) as reader:
                    async for block in reader:
                        assert np.isfinite(block).all()
                        assert np.abs(block).max(initial=0) <= 1
                        samples += block.size
            except (NotAudio, TooLarge) as error:
                if error.message in _CONTAINED:
                    name = hashlib.sha256(data).hexdigest()[:16]
                    FINDINGS.mkdir(parents=True, exist_ok=True)
                    (FINDINGS / f"contained-{name}").write_bytes(data)
        return samples


if __name__ == "__main__":
    fuzz(Fuzzer().test_one, seeds())

"""Files that are nearly right, by the hundred: each is heard, or refused by name, and costs the next one nothing.

The same for hours: ``python -m fuzz.fuzz_media``.
"""

from __future__ import annotations

import itertools

import numpy as np

from lab.inputs.files import encode, file_with, noise
from lab.inputs.mutations import mutations, seeds
from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.decoding.reader import Decoders, MediaReader
from rtc_server.errors import NotAudio, TooLarge
from tests.decoding.test_reader import decoding, nursery_of

FILES = 150


async def fate(decoders: Decoders, data: bytes) -> str:
    """``heard``, or the code that it is refused with."""
    with file_with(data) as file:
        try:
            async with MediaReader(decoders, file) as reader:
                async for block in reader:
                    assert np.isfinite(block).all()
                    assert np.abs(block).max(initial=0) <= 1
        except (NotAudio, TooLarge) as error:
            return error.code
    return "heard"


async def test_seeds_are_heard() -> None:
    async with decoding() as decoders:
        fates = [await fate(decoders, data) for data in seeds()]
    assert fates == ["heard"] * (len(fates) - 1) + [fates[-1]]
    assert fates[-1] != "heard", "the one that is meant to be none"


async def test_whatever_a_file_is_it_is_heard_or_refused() -> None:
    async with decoding() as decoders:
        fates = {await fate(decoders, data) for data in itertools.islice(mutations(seeds(), seed=1), FILES)}
        assert {"heard", "not_audio"} <= fates <= {"heard", "not_audio", "file_unreadable", "too_large"}
        with file_with(encode(noise(1))) as file:
            async with MediaReader(decoders, file) as reader:
                assert sum([block.size async for block in reader]) == MODEL_RATE_HZ
        nursery = nursery_of(decoders)
        assert nursery is not None
        assert not nursery.children()
        assert nursery.memory_info().rss < 200 * 2**20

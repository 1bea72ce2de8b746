"""The bundled model that transcribes, as a checkpoint. What it writes: ``tests/training/test_dictation.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rtc_server import bundled
from rtc_server.engine.model import ServiceKind
from rtc_server.models.kyutai import model as kyutai
from rtc_server.models.kyutai.model import KyutaiModel
from rtc_server.models.kyutai.options import KyutaiOptions


@pytest.fixture(scope="module")
def model() -> Iterator[KyutaiModel]:
    loaded = kyutai.load(KyutaiOptions(model=bundled.PICO_STT, slots=1, threads=2))
    yield loaded
    loaded.close()


def test_it_is_a_checkpoint_like_any_other_and_small(model: KyutaiModel) -> None:
    directory = bundled.directory_of(bundled.PICO_STT)
    assert directory is not None
    assert model.info.kind is ServiceKind.TRANSCRIBE
    assert not model.info.speaks
    assert model.info.notice
    assert sum(path.stat().st_size for path in directory.iterdir()) < 8_000_000

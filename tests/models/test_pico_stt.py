"""The bundled models that transcribe, as checkpoints. What they write: ``tests/training/test_dictation*.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rtc_server import bundled
from rtc_server.engine.model import ServiceKind
from rtc_server.models.kyutai import model as kyutai
from rtc_server.models.kyutai.model import KyutaiModel
from rtc_server.models.kyutai.options import KyutaiOptions


@pytest.fixture(scope="module", params=[bundled.PICO_STT, bundled.PICO_STT_PT])
def model(request: pytest.FixtureRequest) -> Iterator[KyutaiModel]:
    loaded = kyutai.load(KyutaiOptions(model=request.param, slots=1, threads=2))
    yield loaded
    loaded.close()


def test_it_is_a_checkpoint_like_any_other_and_small(model: KyutaiModel) -> None:
    directory = bundled.directory_of(model.info.name)
    assert directory is not None
    assert model.info.kind is ServiceKind.TRANSCRIBE
    assert not model.info.speaks
    assert model.info.notice
    assert sum(path.stat().st_size for path in directory.iterdir()) < 8_000_000

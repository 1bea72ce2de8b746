"""What the published models translate while one speaks, and what is to be said of others."""

from __future__ import annotations

import pytest

from rtc_server.errors import ConfigError
from rtc_server.translation.simultaneous import HIBIKI, describe

ZERO = "kyutai/hibiki-zero-3b-pytorch-bf16"


@pytest.mark.parametrize("name", [HIBIKI, "kyutai/hibiki-2b-pytorch-bf16", "/models/hibiki-1b-pytorch-bf16/"])
def test_hibiki_translates_french(name: str) -> None:
    assert describe(name).targets == {"fr": "en"}
    assert "non-commercial" not in describe(name).notice


def test_hibiki_zero_translates_four_languages_and_not_for_commerce() -> None:
    assert describe(ZERO).targets == {"fr": "en", "es": "en", "pt": "en", "de": "en"}
    assert "non-commercial" in describe(ZERO).notice


def test_the_languages_of_another_model_are_said() -> None:
    assert describe("me/mine", ("it=en", "ja=de")).targets == {"it": "en", "ja": "de"}
    assert describe(ZERO, ("fr=en",)).targets == {"fr": "en"}
    assert "non-commercial" in describe(ZERO, ("fr=en",)).notice
    with pytest.raises(ConfigError, match="--simultaneous mine") as caught:
        describe("me/mine")
    assert "--simultaneous-pairs" in str(caught.value.hint)


@pytest.mark.parametrize("pair", ["fr", "fr=", "=en", "fr=fr", "French=en", "fr=en=de", "fr-FR=en"])
def test_what_is_no_pair_is_refused(pair: str) -> None:
    with pytest.raises(ConfigError, match="FROM=TO"):
        describe(HIBIKI, (pair,))

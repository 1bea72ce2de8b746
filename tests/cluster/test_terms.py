"""A pool's settings, as terms for each service."""

from __future__ import annotations

import pytest

from rtc_server.cluster.policy import Terms
from rtc_server.cluster.terms import terms_of
from rtc_server.config import PoolSettings
from rtc_server.errors import ConfigError

KNOWN = ("dialogue", "transcribe", "echo")
BOTH = ("dialogue", "transcribe")


def test_what_is_not_set_is_scale_to_zero_of_one_engine() -> None:
    assert terms_of(PoolSettings(), KNOWN) == {"dialogue": Terms(0, 1, 0, 300.0)}


def test_a_number_is_of_all_services_and_a_named_one_of_its_own() -> None:
    settings = PoolSettings(
        services=BOTH, min=("1",), max=("2", "dialogue=8"), spare_slots=("dialogue=3", "transcribe=0"), idle_s=("0.5",)
    )
    assert terms_of(settings, KNOWN) == {"dialogue": Terms(1, 8, 3, 0.5), "transcribe": Terms(1, 2, 0, 0.5)}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (PoolSettings(services=("dialog",)), "no service dialog"),
        (PoolSettings(min=("2",)), "--max of dialogue"),
        (PoolSettings(max=("0",)), "--max of dialogue"),
        (PoolSettings(max=("many",)), "'many' is not a number"),
        (PoolSettings(max=("1.5",)), "'1.5' is not a number"),
        (PoolSettings(max=("-1",)), "out of bounds"),
        (PoolSettings(idle_s=("nan",)), "out of bounds"),
        (PoolSettings(idle_s=("inf",)), "out of bounds"),
        (PoolSettings(max=("transcribe=2",)), "none of --services"),
        (PoolSettings(services=BOTH, max=("transcribe=2",)), "--max says nothing of dialogue"),
    ],
)
def test_what_cannot_be_meant_is_said(settings: PoolSettings, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        terms_of(settings, KNOWN)


def test_where_it_listens_is_checked() -> None:
    with pytest.raises(ConfigError, match="--pool-listen"):
        PoolSettings(pool_listen="here")

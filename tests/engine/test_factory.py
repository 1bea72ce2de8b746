"""A model's options keep their class and their values on the way to another process, and nothing else gets through."""

from __future__ import annotations

import gc

import msgspec
import pytest

from rtc_server.engine.factory import (
    ModelOptions,
    PackedOptions,
    SlotOptions,
    keep_for_life,
    make_model,
    pack,
    unpack,
)
from rtc_server.models.echo import EchoModel
from rtc_server.models.kyutai.options import KyutaiOptions


def over_the_wire(options: ModelOptions) -> ModelOptions:
    return unpack(msgspec.json.decode(msgspec.json.encode(pack(options)), type=PackedOptions))


@pytest.mark.parametrize(
    "options",
    [
        SlotOptions(64),
        KyutaiOptions("pico", 4),
        KyutaiOptions("Ä/b", 1, "cuda:1", "bfloat16", "int8", "float8", 750, 0.0, 0.7, 250, 25, 2**40, 2, 3.0, 99),
    ],
    ids=repr,
)
def test_options_survive_the_border_of_a_process(options: ModelOptions) -> None:
    arrived = over_the_wire(options)
    assert arrived == options
    assert type(arrived) is type(options)


@pytest.mark.parametrize(
    "wrong",
    [{}, {"slots": "4"}, {"slots": 4, "model": 7}, {"slots": 4, "model": "pico", "dtype": "int4"}, [], None],
    ids=repr,
)
def test_values_of_other_types_are_refused_where_they_arrive(wrong: object) -> None:
    kind = f"{KyutaiOptions.__module__}:{KyutaiOptions.__qualname__}"
    with pytest.raises(msgspec.ValidationError):
        unpack(PackedOptions(kind, msgspec.Raw(msgspec.json.encode(wrong))))


def test_a_model_is_made_with_its_options() -> None:
    model = make_model("rtc_server.models.echo:load", SlotOptions(3))
    assert isinstance(model, EchoModel)
    assert model.info.slots == 3


def test_what_a_process_has_for_life_is_not_looked_through_again() -> None:
    """A collection of all generations then takes no time that a conversation would notice."""
    try:
        model = make_model("rtc_server.models.echo:load", SlotOptions(3))
        keep_for_life()
        assert not any(each is model for each in gc.get_objects())
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
    assert any(each is model for each in gc.get_objects())

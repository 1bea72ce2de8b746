"""What the processes of one server are told."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.cli.process_group import _ports_of, count_of, settings_of_media_process
from rtc_server.config import Settings
from rtc_server.errors import ConfigError
from rtc_server.webrtc.ice import parse_ports


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda:1"])
def test_a_media_process_has_its_part_of_the_server_and_its_device(device: str) -> None:
    """A translator of utterances is each process's own: where the user wants no GPU to be used, none uses one."""
    settings = Settings(workers="2", translate="google/madlad400-3b-mt", device=device, echo_slots=33)
    own = settings_of_media_process(settings, {"dialogue": "127.0.0.1:9"}, Path("/run/key"), ["40-49", "50-59"], 1)
    assert own.device == device
    assert (own.engine_at, own.cluster_key) == (("dialogue=127.0.0.1:9",), "/run/key")
    assert (own.udp_ports, own.echo_slots) == ("50-59", 17)
    assert own.translate == settings.translate


def test_auto_is_one_media_process_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """That it may use, of those that the machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 4}, raising=False)
    assert count_of(Settings(workers="auto")) == 3
    assert count_of(Settings(workers="2")) == 2


@given(low=st.integers(1024, 65535), more=st.integers(0, 2000), count=st.integers(1, 64))
def test_each_media_process_has_ports_of_its_own_and_none_is_left(low: int, more: int, count: int) -> None:
    high = min(low + more, 65535)
    settings = Settings(udp_ports=f"{low}-{high}")
    if high - low + 1 < count:
        with pytest.raises(ConfigError, match="fewer than"):
            _ports_of(settings, count)
        return
    parts = [parse_ports(part) for part in _ports_of(settings, count)]
    assert list(chain.from_iterable(part or () for part in parts)) == list(range(low, high + 1))
    sizes = [len(part or ()) for part in parts]
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 1


def test_without_a_range_each_process_may_take_any_port() -> None:
    assert _ports_of(Settings(), 3) == ["", "", ""]

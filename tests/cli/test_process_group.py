"""What the processes of one server are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtc_server.cli.process_group import settings_of_media_process
from rtc_server.config import Settings


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda:1"])
def test_a_media_process_has_its_part_of_the_server_and_its_device(device: str) -> None:
    """A translator of utterances is each process's own: where the user wants no GPU to be used, none uses one."""
    settings = Settings(workers="2", translate="google/madlad400-3b-mt", device=device, echo_slots=33)
    own = settings_of_media_process(settings, {"dialogue": "127.0.0.1:9"}, Path("/run/key"), ["40-49", "50-59"], 1)
    assert own.device == device
    assert (own.engine_at, own.cluster_key) == (("dialogue=127.0.0.1:9",), "/run/key")
    assert (own.udp_ports, own.echo_slots) == ("50-59", 17)
    assert own.translate == settings.translate

"""The command that puts a bad network before a server."""

from __future__ import annotations

import pytest

from bench.impair import changed
from lab.network.link import LinkSettings, Outage


def test_settings_can_be_changed_by_name() -> None:
    """As the command line does it; what is no setting is refused."""
    found = changed(LinkSettings(loss=0.5), ["loss=0.05", "in_order=yes", "outage=5+2", "outage=1+1/10"])
    assert found == LinkSettings(loss=0.05, in_order=True, outages=(Outage(5, 2), Outage(1, 1, 10)))
    with pytest.raises(TypeError):
        changed(LinkSettings(), ["speed=1"])
    with pytest.raises(ValueError, match="could not convert"):
        changed(LinkSettings(), ["loss=much"])

"""What settings make of the access control, and with which of them no server starts."""

from __future__ import annotations

from typing import Any

import pytest

from rtc_server.access import credentials, keyfile
from rtc_server.config import Settings
from rtc_server.errors import ConfigError
from rtc_server.web.gate import make_access
from tests.support.gate import KEY
from tests.support.tokens import NOW


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.7", "voice.example.com"])
def test_a_server_for_others_says_who_may_come_in(host: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make_access(Settings(host=host))
    assert refused.value.hint is not None
    assert "--auth" in refused.value.hint
    assert "--allow-anonymous" in refused.value.hint
    assert make_access(Settings(host=host, allow_anonymous=True)).authenticator is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.parametrize(
    ("option", "proxied"),
    [
        ("--trusted-proxies", {"trusted_proxies": ("127.0.0.1",)}),
        ("--public-url", {"public_url": "https://voice.example.com"}),
    ],
)
def test_behind_a_proxy_others_reach_it_on_loopback_too(host: str, option: str, proxied: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=option):
        make_access(Settings(host=host, **proxied))
    assert make_access(Settings(host=host, **proxied, allow_anonymous=True)).authenticator is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_server_for_this_machine_need_not(host: str) -> None:
    access = make_access(Settings(host=host))
    assert access.authenticator is None
    assert not access.origins.is_ours("http://evil.example", "evil.example")
    assert access.origins.is_ours("http://localhost:1", "localhost:1")


def test_with_keys_or_for_a_network_names_are_believed(tmp_path: Any) -> None:
    path = tmp_path / "auth.toml"
    path.write_text(f'[[keys]]\nname = "a"\nhash = "{credentials.hash_of(KEY)}"\n')
    for settings in (Settings(auth=str(path)), Settings(host="0.0.0.0", allow_anonymous=True)):
        assert make_access(settings).origins.is_ours("http://voice.example", "voice.example")
    access = make_access(Settings(auth=str(path), host="0.0.0.0"), keyfile.load(path))
    assert access.authenticator is not None
    assert access.authenticator.authenticate(KEY, NOW).name == "key/a"


@pytest.mark.parametrize(("per_minute", "burst"), [(1, 10), (20, 10), (120, 60), (1000, 500)])
def test_how_many_offers_at_once(per_minute: int, burst: int) -> None:
    offers = make_access(Settings(offers_per_minute=per_minute)).offers
    assert sum(not offers.wait_s("a", 0.0) for _ in range(2000)) == burst


@pytest.mark.parametrize("wrong", [{"allow_origins": ("example.com",)}, {"trusted_proxies": ("proxy",)}])
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make_access(Settings(**wrong))

"""Variables that are meant for this server are known or refused; those of others are left alone."""

from __future__ import annotations

import pytest

from rtc_server.errors import ConfigError
from rtc_server.usage.environment import is_service_link, refuse_unknown

KNOWN = ["RTC_SERVER_AUTH", "RTC_SERVER_PORT", "RTC_SERVER_TURN_URLS", "RTC_SERVER_TURN_PORT"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("RTC_SERVER_AHTU", "RTC_SERVER_AUTH"),
        ("RTC_SERVER_AUTH_FILE", "RTC_SERVER_AUTH"),
        ("RTC_SERVER__AUTH", "RTC_SERVER_AUTH"),
        ("RTC_SERVER_AUTH_", "RTC_SERVER_AUTH"),
        ("RTC_SERVER_AUTH ", "RTC_SERVER_AUTH"),
        (" RTC_SERVER_AUTH", "RTC_SERVER_AUTH"),
        ("rtc_server_auth", "RTC_SERVER_AUTH"),
        ("Rtc_Server_Auth", "RTC_SERVER_AUTH"),
        ("RTC-SERVER-AUTH", "RTC_SERVER_AUTH"),
        ("RTC_SERVER-AUTH", "RTC_SERVER_AUTH"),
        ("RTC_SERVER.AUTH", "RTC_SERVER_AUTH"),
        ("RTCSERVER_AUTH", "RTC_SERVER_AUTH"),
        ("RTC_SERVERAUTH", "RTC_SERVER_AUTH"),
        ("RTC_SEVER_AUTH", "RTC_SERVER_AUTH"),
        ("RTC_SERVR_AHTU", "RTC_SERVER_AUTH"),
        ("RTC_SERVERS_AUTH", "RTC_SERVER_AUTH"),
        ("RCT_SERVER_AUTH", "RTC_SERVER_AUTH"),
        ("RTC_SERVER_TRUN_URLS", "RTC_SERVER_TURN_URLS"),
    ],
)
def test_a_misspelt_one_is_refused_with_the_one_that_was_meant(name: str, meant: str) -> None:
    with pytest.raises(ConfigError) as refused:
        refuse_unknown({"PATH": "/bin", name: "hush"}, KNOWN)
    assert name in refused.value.message
    assert "hush" not in refused.value.message
    assert refused.value.hint == f"Did you mean {meant}?"


def test_several_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        refuse_unknown({"RTC_SERVER_AHTU": "x", "RTC_SERVER_TURN_URL": "y", "RTC_SERVER_PORT": "1"}, KNOWN)
    assert refused.value.message.startswith("RTC_SERVER_AHTU, RTC_SERVER_TURN_URL in the environment are no settings")
    assert refused.value.hint == "Did you mean RTC_SERVER_AUTH, RTC_SERVER_TURN_URLS?"


def test_what_is_shown_is_bounded_and_printable() -> None:
    many = {f"RTC_SERVER_{'Z' * 500}{number}\x1b[2J": "" for number in range(100)}
    with pytest.raises(ConfigError) as refused:
        refuse_unknown(many, KNOWN)
    assert "and 95 more" in refused.value.message
    assert len(refused.value.message) < 800
    assert refused.value.message.isprintable()
    assert refused.value.hint == "rtc-server serve --help lists the settings; unset what is not one."


@pytest.mark.parametrize("name", [*KNOWN, "RTC_SERVER", "RTC_SERVER_"])
def test_what_is_known_is_taken(name: str) -> None:
    refuse_unknown({name: "x"}, KNOWN)


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "AUTH", "SERVER_AUTH", "", "RTC", "RTC_PORT", "RTCP_PORT", "RTC_WAKE"),
        *("RTP_SERVER_PORT", "RTSP_SERVER_PORT", "RPC_SERVER_AUTH", "RTC_SERVICE_URL", "WEBRTC_SERVER_URL"),
    ],
)
def test_those_of_others_are_left_alone(name: str) -> None:
    refuse_unknown({name: "x"}, KNOWN)


def test_those_that_container_platforms_set_for_a_service_of_this_name() -> None:
    refuse_unknown(
        {
            "RTC_SERVER_SERVICE_HOST": "10.0.0.7",
            "RTC_SERVER_SERVICE_PORT": "8080",
            "RTC_SERVER_SERVICE_PORT_HTTP": "8080",
            "RTC_SERVER_PORT": "tcp://10.0.0.7:8080",
            "RTC_SERVER_PORT_8080_TCP": "tcp://10.0.0.7:8080",
            "RTC_SERVER_PORT_8080_TCP_ADDR": "10.0.0.7",
            "RTC_SERVER_PORT_8080_TCP_PORT": "8080",
            "RTC_SERVER_PORT_8080_TCP_PROTO": "tcp",
            "RTC_SERVER_REDIS_PORT": "tcp://10.0.0.8:6379",
            "RTC_SERVER_REDIS_SERVICE_HOST": "10.0.0.8",
        },
        KNOWN,
    )
    assert is_service_link("tcp://10.0.0.7:8080")
    assert not is_service_link("8080")
    with pytest.raises(ConfigError):
        refuse_unknown({"RTC_SERVER_REDIS_PORT": "6379"}, KNOWN)

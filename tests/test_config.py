"""Settings: which source wins, every bound, and errors that name the option."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtc_server.config import (
    ENV_PREFIX,
    RENAMED,
    RelaySettings,
    Settings,
    add_arguments,
    from_arguments,
    parse,
    relay_from_arguments,
    state_directory,
)
from rtc_server.errors import ConfigError

FIELDS = {spec.name: spec for spec in dataclasses.fields(Settings)}
UNSET = {name: spec.metadata["unset"] for name, spec in FIELDS.items() if spec.metadata["unset"] is not None}
"""Numbers that stand for None in a text."""
TYPES: dict[str, Any] = {
    name: get_args(kind)[0] if name in UNSET else kind for name, kind in get_type_hints(Settings).items()
}
NUMBERS = [name for name, kind in TYPES.items() if kind in (int, float)]
CHOICES = [name for name, kind in TYPES.items() if get_origin(kind) is Literal]
LISTS = [name for name, kind in TYPES.items() if get_origin(kind) is tuple]
SECRETS = [name for name, spec in FIELDS.items() if spec.metadata["secret"]]
OPTIONS = [name for name in FIELDS if name not in SECRETS]
SWITCHES = [name for name, kind in TYPES.items() if kind is bool]
LOWER = [name for name in NUMBERS if FIELDS[name].metadata["low"] is not None]
UPPER = [name for name in NUMBERS if FIELDS[name].metadata["high"] is not None]


def option(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    return ENV_PREFIX + name.upper()


def another_value(name: str) -> tuple[str, Any]:
    """A legal value that is not the default: as text, and as it should be read."""
    default = FIELDS[name].metadata["low"] if name in UNSET else FIELDS[name].default
    if TYPES[name] is bool:
        return ("false", False) if default else ("true", True)
    if name in CHOICES:
        choice = next(choice for choice in get_args(TYPES[name]) if choice != default)
        return choice, choice
    if name in LISTS:
        return " a, ,b,", ("a", "b")
    if TYPES[name] is int:
        return str(default + 1), default + 1
    if TYPES[name] is float:
        value = default + 1.5 if default + 1.5 <= FIELDS[name].metadata["high"] else FIELDS[name].metadata["high"]
        return str(value), value
    text = {"device": "cuda:3", "node": "eu_1.a", "workers": "3", "kv_pages": "64"}.get(name, "somewhere")
    return text, text


def defaults_but(**changes: Any) -> Settings:
    return dataclasses.replace(Settings(), **changes)


def together(name: str) -> dict[str, str]:
    """What has to be set with a setting."""
    return {"tls_cert": {"tls_key": "elsewhere"}, "tls_key": {"tls_cert": "elsewhere"}}.get(name, {})


def written(name: str) -> str:
    """A default as the environment has it."""
    default = UNSET.get(name, FIELDS[name].default)
    return ",".join(default) if name in LISTS else str(default)


def test_the_tests_see_every_setting() -> None:
    strings = [name for name, kind in TYPES.items() if kind is str]
    assert set(FIELDS) == {*NUMBERS, *CHOICES, *SWITCHES, *LISTS, *strings}
    assert len(NUMBERS) > 15
    assert set(CHOICES) == {
        "log_level",
        "dtype",
        "quantize",
        "kv_dtype",
        "engine",
        "tls",
        "vad",
        "ws",
        "captions",
        "rooms",
    }
    assert len(LISTS) == 10
    assert SECRETS == ["redis_password", "turn_secret"]


def test_without_anything_the_defaults_hold() -> None:
    settings = parse([], environment={})
    assert settings == Settings()
    assert {name: getattr(settings, name) for name in FIELDS} == {name: spec.default for name, spec in FIELDS.items()}


def test_by_default_only_this_machine_is_served() -> None:
    assert Settings().host == "127.0.0.1"


@pytest.mark.parametrize("name", FIELDS)
def test_the_environment_sets_each(name: str) -> None:
    text, value = another_value(name)
    environment = {variable(key): other for key, other in {**together(name), name: text}.items()}
    assert parse([], environment) == defaults_but(**{**together(name), name: value})


@pytest.mark.parametrize("name", OPTIONS)
def test_the_command_line_sets_each_and_wins(name: str) -> None:
    """Over the environment, which says the default here."""
    text, value = another_value(name)
    argv = [option(name), text]
    if TYPES[name] is bool:
        argv = [option(name)] if value else [f"--no-{name.replace('_', '-')}"]
    environment = {variable(name): written(name)}
    for key, other in together(name).items():
        argv += [option(key), other]
    assert parse(argv, environment) == defaults_but(**{**together(name), name: value})


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_comes_from_the_environment_alone_and_is_not_shown(name: str) -> None:
    """Other users of the machine see every command line."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser)
    assert option(name) not in parser.format_help().split()
    with pytest.raises(SystemExit):
        parse([f"{option(name)}=hush"], {})
    settings = parse([], {variable(name): "hush"})
    assert getattr(settings, name) == "hush"
    assert "hush" not in repr(settings)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    ("text", "value"), [("", ()), (",", ()), ("a", ("a",)), ("a,b", ("a", "b")), (" a , b ", ("a", "b"))]
)
def test_a_list_is_separated_by_commas(name: str, text: str, value: tuple[str, ...]) -> None:
    assert getattr(parse([f"{option(name)}={text}"], {}), name) == value
    assert getattr(parse([], {variable(name): text}), name) == value


def test_a_certificate_has_a_key() -> None:
    for argv in (["--tls-cert", "a"], ["--tls-key", "a"]):
        with pytest.raises(ConfigError, match="--tls-cert and --tls-key go together"):
            parse(argv, {})


def test_a_certificate_is_one_of_two_kinds() -> None:
    with pytest.raises(ConfigError, match="--tls self-signed"):
        parse(["--tls-cert", "a", "--tls-key", "b", "--tls", "self-signed"], {})


@pytest.mark.parametrize("named", ["", "relative/path"])
def test_where_state_is_kept(named: str) -> None:
    assert state_directory({"XDG_STATE_HOME": "/var/tmp/x"}) == Path("/var/tmp/x/rtc-server")
    assert state_directory({"XDG_STATE_HOME": named}) == Path.home() / ".local/state/rtc-server"


def test_a_bad_environment_does_not_matter_where_the_command_line_speaks() -> None:
    assert parse(["--port", "9000"], {"RTC_SERVER_PORT": "none"}).port == 9000


def test_the_environment_of_others_is_left_alone() -> None:
    assert parse([], {"PORT": "1", "RTC_SERVER_": "x", "RTP_SERVER_PORT": "2", "TURN_URLS": "y"}) == Settings()


@pytest.mark.parametrize(
    ("name", "meant"), [("RTC_SERVER_TRUN_URLS", "RTC_SERVER_TURN_URLS"), ("RTC_SERVER_AHTU", "RTC_SERVER_AUTH")]
)
def test_a_misspelt_variable_is_refused_with_the_one_that_was_meant(name: str, meant: str) -> None:
    """By every command, and without what it is set to."""
    with pytest.raises(ConfigError, match=f"^{name} ") as refused:
        parse([], {name: "hush"})
    assert refused.value.hint == f"Did you mean {meant}?"
    assert "hush" not in f"{refused.value.message} {refused.value.hint}"
    with pytest.raises(ConfigError, match=f"^{name} "):
        relay_from_arguments(argparse.Namespace(), {name: "hush"})


def test_a_variable_of_another_command_is_none_of_this_ones() -> None:
    """Server and relay may share one file of variables."""
    assert parse([], {"RTC_SERVER_TURN_PORT": "4000"}) == Settings()
    assert relay_from_arguments(argparse.Namespace(), {"RTC_SERVER_PORT": "4000"}) == RelaySettings()


MAY_BE_EMPTY = {"udp_ports", "public_ip"}
TEXTS = [name for name, kind in TYPES.items() if kind is str and name not in MAY_BE_EMPTY]


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_set_to_nothing_is_refused(name: str) -> None:
    """RTC_SERVER_AUTH=$FILE without FILE would be an open server."""
    with pytest.raises(ConfigError, match=f"^{variable(name)} is empty"):
        parse([], {variable(name): ""})
    if name not in SECRETS:
        with pytest.raises(ConfigError, match=f"^{option(name)} is empty"):
            parse([f"{option(name)}="], {})


@pytest.mark.parametrize("name", sorted(MAY_BE_EMPTY))
def test_unless_nothing_is_what_can_be_meant(name: str) -> None:
    assert parse([], {variable(name): ""}) == Settings()


@pytest.mark.parametrize("name", [*TEXTS, *sorted(MAY_BE_EMPTY), *LISTS])
@pytest.mark.parametrize("text", ['"{}"', "'{}'", " {}", "{} ", "{}\r", "{}\x00"])
def test_what_is_around_a_value_or_in_it_by_mistake_is_refused(name: str, text: str) -> None:
    """As a file of variables with quotes in it, read by a program that leaves them there, or written on Windows."""
    odd = text.format("somewhere")
    if name in LISTS and odd.strip() == "somewhere":
        assert parse([], {variable(name): odd}) == defaults_but(**{name: ("somewhere",)})
        return
    with pytest.raises(ConfigError, match=f"^{variable(name)} has") as refused:
        parse([], {variable(name): odd})
    assert "somewhere" not in refused.value.message


def test_a_door_is_open_or_closed() -> None:
    with pytest.raises(ConfigError, match=r"--auth.*--allow-anonymous"):
        parse(["--auth", "keys.toml", "--allow-anonymous"], {})


def test_a_port_that_the_container_platform_sets() -> None:
    """Kubernetes sets RTC_SERVER_PORT for a service that is called rtc-server."""
    with pytest.raises(ConfigError) as refused:
        parse([], {"RTC_SERVER_PORT": "tcp://10.0.0.7:8080"})
    assert "enableServiceLinks" in (refused.value.hint or "")


def test_the_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTC_SERVER_PORT", "9123")
    assert parse([]).port == 9123


@pytest.mark.parametrize("name", LOWER)
def test_each_lower_bound(name: str) -> None:
    """The bound itself is allowed, less is refused with the option's name, also from the environment."""
    low = FIELDS[name].metadata["low"]
    assert getattr(dataclasses.replace(Settings(), **{name: low}), name) == low
    less = str(low - 1 if TYPES[name] is int else low - 0.001)
    if name in UNSET and TYPES[name] is int:
        less = str(UNSET[name] - 1)
    for argv, environment in (([f"{option(name)}={less}"], {}), ([], {variable(name): less})):
        with pytest.raises(ConfigError, match=f"{option(name)} must be at least"):
            parse(argv, environment)


def test_what_is_left_to_the_server_has_a_number_in_a_text() -> None:
    """And is None for the program: no number of its range says something else than itself."""
    assert {
        **dict.fromkeys(
            ("slots", "stt_slots", "simultaneous_slots", "threads", "context", "connecting_per_address"), 0
        ),
        **dict.fromkeys(("temperature", "text_temperature", "top_k", "text_top_k", "seed"), -1),
    } == UNSET
    for name, number in UNSET.items():
        assert FIELDS[name].default is None
        assert number < FIELDS[name].metadata["low"]
        for argv, environment in (([f"{option(name)}={number}"], {}), ([], {variable(name): str(number)})):
            assert parse(argv, environment) == Settings()
        assert parse([option(name), str(number)], {variable(name): another_value(name)[0]}) == Settings()
        with pytest.raises(ConfigError, match=f"at least {FIELDS[name].metadata['low']}, or {number}"):
            Settings(**{name: number})
    assert parse(["--temperature", "0"], {}).temperature == 0.0


@pytest.mark.parametrize("name", UPPER)
def test_each_upper_bound(name: str) -> None:
    high = FIELDS[name].metadata["high"]
    assert getattr(dataclasses.replace(Settings(), **{name: high}), name) == high
    more = str(high + 1 if TYPES[name] is int else high + 0.001)
    for argv, environment in (([f"{option(name)}={more}"], {}), ([], {variable(name): more})):
        with pytest.raises(ConfigError, match=f"{option(name)} must be at most"):
            parse(argv, environment)


def test_every_number_is_bounded_below() -> None:
    assert LOWER == NUMBERS
    assert set(NUMBERS) - set(UPPER) == {"seed"}


@pytest.mark.parametrize("name", [name for name in NUMBERS if TYPES[name] is float])
@pytest.mark.parametrize("text", ["nan", "-nan", "inf", "-inf", "1e999"])
def test_what_is_no_finite_number_is_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=option(name)):
        parse([f"{option(name)}={text}"], {})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["", "many", "0x10", "1,5", "1.5.0", "1_0", "\u0663", "9" * 5000])
def test_what_is_no_number_is_refused(name: str, text: str) -> None:
    """With the name that the user wrote, be it the option or the variable."""
    with pytest.raises(ConfigError, match=f"^{option(name)}"):
        parse([f"{option(name)}={text}"], {})
    with pytest.raises(ConfigError, match=f"^({variable(name)}|{option(name)})"):
        parse([], {variable(name): text})


@pytest.mark.parametrize("name", [name for name in NUMBERS if TYPES[name] is int])
def test_whole_numbers_are_whole(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{option(name)}.*whole number"):
        parse([option(name), "2.5"], {})


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_one_of_those_listed(name: str) -> None:
    for choice in get_args(TYPES[name]):
        assert getattr(parse([option(name), choice], {}), name) == choice
    with pytest.raises(ConfigError, match=f"{option(name)} must be one of: {', '.join(get_args(TYPES[name]))}"):
        parse([option(name), "other"], {})
    with pytest.raises(ConfigError, match=f"{variable(name)} must be one of"):
        parse([], {variable(name): "OTHER"})


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize(("text", "value"), [("1", True), ("Yes", True), ("ON", True), ("0", False), ("No", False)])
def test_a_switch_in_the_environment(name: str, text: str, value: bool) -> None:
    assert getattr(parse([], {variable(name): text}), name) is value


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("text", ["", "maybe", "2"])
def test_a_switch_is_on_or_off(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable(name)} must be true or false"):
        parse([], {variable(name): text})


@pytest.mark.parametrize("node", ["", "a-b", "a b", "a/b", "x" * 33, "é", "a\n"])
def test_a_node_name_fits_into_session_ids(node: str) -> None:
    """A dash in it would make an id ambiguous."""
    with pytest.raises(ConfigError, match="--node"):
        parse([f"--node={node}"], {})


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:x", "cpu:0", "cuda:0 "])
def test_a_device_is_one_that_torch_knows(device: str) -> None:
    with pytest.raises(ConfigError, match="--device"):
        parse([f"--device={device}"], {})


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices(device: str) -> None:
    assert parse(["--device", device], {}).device == device


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_every_option_is_explained_with_its_default() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = " ".join(parser.format_help().split())
    for name in OPTIONS:
        assert option(name) in text
        assert TYPES[name] is bool or not written(name) or f"(default: {written(name)})" in text


def test_arguments_of_another_command_are_ignored() -> None:
    """A subcommand's own options lie in the same namespace."""
    arguments = argparse.Namespace(command="serve", port="9001")
    assert from_arguments(arguments, {}) == dataclasses.replace(Settings(), port=9001)


@settings(deadline=None)
@given(name=st.sampled_from(sorted(FIELDS)), text=st.text(max_size=40))
def test_any_text_gives_settings_or_a_config_error(name: str, text: str) -> None:
    try:
        made = parse([], {variable(name): text})
    except ConfigError as error:
        named = error.message
    else:
        assert isinstance(made, Settings)
        return
    assert option(name) in named or variable(name) in named


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_of_a_setting_goes_on_working_and_says_so(
    old: str, new: str, caplog: pytest.LogCaptureFixture
) -> None:
    value = str(getattr(Settings(), new) + 1)
    for arguments, environment, called in (
        ([option(old), value], {}, (option(old), option(new))),
        ([], {variable(old): value}, (variable(old), variable(new))),
    ):
        caplog.clear()
        settings = parse(arguments, environment)
        assert settings == parse([option(new), value], {})
        assert settings != Settings()
        assert [record.args for record in caplog.records] == [called]


def test_the_command_line_wins_by_an_old_name_as_well() -> None:
    assert parse(["--max-session", "5"], {"RTC_SERVER_MAX_SESSION_S": "7"}).max_session_s == 5


def test_two_names_of_one_setting_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="--max-session-s and --max-session are one setting"):
        parse(["--max-session", "5", "--max-session-s", "5"], {})
    with pytest.raises(ConfigError, match="RTC_SERVER_BITRATE_BPS and RTC_SERVER_BITRATE are one setting"):
        parse([], {"RTC_SERVER_BITRATE": "16000", "RTC_SERVER_BITRATE_BPS": "16000"})


def test_every_number_with_a_unit_says_it() -> None:
    """A setting that is a time, a size or a rate says its unit in its name; what has none is a count or a share."""
    units = ("_s", "_ms", "_mb", "_bps", "_per_minute")
    assert {name for name in NUMBERS if not name.endswith(units)} == {
        *(
            "port",
            "seed",
            "threads",
            "context",
            "slots",
            "stt_slots",
            "simultaneous_slots",
            "echo_slots",
            "max_sessions",
            "max_waiting",
            "max_rooms",
        ),
        *("temperature", "text_temperature", "top_k", "text_top_k", "vad_threshold", "pause_threshold"),
        *("sessions_per_address", "connecting_per_address", "opus_complexity"),
    }


@pytest.mark.parametrize("text", ["-1", "1.5", "some", "1000000", "\u0663", "0x10"])
def test_pages_are_a_number_or_left_open(text: str) -> None:
    assert [parse(["--kv-pages", good], {}).kv_pages for good in ("auto", "0", "999999")] == ["auto", "0", "999999"]
    with pytest.raises(ConfigError, match=r"--kv-pages .* is neither auto nor a number"):
        parse([f"--kv-pages={text}"], {})


def test_who_is_translated_while_they_speak_is_in_a_room() -> None:
    model = ["--simultaneous", "kyutai/hibiki-1b-pytorch-bf16"]
    parse([*model, "--workers", "2"], environment={})
    with pytest.raises(ConfigError, match="--simultaneous"):
        parse([*model, "--rooms", "off"], environment={})


@pytest.mark.parametrize("arguments", [("--workers", "2"), ("--rooms", "off"), ("--redis", "redis://127.0.0.1:6379/0")])
def test_the_door_for_seamless_chat_is_one_process_with_rooms(arguments: tuple[str, str]) -> None:
    parse(["--seamless-door"], environment={})
    with pytest.raises(ConfigError, match="seamless-door"):
        parse(["--seamless-door", *arguments], environment={})

"""A wrong command line: one sentence, a hint, status 2, and no value of an option in either."""

from __future__ import annotations

import shlex

import pytest

from rtc_server.cli import main as cli
from rtc_server.config import SECRETS_ELSEWHERE


def refused(capsys: pytest.CaptureFixture[str], line: str) -> tuple[str, str]:
    """The error and the hint."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(shlex.split(line))
    shown = capsys.readouterr()
    assert (stopped.value.code, shown.out) == (2, "")
    error, hint = shown.err.splitlines()
    assert error.startswith("error: rtc-server")
    assert error.endswith((".", "?"))
    assert hint.startswith("hint: ")
    return error, hint


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("", "which command", "rtc-server serve"),
        ("sever", "Did you mean serve?", "--help"),
        ("--port 9000", "the command comes first", "rtc-server serve --port"),
        ("--port=9000", "the command comes first", "rtc-server serve --port."),
        ("serve --trun-urls x", "no option --trun-urls", "Did you mean --turn-urls?"),
        ("serve --turn_urls x", "no option --turn_urls", "Did you mean --turn-urls?"),
        ("serve --Port 1", "no option --Port", "Did you mean --port?"),
        ("serve -port 1", "no option -port", "Did you mean --port?"),
        ("serve --auht=x", "no option --auht", "Did you mean --auth?"),
        ("serve --por 1", "no option --por", "Did you mean --port?"),
        ("serve --zzzz", "no option --zzzz", "serve --help"),
        ("serve 8080", "'8080' is one argument too many", "serve --help"),
        ("serve -- a", "'a' is one argument too many", "serve --help"),
        ("serve --port", "--port: expected one argument", "serve --help"),
        ("serve --turn-port 1", "no option --turn-port here", "turn, turn-config"),
        ("serve --allow-anonymous=yes", "takes no value", "serve --help"),
        ("turn --model x", "no option --model here", "serve, check"),
        ("turn-credentials --turn-port 1", "no option --turn-port here", "turn, turn-config"),
        ("transcribe", "FILE", "transcribe --help"),
        ("transcribe a --port 1", "no option --port here", "serve, check"),
        ("transcribe a --format doc", "There are: json, txt, srt, vtt", "transcribe --help"),
        ("translate a", "--to", "translate --help"),
        ("translate a --to pt --port 1", "no option --port here", "serve, check"),
        ("transcribe a --format jsno", "Did you mean json?", "transcribe --help"),
        ("auth-key", "--name", "auth-key --help"),
        ("auth-key --name a --services moshi", "no service 'moshi'", "auth-key --help"),
        ("auth-key --name a --services dialog", "Did you mean dialogue?", "auth-key --help"),
        ("auth-key --name a --services ,", "none of the services", "auth-key --help"),
        ("auth-key --name a --max-session-s 0", "at least 1", "auth-key --help"),
        ("auth-token --ttl-s soon", "'soon' is not a number", "auth-token --help"),
    ],
)
def test_what_is_wrong_and_what_to_do(capsys: pytest.CaptureFixture[str], line: str, error: str, hint: str) -> None:
    said, advised = refused(capsys, line)
    assert error in said
    assert hint in advised


@pytest.mark.parametrize("line", ["serve --turn-secret hush", "serve --turn-secret=hush", "turn --turn-secret=hush"])
def test_a_secret_on_the_command_line(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """Others have seen it already; at least it does not go to the log as well."""
    error, hint = refused(capsys, line)
    assert "hush" not in error + hint
    assert hint == f"hint: {SECRETS_ELSEWHERE['--turn-secret']}"
    assert "RTC_SERVER_TURN_SECRET" in hint
    assert "--turn-secret-file" in hint


def helped(capsys: pytest.CaptureFixture[str], command: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "among", "not_among"),
    [
        ("serve", ["--port", "--turn-urls", "--auth"], ["--turn-port", "--format"]),
        ("transcribe", ["--stt", "--format", "--device"], ["--port", "--turn-urls", "--auth", "--tls", "--model"]),
        ("translate", ["--to", "--from", "--speech", "--stt", "--translate"], ["--port", "--model", "--output"]),
        ("turn", ["--turn-port", "--public-ip", "--turn-secret-file"], ["--model", "--auth", "--port", "--stt"]),
        ("turn-config", ["--turn-port", "--output"], ["--model", "--auth", "--port", "--turn-urls"]),
        ("turn-credentials", ["--turn-urls", "--user"], ["--model", "--turn-port", "--auth"]),
        ("auth-key", ["--name", "--auth"], ["--port"]),
    ],
)
def test_a_commands_help_lists_what_concerns_it(
    capsys: pytest.CaptureFixture[str], command: str, among: list[str], not_among: list[str]
) -> None:
    starts = [line.split()[0].rstrip(",") for line in helped(capsys, command).splitlines() if line.strip()]
    options = {word for word in starts if word.startswith("--")}
    assert set(among) <= options
    assert not set(not_among) & options


def test_the_help_names_services_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("auth-key", "auth-token"):
        text = helped(capsys, command)
        assert "as dialogue,transcribe" in text
        assert "moshi" not in text

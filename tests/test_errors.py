"""The error tree against the table of docs/protocol.md, section 4."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rtc_server import errors
from rtc_server.errors import ConfigError, IllegalTransition, ModelLoadError, ServerError, StartupError

PROTOCOL = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()
NO_STATUS = "–"

EXAMPLES: dict[type[ServerError], ServerError] = {
    errors.UnsupportedMediaType: errors.UnsupportedMediaType("application/json"),
    errors.TooLarge: errors.TooLarge(65536),
    errors.UnknownService: errors.UnknownService(("echo", "dialogue")),
    errors.MessageTooLarge: errors.MessageTooLarge(4096),
    errors.SessionEnded: errors.SessionEnded("time_limit", "It was open for four hours."),
    errors.UnknownLanguage: errors.UnknownLanguage(["en", "pt"]),
    errors.StartupError: StartupError("It cannot start.", "Do this."),
    errors.ConfigError: ConfigError("It cannot start.", "Do this."),
    errors.ModelLoadError: ModelLoadError("It cannot start.", "Do this."),
    errors.NoEngine: errors.NoEngine("There is no engine.", "Do this."),
    errors.IllegalTransition: IllegalTransition("session", "ended", "reset"),
}
"""Those that are not made without arguments."""
ABSTRACT = {ServerError, errors.Unavailable}


def classes(base: type[ServerError] = ServerError) -> list[type[ServerError]]:
    """``base`` and everything below it in the module."""
    below = [
        found for child in base.__subclasses__() for found in classes(child) if child.__module__ == base.__module__
    ]
    return [base, *below]


def table() -> dict[str, tuple[str, bool]]:
    """Section 4: code to status and whether a retry helps."""
    section = PROTOCOL.split("## 4. Error codes", 1)[1]
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}|–) \| (yes|no) \|", section, re.MULTILINE)
    return {code: (status, retryable == "yes") for code, status, retryable in rows}


PEER_ERRORS = [each for each in classes() if not issubclass(each, StartupError) and each not in ABSTRACT]


def example(kind: type[ServerError]) -> ServerError:
    return EXAMPLES.get(kind) or kind()


def test_the_table_is_read() -> None:
    assert len(table()) == 47
    assert table()["server_full"] == ("503", True)
    assert table()["bad_message"] == (NO_STATUS, False)


def test_every_code_of_the_table_has_a_class_and_the_other_way_round() -> None:
    assert {kind.code for kind in PEER_ERRORS} == set(table())


@pytest.mark.parametrize("kind", PEER_ERRORS, ids=lambda kind: kind.__name__)
def test_status_and_retryable_are_those_of_the_table(kind: type[ServerError]) -> None:
    status, retryable = table()[kind.code]
    assert kind.retryable is retryable
    assert status in (NO_STATUS, str(kind.http_status))


def test_each_class_has_a_code_of_its_own() -> None:
    """But for illegal transitions, which are a fault of ours to a peer and nothing more."""
    kinds = [kind for kind in classes() if kind not in ABSTRACT and kind is not IllegalTransition]
    codes = [kind.code for kind in kinds]
    assert sorted(codes) == sorted(set(codes))
    assert IllegalTransition.code == "internal"


def test_those_that_are_about_now_say_when_to_come_back() -> None:
    """``Retry-After`` goes with exactly the codes that section 1 names."""
    named = re.search(r"^((?:`\w+`(?:, | and )?)+)\s+come\s+with\s+`Retry-After`", PROTOCOL, re.MULTILINE)
    assert named is not None
    expected = set(re.findall(r"`(\w+)`", named.group(1)))
    assert {kind.code for kind in PEER_ERRORS if kind.retry_after_s is not None} == expected
    assert all(kind.retry_after_s > 0 for kind in PEER_ERRORS if kind.retry_after_s is not None)


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_each_has_a_sentence_and_reads_like_it(kind: type[ServerError]) -> None:
    error = example(kind)
    assert error.message
    assert str(error) == error.message
    assert error.as_dict() == {"code": kind.code, "message": error.message, "retryable": kind.retryable}


@pytest.mark.parametrize("kind", PEER_ERRORS, ids=lambda kind: kind.__name__)
def test_peers_get_a_sentence_made_for_them(kind: type[ServerError]) -> None:
    if kind is not IllegalTransition:
        assert example(kind).message[0].isupper()
        assert example(kind).message.endswith(".")


def test_a_message_of_ones_own_stays_with_that_error() -> None:
    assert errors.BadSdp("Too many sections.").message == "Too many sections."
    assert errors.BadSdp().message != "Too many sections."


def test_errors_keep_what_they_are_made_of() -> None:
    assert errors.TooLarge(65536).limit_bytes == 65536
    assert "65536" in errors.TooLarge(65536).message
    assert errors.MessageTooLarge(4096).limit_bytes == 4096
    assert errors.SessionEnded("bye").reason == "bye"
    assert errors.SessionEnded("bye").message == "The session has ended (bye)."
    assert errors.RateLimited(retry_after_s=7).retry_after_s == 7
    assert errors.RateLimited().retry_after_s == errors.RateLimited.retry_after_s
    assert errors.UnsupportedMediaType("identity", "No encodings.").message == "No encodings."
    assert errors.UnknownService(("echo", "dialogue")).known == ("echo", "dialogue")
    assert "echo, dialogue" in errors.UnknownService(("echo", "dialogue")).message
    assert "application/json" in errors.UnsupportedMediaType("application/json").message


def test_what_stops_the_start_has_a_hint_and_is_no_peers_business() -> None:
    error = ModelLoadError("There is no such model.", "Check the name.")
    assert error.hint == "Check the name."
    assert ConfigError("Wrong.").hint is None
    assert not {kind.code for kind in classes(StartupError)} & set(table())

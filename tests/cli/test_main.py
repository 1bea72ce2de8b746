"""The command line: keys and tokens that work, refusals with a hint, and what a server says of where it is."""

from __future__ import annotations

import dataclasses
import io
import os
import stat
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rtc_server.access import credentials, keyfile, principals
from rtc_server.app import Server
from rtc_server.cli import main as cli
from rtc_server.cli.announce import announce
from rtc_server.config import Settings
from rtc_server.engine.model import Example, ModelInfo, ServiceKind
from rtc_server.errors import Unauthorized

SECRET = "s" * 40


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTH", "HOST"):
        monkeypatch.delenv(f"RTC_SERVER_{name}", raising=False)


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text(SECRET + "\n")
    path = tmp_path / "auth.toml"
    path.write_text('[jwt]\nalgorithm = "HS256"\nsecret_file = "secret"\naudience = "voice"\n')
    return path


def made_key(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """The key and the lines for the file."""
    assert cli.main(["auth-key", *arguments]) == 0
    out = capsys.readouterr().out
    return out.split("\n\n")[1].strip(), out[out.rindex("[[keys]]\n") :]


def test_a_key_and_the_lines_that_go_with_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    key, lines = made_key(capsys, "--name", "kiosk", "--services", "echo, dialogue", "--max-session-s", "600")
    assert key not in lines
    path = tmp_path / "auth.toml"
    path.write_text(lines)
    found = keyfile.load(path).authenticate(key, time.time())
    assert found == principals.Principal("key/kiosk", frozenset({"echo", "dialogue"}), 600, operator=True)
    other, _ = made_key(capsys, "--name", "kiosk")
    assert other != key


def test_keys_are_added_to_the_file_of_the_server(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Which is made if need be, for its owner and its group; a key more changes nothing of it."""
    path = tmp_path / "auth.toml"
    mask = os.umask(0o077)
    try:
        keys = []
        for name in ("phone", "kiosk"):
            assert cli.main(["auth-key", "--name", name, "--auth", str(path)]) == 0
            shown = capsys.readouterr().out
            keys.append(shown.split("\n\n")[1].strip())
            assert "sha256" not in shown
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    door = keyfile.load(path)
    assert [door.authenticate(key, time.time()).name for key in keys] == ["key/phone", "key/kiosk"]
    path.chmod(0o600)
    path.write_text(path.read_text().rstrip("\n"))
    assert cli.main(["auth-key", "--name", "third", "--auth", str(path), "--services", "echo"]) == 0
    assert len(tomllib.loads(path.read_text())["keys"]) == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("before", "error"),
    [('[[keys]]\nname = "a"\nhash = "sha256:x"\n', "hash must be"), ("nonsense", "not TOML"), (None, "Cannot write")],
)
def test_a_file_that_is_wrong_is_left_as_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, before: str | None, error: str
) -> None:
    path = tmp_path / ("auth.toml" if before is not None else "nowhere/auth.toml")
    if before is not None:
        path.write_text(before)
    assert cli.main(["auth-key", "--name", "b", "--auth", str(path)]) == 1
    shown = capsys.readouterr()
    assert not shown.out, "no key that opens nothing"
    assert error in shown.err
    assert before is None or path.read_text() == before


def test_two_keys_of_one_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "auth.toml"
    assert cli.main(["auth-key", "--name", "a", "--auth", str(path)]) == 0
    before = path.read_text()
    assert cli.main(["auth-key", "--name", "a", "--auth", str(path)]) == 1
    assert "same name" in capsys.readouterr().err
    assert path.read_text() == before


@pytest.mark.parametrize("name", ['"', "\\", "a\nb", "é", "[[keys]]", "]", "😀", "\x7f", "\x1f", "\u2028"])
def test_any_name_makes_good_toml(capsys: pytest.CaptureFixture[str], name: str) -> None:
    _, lines = made_key(capsys, "--name", name)
    assert tomllib.loads(lines)["keys"][0]["name"] == name


def test_a_token(capsys: pytest.CaptureFixture[str], tokens_file: Path) -> None:
    arguments = ["--sub", "ada", "--services", "echo", "--ttl-s", "60", "--max-session-s", "30"]
    assert cli.main(["auth-token", "--auth", str(tokens_file), *arguments]) == 0
    token = capsys.readouterr().out.strip()
    door = keyfile.load(tokens_file)
    assert door.authenticate(token, time.time()) == principals.Principal("sub/ada", frozenset({"echo"}), 30)
    with pytest.raises(Unauthorized):
        door.authenticate(token, time.time() + 61 + credentials.DEFAULT_LEEWAY_S)


def test_the_file_may_be_named_in_the_environment(
    capsys: pytest.CaptureFixture[str], tokens_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTC_SERVER_AUTH", str(tokens_file))
    assert cli.main(["auth-token"]) == 0
    assert capsys.readouterr().out.count(".") == 2


def test_tokens_that_cannot_be_signed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(made_key(capsys, "--name", "a")[1])
    for arguments in ([], ["--auth", str(tmp_path / "nothing")], ["--auth", str(keys)]):
        assert cli.main(["auth-token", *arguments]) == 1
        shown = capsys.readouterr()
        assert not shown.out
        assert shown.err.startswith("error: ")


@pytest.mark.parametrize("ttl", ["0", "-1", "nan", "inf", "soon"])
def test_how_long_a_token_lives(ttl: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["auth-token", f"--ttl-s={ttl}"])
    assert stopped.value.code == 2


def test_a_server_for_others_that_has_nobody_at_the_door(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--model", "echo", "--host", "0.0.0.0", "--port", "0"]) == 1
    shown = capsys.readouterr().err
    assert "error: --host 0.0.0.0" in shown
    assert "hint: --auth FILE" in shown
    assert "--allow-anonymous" in shown


PRIMARY, PRIMARY_IPV6 = "192.168.1.7", "2001:db8::7"


class Certificate:
    def __init__(self, self_made: bool, names: list[str]) -> None:
        self.self_made = self_made
        self._names = names

    def names(self) -> list[str]:
        return self._names

    def sha256(self) -> str:
        return "AB:CD"


SELF_MADE = Certificate(True, ["localhost"])
BOUGHT = Certificate(False, ["*.example.com", "voice.example.com"])


@pytest.fixture(autouse=True)
def known_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.system.hardware.routed_addresses", lambda: [PRIMARY, PRIMARY_IPV6])


def announced(
    capsys: pytest.CaptureFixture[str],
    host: str,
    certificate: Certificate | None = None,
    port: int = 8080,
    public_url: str = "",
    addresses: tuple[str, ...] | None = None,
    rooms: object = None,
) -> str:
    server: Any = SimpleNamespace(
        settings=Settings(host=host, allow_anonymous=True, public_url=public_url),
        addresses=addresses or ((host, "0.0.0.0") if host == "::" else (host,)),
        port=port,
        certificate=certificate,
        engines={},
        rooms=rooms,
        admission=SimpleNamespace(default_service="moshi"),
    )
    announce(cast(Server, server))
    return capsys.readouterr().out


def announced_model(capsys: pytest.CaptureFixture[str], info: ModelInfo) -> str:
    server: Any = SimpleNamespace(
        settings=Settings(),
        addresses=("127.0.0.1",),
        port=8080,
        certificate=None,
        engines={"first": SimpleNamespace(service="first", info=info)},
        rooms=None,
        admission=SimpleNamespace(default_service="first"),
    )
    announce(cast(Server, server))
    return capsys.readouterr().out


def test_what_the_model_tells_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """And a few phrases to begin with."""
    info = ModelInfo("pico", ServiceKind.DIALOGUE, 4, "cpu", True, True)
    assert "Try saying" not in announced_model(capsys, info)
    examples = tuple(Example(word, (f"say {word}", "stop")) for word in ("one", "two", "three", "four"))
    notice = "It is small. " * 12
    told = dataclasses.replace(info, notice=notice.strip(), hint="make serve", examples=examples)
    out = announced_model(capsys, told)
    assert "service first: pico on cpu, 4 slots" in out
    assert " ".join(notice.split()) in " ".join(out.split())
    assert "\n    make serve\n" in out
    assert 'Try saying: "say one", "say two", "say three".\n' in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("host", "certificate", "port", "here", "others"),
    [
        ("127.0.0.1", None, 8080, "http://localhost:8080", None),
        ("::1", None, 8080, "http://localhost:8080", None),
        ("127.0.0.2", None, 80, "http://127.0.0.2", None),
        ("127.0.0.1", SELF_MADE, 8080, "https://localhost:8080", None),
        ("0.0.0.0", None, 8080, "http://localhost:8080", f"http://{PRIMARY}:8080"),
        (
            *("::", SELF_MADE, 8443, "https://localhost:8443"),
            f"https://{PRIMARY}:8443 or https://[{PRIMARY_IPV6}]:8443",
        ),
        ("0.0.0.0", SELF_MADE, 443, "https://localhost", f"https://{PRIMARY}"),
        ("0.0.0.0", BOUGHT, 443, "https://localhost", "https://voice.example.com"),
        ("192.168.1.7", SELF_MADE, 80, "https://192.168.1.7:80", "https://192.168.1.7:80"),
        ("2001:db8::7", None, 8080, "http://[2001:db8::7]:8080", "http://[2001:db8::7]:8080"),
    ],
)
def test_where_it_is(
    capsys: pytest.CaptureFixture[str],
    host: str,
    certificate: Certificate | None,
    port: int,
    here: str,
    others: str | None,
) -> None:
    out = announced(capsys, host, certificate, port)
    assert f"Open {here} in a browser" in out
    assert ("another machine" in out) is (others is not None)
    if others is not None:
        assert f"another machine: {others}\n" in out


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_where_a_proxy_shows_it(capsys: pytest.CaptureFixture[str], host: str) -> None:
    out = announced(capsys, host, public_url="https://example.com/voice")
    assert "Open http://localhost:8080 in a browser" in out
    assert "another machine: https://example.com/voice/\n" in out
    assert "without HTTPS" not in out
    assert "without HTTPS" in announced(capsys, host, public_url="http://example.com")


@pytest.mark.parametrize(
    ("host", "public_url", "address"),
    [
        ("127.0.0.1", "", "http://localhost:8080/rooms.html"),
        ("0.0.0.0", "", f"http://{PRIMARY}:8080/rooms.html"),
        ("0.0.0.0", "https://example.com/voice", "https://example.com/voice/rooms.html"),
    ],
)
def test_where_rooms_are(capsys: pytest.CaptureFixture[str], host: str, public_url: str, address: str) -> None:
    """At the address that others can reach; of a server without rooms nothing is said."""
    out = announced(capsys, host, public_url=public_url, rooms=object())
    assert f"\n  Translated rooms: {address}\n" in out
    assert "ooms" not in announced(capsys, host, public_url=public_url)


@pytest.mark.parametrize(
    ("host", "addresses", "here", "others"),
    [
        ("::", ("::",), "http://[::1]:8080", f"http://[{PRIMARY_IPV6}]:8080"),
        ("::", ("0.0.0.0",), "http://localhost:8080", f"http://{PRIMARY}:8080"),
        ("localhost", ("127.0.0.1", "::1"), "http://localhost:8080", None),
        ("laptop.lan", ("192.168.1.7",), "http://laptop.lan:8080", "http://laptop.lan:8080"),
        ("laptop", ("127.0.1.1",), "http://laptop:8080", None),
    ],
)
def test_what_is_printed_is_what_answers(
    capsys: pytest.CaptureFixture[str], host: str, addresses: tuple[str, ...], here: str, others: str | None
) -> None:
    """On machines without one of the families, and for names: Debian's own is a loopback address."""
    out = announced(capsys, host, addresses=addresses)
    assert f"Open {here} in a browser" in out
    assert (f"another machine: {others}\n" in out) if others else ("another machine" not in out)


def test_a_machine_without_a_network(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.system.hardware.routed_addresses", list)
    assert "another machine" not in announced(capsys, "0.0.0.0")


def test_the_warning_of_browsers_is_explained_where_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    assert "will warn" in announced(capsys, "0.0.0.0", SELF_MADE)
    assert "AB:CD" in announced(capsys, "127.0.0.1", SELF_MADE)
    assert "will warn" not in announced(capsys, "0.0.0.0", BOUGHT)
    assert "will warn" not in announced(capsys, "0.0.0.0")


def test_others_need_https_for_their_microphone(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--tls self-signed" in announced(capsys, "0.0.0.0")
    assert "--tls self-signed" not in announced(capsys, "127.0.0.1")
    assert "--tls self-signed" not in announced(capsys, "0.0.0.0", SELF_MADE)


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding: str = "utf-8", tty: bool = True) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    def text(self) -> str:
        self.flush()
        return cast(io.BytesIO, self.buffer).getvalue().decode(self.encoding)


@pytest.mark.parametrize(
    ("terminal", "drawn"), [(Terminal(), True), (Terminal(tty=False), False), (Terminal(encoding="ascii"), False)]
)
def test_a_code_for_phones_where_somebody_sees_it(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal, drawn: bool
) -> None:
    monkeypatch.setattr("sys.stdout", terminal)
    server: Any = SimpleNamespace(
        settings=Settings(host="0.0.0.0", allow_anonymous=True),
        addresses=("0.0.0.0",),
        port=8443,
        certificate=SELF_MADE,
        engines={},
        rooms=None,
        admission=SimpleNamespace(default_service="moshi"),
    )
    announce(cast(Server, server))
    assert ("█" in terminal.text()) is drawn
    assert f"https://{PRIMARY}:8443" in terminal.text()

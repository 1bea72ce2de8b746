"""The file of keys and tokens: what it says, and what is refused in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rtc_server.access import credentials, keyfile
from rtc_server.access.credentials import ALGORITHMS, Authenticator, TokenRules
from rtc_server.access.principals import Principal
from rtc_server.errors import ConfigError, Unauthorized
from tests.support.tokens import NOW, PRIVATE, RSA_KEY, RULES, SECRET, claims, public_pem, token


def private_pem(key: Any) -> bytes:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert isinstance(pem, bytes)
    return pem


KEY = "k" * 47


KEYS = f'[[keys]]\nname = "kiosk"\nhash = "{credentials.hash_of(KEY)}"\n'


JWT = '[jwt]\nalgorithm = "HS256"\nsecret_file = "secret"\naudience = "voice"\n'


def load(directory: Path, text: str) -> Authenticator:
    path = directory / "auth.toml"
    path.write_text(text)
    secret = directory / "secret"
    if not secret.exists():
        secret.write_bytes(SECRET)
        secret.chmod(0o600)
    return keyfile.load(path)


def test_a_file_of_keys(tmp_path: Path) -> None:
    other = credentials.new_key()
    text = (
        f'{KEYS}services = ["echo"]\nmax_session_s = 60\n[[keys]]\nname = "b"\nhash = "{credentials.hash_of(other)}"\n'
    )
    door = load(tmp_path, text)
    assert door.authenticate(KEY, NOW) == Principal("key/kiosk", frozenset({"echo"}), 60, operator=True)
    assert door.authenticate(other, NOW) == Principal("key/b", operator=True)
    assert door.tokens is None
    with pytest.raises(Unauthorized):
        door.authenticate(token(), NOW)


def test_a_file_of_tokens(tmp_path: Path) -> None:
    door = load(tmp_path, f'{JWT}issuer = "us"\nleeway_s = 5\nmax_age_s = 600\n')
    assert door.tokens == TokenRules("HS256", SECRET, "voice", "us", 5, 600)
    assert door.authenticate(token(iss="us", iat=NOW), NOW).name == "sub/ada"


def test_both(tmp_path: Path) -> None:
    door = load(tmp_path, KEYS + JWT)
    assert door.authenticate(KEY, NOW).operator
    assert not door.authenticate(token(), NOW).operator


def test_files_are_beside_the_file_and_a_line_break_is_no_part_of_a_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET + b"\r\n")
    assert load(tmp_path, JWT).tokens == RULES
    elsewhere = tmp_path / "other.secret"
    elsewhere.write_bytes(SECRET)
    assert load(tmp_path, JWT.replace('"secret"', f'"{elsewhere}"')).tokens == RULES


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_file_with_a_public_key(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "key.pem").write_bytes(public_pem(PRIVATE[algorithm]))
    text = f'[jwt]\nalgorithm = "{algorithm}"\npublic_key_file = "key.pem"\naudience = "voice"\n'
    signed = jwt.encode(claims(), PRIVATE[algorithm], algorithm=algorithm)
    assert load(tmp_path, text).authenticate(signed, NOW).name == "sub/ada"


def test_every_algorithm_is_tried() -> None:
    assert set(ALGORITHMS) == {"HS256", "HS384", "HS512", *PRIVATE}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nobody could come in"),
        ("keys", "not TOML"),
        ("\xff", "not TOML|no such setting"),
        ("keys = []", "nobody could come in"),
        ("keys = {}", "must be tables"),
        ("jwt = []", "must be a table"),
        ("[[key]]\n", r"no such setting: key\. Did you mean keys\?"),
        (KEYS.replace("name", "nmae"), "name is missing, and there is no setting nmae"),
        (KEYS + "max_sesion_s = 60", r"no such setting: max_sesion_s\. Did you mean max_session_s\?"),
        (KEYS + "operator = true", "no such setting: operator"),
        (KEYS + KEYS, "same name"),
        (KEYS + KEYS.replace("kiosk", "b"), "same hash"),
        ('[[keys]]\nname = "a"', "hash is missing"),
        (KEYS.replace('name = "kiosk"', ""), "name is missing"),
        (KEYS.replace("kiosk", ""), "1 to 256"),
        (KEYS.replace("sha256:", ""), "64 hexadecimal"),
        (KEYS.replace("sha256:", "md5:"), "64 hexadecimal"),
        (KEYS.replace("sha256:", "sha256:0"), "64 hexadecimal"),
        (f'[[keys]]\nname = "a"\nhash = "{KEY}"', "64 hexadecimal"),
        (KEYS + 'services = "echo"', "list of names"),
        (KEYS + "max_session_s = 0", "at least 1"),
        (KEYS + "max_session_s = inf", "at least 1"),
        (KEYS + "max_session_s = true", "at least 1"),
        (JWT.replace('algorithm = "HS256"', ""), "algorithm is missing"),
        (JWT.replace("HS256", "none"), "must be one of"),
        (JWT.replace("HS256", "hs256"), "must be one of"),
        (JWT.replace('"HS256"', '["HS256", "RS256"]'), "must be a text"),
        (JWT.replace('audience = "voice"', ""), "audience is missing"),
        (JWT.replace('secret_file = "secret"', ""), "goes with secret_file"),
        (JWT.replace('secret_file = "secret"', f'secret = "{"x" * 64}"'), "no such setting: secret"),
        (JWT + 'public_key_file = "secret"', "goes with secret_file"),
        (JWT.replace("HS256", "RS256"), "goes with public_key_file"),
        (JWT.replace('"secret"', '"nowhere"'), "Cannot read"),
        (JWT.replace('"secret"', '"short"'), "at least 32 bytes"),
        (JWT.replace('"secret"', '"rsa.pem"'), "not a secret"),
        (JWT + "leeway_s = -1", "at least 0"),
        (JWT + "leeway_s = 301", "at least 0 and at most 300"),
        (JWT + "max_age_s = 0", "at least 1"),
        (JWT.replace("HS256", "RS256").replace("secret_file", "public_key_file"), "not a public key"),
        (JWT.replace("HS256", "RS256").replace('secret_file = "secret"', 'public_key_file = "p256.pem"'), "RSA"),
        (JWT.replace("HS256", "RS256").replace('secret_file = "secret"', 'public_key_file = "weak.pem"'), "2048"),
        (JWT.replace("HS256", "ES256").replace('secret_file = "secret"', 'public_key_file = "p384.pem"'), "secp256r1"),
        (JWT.replace("HS256", "EdDSA").replace('secret_file = "secret"', 'public_key_file = "p256.pem"'), "Ed25519"),
        (JWT.replace("HS256", "ES256").replace('secret_file = "secret"', 'public_key_file = "private.pem"'), "public"),
    ],
)
def test_a_file_that_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """With words for its author, and no secret in them."""
    (tmp_path / "short").write_bytes(b"secret" * 5)
    (tmp_path / "rsa.pem").write_bytes(public_pem(RSA_KEY))
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    (tmp_path / "weak.pem").write_bytes(public_pem(weak))
    (tmp_path / "p256.pem").write_bytes(public_pem(PRIVATE["ES256"]))
    (tmp_path / "p384.pem").write_bytes(public_pem(PRIVATE["ES384"]))
    (tmp_path / "private.pem").write_bytes(private_pem(PRIVATE["ES256"]))
    with pytest.raises(ConfigError, match=words) as refused:
        load(tmp_path, text)
    assert "auth.toml" in refused.value.message or "Cannot read" in refused.value.message
    assert "secretsecret" not in refused.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read"):
        keyfile.load(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="Cannot read"):
        keyfile.load(tmp_path)


def test_a_secret_that_everybody_can_read_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(tmp_path, JWT)
    assert not caplog.records
    (tmp_path / "secret").chmod(0o644)
    load(tmp_path, JWT)
    assert "can be read by everybody" in caplog.text


def test_a_file_that_an_editor_of_windows_has_written(tmp_path: Path) -> None:
    """With a mark at its beginning, and other line ends."""
    path = tmp_path / "auth.toml"
    path.write_bytes(b"\xef\xbb\xbf" + KEYS.replace("\n", "\r\n").encode())
    assert keyfile.load(path).authenticate(KEY, NOW).name == "key/kiosk"


def test_a_key_in_the_place_of_the_file_is_not_repeated() -> None:
    """What stops the start goes to a log."""
    for credential in (credentials.new_key(), token(), f"ek_{token()}"):
        with pytest.raises(ConfigError, match="was given a key") as refused:
            keyfile.load(Path(credential))
        assert credential[:20] not in refused.value.message
    with pytest.raises(ConfigError, match=r"rtc_keys\.toml"):
        keyfile.load(Path("rtc_keys.toml"))

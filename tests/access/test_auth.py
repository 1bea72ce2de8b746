"""Keys and tokens: which open the door, which do not, and which files of them are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.access import credentials, keyfile
from rtc_server.access.credentials import ALGORITHMS, Authenticator, Key, TokenRules
from rtc_server.access.principals import ANONYMOUS, NOBODY, Principal
from rtc_server.errors import ConfigError, Unauthorized

NOW = 1_800_000_000.0
SECRET = b"s" * 64
AUDIENCE = "voice"
RULES = TokenRules("HS256", SECRET, AUDIENCE)
STRICT = TokenRules("HS256", SECRET, AUDIENCE, leeway_s=0)
KIOSK = Principal("key/kiosk", operator=True)

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
PRIVATE: dict[str, Any] = {
    **{name: RSA_KEY for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")},
    **{name: ec.generate_private_key(curve) for name, curve in CURVES.items()},
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def public_pem(key: Any) -> bytes:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert isinstance(pem, bytes)
    return pem


def private_pem(key: Any) -> bytes:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert isinstance(pem, bytes)
    return pem


def claims(**changes: Any) -> dict[str, Any]:
    """Good ones, changed; ``...`` takes one out."""
    made = {"exp": NOW + 60, "aud": AUDIENCE, "sub": "ada", **changes}
    return {name: value for name, value in made.items() if value is not ...}


def token(secret: bytes = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    """Signed here and not by PyJWT, which does not write everything that a stranger may."""
    digests = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}

    def encode(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    head = encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    signed = f"{head}.{encode(json.dumps(claims(**changes)).encode())}"
    signature = b"" if algorithm == "none" else hmac.new(secret, signed.encode(), digests[algorithm]).digest()
    return f"{signed}.{encode(signature)}"


def holder(credential: str, rules: TokenRules = RULES, now: float = NOW) -> Principal:
    return Authenticator([], rules).authenticate(credential, now)


def assert_refused(credential: str, rules: TokenRules = RULES, now: float = NOW) -> None:
    with pytest.raises(Unauthorized) as refused:
        holder(credential, rules, now)
    assert refused.value.message == Unauthorized().message, "it does not say why"


def test_a_key_opens_and_is_an_operators() -> None:
    key = credentials.new_key()
    digest = bytes.fromhex(credentials.hash_of(key).removeprefix("sha256:"))
    others = [Key(hashlib.sha256(b"other%d" % n).digest(), Principal(f"key/{n}")) for n in range(5)]
    door = Authenticator([*others, Key(digest, KIOSK)])
    assert door.authenticate(key, NOW) is KIOSK
    for wrong in ("", key[:-1], key + "x", key.swapcase(), credentials.hash_of(key), digest.hex(), "é", "\0", "\ud800"):
        with pytest.raises(Unauthorized):
            door.authenticate(wrong, NOW)


def test_a_key_is_256_random_bits_that_fit_into_every_header() -> None:
    keys = {credentials.new_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert re.fullmatch(r"rtc_[A-Za-z0-9_-]{43}", key)


def test_services() -> None:
    assert Principal("a").may_use("echo")
    assert Principal("a", frozenset({"echo"})).may_use("echo")
    assert not Principal("a", frozenset({"echo"})).may_use("moshi")
    assert not NOBODY.may_use("echo")
    assert not NOBODY.operator
    assert ANONYMOUS.may_use("echo")
    assert ANONYMOUS.operator


def test_a_token_opens_and_is_no_operators() -> None:
    assert holder(token()) == Principal("sub/ada")
    found = holder(token(services=["echo"], max_session_s=60))
    assert found == Principal("sub/ada", frozenset({"echo"}), 60)
    assert not found.may_use("moshi")


def test_one_of_no_subject_is_told_from_any_other() -> None:
    names = {holder(token(sub=..., jti=str(number))).name for number in range(3)}
    assert len(names) == 3
    assert all(name.startswith("token/") for name in names)


def test_a_subject_is_not_taken_for_a_key_of_that_name() -> None:
    assert holder(token(sub="kiosk")) != KIOSK
    assert holder(token(sub="key/kiosk")).name != KIOSK.name


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS384", "HS512"])
def test_the_token_does_not_choose_the_algorithm(algorithm: str) -> None:
    if algorithm.lower() == "none":
        signed = token(algorithm="none").split(".")
        head = base64.urlsafe_b64encode(json.dumps({"alg": algorithm}).encode()).rstrip(b"=").decode()
        assert_refused(".".join([head, *signed[1:]]))
        assert_refused(".".join([head, signed[1], token().split(".")[2]]))
    else:
        assert_refused(token(algorithm=algorithm))


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_public_key_is_no_secret(algorithm: str) -> None:
    """The server's public key is known to all; a token that says HS256 must not be checked with it."""
    pem = public_pem(PRIVATE[algorithm])
    rules = TokenRules(algorithm, pem, AUDIENCE)
    assert_refused(token(secret=pem), rules)
    assert_refused(token(secret=pem.strip()), rules)


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_each_algorithm_of_key_pairs(algorithm: str) -> None:
    rules = TokenRules(algorithm, public_pem(PRIVATE[algorithm]), AUDIENCE)
    signed = jwt.encode(claims(), PRIVATE[algorithm], algorithm=algorithm)
    assert holder(signed, rules).name == "sub/ada"
    assert_refused(signed[:-5] + "AAAAA", rules)
    assert_refused(token(), rules)


def test_other_rsa_paddings_are_other_algorithms() -> None:
    rules = TokenRules("RS256", public_pem(RSA_KEY), AUDIENCE)
    assert_refused(jwt.encode(claims(), RSA_KEY, algorithm="PS256"), rules)


def test_another_secret() -> None:
    assert_refused(token(secret=b"t" * 64))


def test_a_token_that_was_changed() -> None:
    head, body, signature = token(services=["echo"]).split(".")
    other = token(services=["moshi"]).split(".")[1]
    assert_refused(f"{head}.{other}.{signature}")
    assert_refused(f"{head}.{body}.")
    assert_refused(f"{head}.{body}")


def test_a_token_names_no_key_of_its_own() -> None:
    """RFC 8725, section 3.10: ``jku`` and the like are wishes of whoever made the token."""
    for header in ({"jku": "http://127.0.0.1:1/"}, {"kid": "../../dev/null"}, {"jwk": {"kty": "oct", "k": "AAAA"}}):
        assert_refused(jwt.encode(claims(), b"\0" * 32, algorithm="HS256", headers=header))
    assert_refused(jwt.encode(claims(), SECRET, algorithm="HS256", headers={"crit": ["x"], "x": 1}))


@pytest.mark.parametrize("exp", [..., None, "soon", [], {}, True, float("nan"), float("inf"), 10**400, "1e99"])
def test_a_token_expires(exp: Any) -> None:
    """That it does is not left to its maker."""
    assert_refused(token(exp=exp))


@pytest.mark.parametrize(
    ("rules", "changes", "first", "last"),
    [
        (STRICT, {"exp": NOW}, None, NOW),
        (STRICT, {"exp": NOW + 0.5}, None, NOW + 0.5),
        (STRICT, {"nbf": NOW, "exp": NOW + 9}, NOW, NOW + 9),
        (STRICT, {"iat": NOW, "exp": NOW + 9}, NOW, NOW + 9),
        (RULES, {"exp": NOW}, None, NOW + 10),
        (RULES, {"iat": NOW, "nbf": NOW, "exp": NOW + 9}, NOW - 10, NOW + 19),
        (TokenRules("HS256", SECRET, AUDIENCE, leeway_s=5), {"exp": NOW}, None, NOW + 5),
        (TokenRules("HS256", SECRET, AUDIENCE, leeway_s=5), {"nbf": NOW, "exp": NOW + 9}, NOW - 5, NOW + 14),
        (TokenRules("HS256", SECRET, AUDIENCE, leeway_s=5), {"iat": NOW, "exp": NOW + 9}, NOW - 5, NOW + 14),
    ],
)
def test_when_a_token_is_good(rules: TokenRules, changes: dict[str, Any], first: float | None, last: float) -> None:
    """From ``first`` on, and before ``last``: to the instant."""
    made = token(**changes)
    assert holder(made, rules, last - 0.001)
    assert_refused(made, rules, last)
    if first is not None:
        assert holder(made, rules, first)
        assert_refused(made, rules, first - 0.001)


def test_a_token_may_be_too_old() -> None:
    """Whatever its maker says of when it expires."""
    rules = TokenRules("HS256", SECRET, AUDIENCE, leeway_s=1, max_age_s=100)
    made = token(iat=NOW, exp=NOW + 10_000)
    assert holder(made, rules, NOW + 101)
    assert_refused(made, rules, NOW + 101.1)
    assert_refused(token(exp=NOW + 10_000), rules)


@pytest.mark.parametrize("audience", [..., None, "", "other", ["other"], [], {"voice": 1}, "Voice", ["voice", 1]])
def test_a_token_for_somebody_else(audience: Any) -> None:
    assert_refused(token(aud=audience))


def test_a_token_for_several() -> None:
    assert holder(token(aud=["other", AUDIENCE]))


def test_an_issuer() -> None:
    rules = TokenRules("HS256", SECRET, AUDIENCE, issuer="us")
    assert holder(token(iss="us"), rules)
    for wrong in (..., "them", None, 1, ["us"]):
        assert_refused(token(iss=wrong), rules)
    assert holder(token(iss="anybody"))


@pytest.mark.parametrize(
    "changes",
    [
        *({"services": wrong} for wrong in ("echo", [1], {"echo": 1}, [["echo"]], ["x"] * 65, True)),
        *({"max_session_s": wrong} for wrong in (0, -1, "60", True, [60], float("nan"), 10**400)),
        *({"sub": wrong} for wrong in (1, ["ada"], {}, "a" * 257)),
        *({name: wrong} for name in ("nbf", "iat") for wrong in ("0", None, True, float("nan"), [])),
    ],
    ids=repr,
)
def test_a_claim_that_is_not_what_it_should_be(changes: dict[str, Any]) -> None:
    """A limit that cannot be read is not taken for none."""
    assert_refused(token(**changes))


def test_nothing_allowed_is_not_everything() -> None:
    assert not holder(token(services=[])).may_use("echo")


def test_a_token_that_is_too_long() -> None:
    assert holder(token(pad="x" * 2800))
    long = token(pad="x" * 3200)
    assert len(long) > credentials.MAX_CREDENTIAL_BYTES
    assert_refused(long)


@given(st.text(max_size=200) | st.from_regex(r"[\w-]{0,60}\.[\w-]{0,60}\.[\w-]{0,60}", fullmatch=True))
def test_any_text_is_no_token(text: str) -> None:
    with pytest.raises(Unauthorized):
        holder(text)


@given(
    st.dictionaries(
        st.sampled_from(["exp", "nbf", "iat", "aud", "iss", "sub", "services", "max_session_s", "jti"]),
        st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9), st.lists),
    )
)
def test_any_signed_claims_open_or_do_not(changes: dict[str, Any]) -> None:
    """A principal or Unauthorized: no other error, whatever the signer is."""
    try:
        assert holder(token(**changes)).operator is False
    except Unauthorized:
        return


def test_secrets_are_not_shown() -> None:
    assert "sss" not in repr(RULES)


def test_a_token_made_here_is_taken_here() -> None:
    rules = TokenRules("HS256", SECRET, AUDIENCE, issuer="us", max_age_s=100)
    made = credentials.sign_token(rules, NOW, 60, "ada", ["moshi", "echo"], 90)
    assert holder(made, rules) == Principal("sub/ada", frozenset({"echo", "moshi"}), 90)
    assert_refused(made, rules, NOW + 60 + rules.leeway_s)
    assert holder(credentials.sign_token(RULES, NOW, 60)).services is None


def test_no_token_can_be_made_without_the_private_key() -> None:
    with pytest.raises(ConfigError, match="private key") as refused:
        credentials.sign_token(TokenRules("ES256", public_pem(PRIVATE["ES256"]), AUDIENCE), NOW, 60)
    assert refused.value.hint


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

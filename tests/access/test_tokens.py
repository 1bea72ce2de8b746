"""Tokens: which of them open, for how long, and what no signed or unsigned text may do."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.access import credentials
from rtc_server.access.credentials import Authenticator, TokenRules
from rtc_server.access.principals import Principal
from rtc_server.errors import ConfigError, Unauthorized
from tests.support.tokens import AUDIENCE, KIOSK, NOW, PRIVATE, RSA_KEY, RULES, SECRET, claims, public_pem, token

STRICT = TokenRules("HS256", SECRET, AUDIENCE, leeway_s=0)


def holder(credential: str, rules: TokenRules = RULES, now: float = NOW) -> Principal:
    return Authenticator([], rules).authenticate(credential, now)


def assert_refused(credential: str, rules: TokenRules = RULES, now: float = NOW) -> None:
    with pytest.raises(Unauthorized) as refused:
        holder(credential, rules, now)
    assert refused.value.message == Unauthorized().message, "it does not say why"


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

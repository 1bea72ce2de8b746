"""What a session leaves behind for another media node, and the key to it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.engine.messages import MEMO_BYTES
from rtc_server.errors import ResumeRefused
from rtc_server.sessions import memo
from rtc_server.sessions.memo import RESERVED, Memo

SECONDS = st.floats(0, 1e9)
MEMOS = st.builds(
    Memo, st.booleans(), st.integers(250, 10_000), st.booleans(), st.integers(0, 2**53), SECONDS, st.none() | SECONDS
)


@given(MEMOS)
def test_it_comes_back_as_it_was_and_is_small(written: Memo) -> None:
    raw = memo.write(written)
    assert memo.read(raw) == written
    assert len(raw) < MEMO_BYTES / 4


@given(st.binary(max_size=100))
def test_anything_else_is_no_session(raw: bytes) -> None:
    with contextlib.suppress(ResumeRefused):
        assert isinstance(memo.read(raw), Memo)


@pytest.mark.parametrize("raw", [b"", memo.write(Memo(False, 1, True, 0, 0.0, None)), b"\x91\xc0"])
def test_what_is_out_of_its_bounds_is_refused(raw: bytes) -> None:
    with pytest.raises(ResumeRefused):
        memo.read(raw)


def test_it_is_written_again_before_its_numbers_are_used() -> None:
    written = Memo(False, 1000, True, 100 + RESERVED, 0.0, None)
    assert written.covers(100)
    assert written.covers(100 + RESERVED // 2)
    assert not written.covers(101 + RESERVED // 2)


def test_the_key_is_of_one_token_of_one_session_of_one_client() -> None:
    keys = {
        memo.slot_key("token", "session", "key/ada"),
        memo.slot_key("Token", "session", "key/ada"),
        memo.slot_key("token", "session2", "key/ada"),
        memo.slot_key("token", "session", "key/bob"),
        memo.slot_key("tokensession", "", "key/ada"),
        memo.slot_key("", "tokensession", "key/ada"),
        memo.slot_key("\ud800", "session", "key/ada"),
    }
    assert len(keys) == 7
    assert {len(key) for key in keys} == {32}
    assert memo.slot_key("token", "session", "key/ada") in keys

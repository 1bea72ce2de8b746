"""``python -m fuzz.fuzz_messages``: data-channel messages. Each is understood, or refused with a BadMessage."""

from __future__ import annotations

import atheris

from fuzz.harness import fuzz

with atheris.instrument_imports(include=["rtc_server"]):
    from rtc_server.errors import BadMessage
    from rtc_server.protocols.events import Bye, Ping, Pong, Reset, Settings, encode_event, parse_client_message

_SEEDS = (
    b'{"type":"settings","muted":true,"stats_interval_ms":500}',
    b'{"type":"reset"}',
    b'{"type":"ping","id":9007199254740991}',
    '{"type":"ping","id":"\\ud83d\\ude00 é"}'.encode(),
    b'{"type":"bye"}',
    b'{"type":"bye","type":"reset"}',
    b"[" * 3000,
    b'{"type":"ping","id":' + b'{"a":' * 600,
    b"\xff\xfe",
)
_WORDS = (
    *(b'"type"', b'"settings"', b'"reset"', b'"ping"', b'"bye"', b'"id"', b'"muted"', b'"stats_interval_ms"'),
    *(b"null", b"true", b"1e999", b"-0", b"250", b"10000", b"10001", b"\\ud800", b"\\u0000", b"\xed\xa0\x80"),
)


@atheris.instrument_func  # type: ignore[untyped-decorator]
def test_one(data: bytes) -> None:
    # What a channel delivers: text (here with lone surrogates, where the bytes are not UTF-8), or bytes.
    for message in (data.decode(errors="surrogateescape"), data):
        try:
            parsed = parse_client_message(message)
        except BadMessage:
            continue
        # The branches are coverage: without them every message that is understood looks the same to the fuzzer,
        # for the decoder is not instrumented.
        match parsed:
            case Settings(muted=muted, stats_interval_ms=interval_ms):
                assert muted is None or isinstance(muted, bool)
                assert interval_ms is None or 250 <= interval_ms <= 10_000
            case Ping(id=str() as text):
                assert len(text) <= 64
                encode_event(Pong(text), 0.0)
            case Ping(id=int() | None as identifier):
                assert identifier is None or abs(identifier) < 2**53
                encode_event(Pong(identifier), 0.0)
            case Reset():
                assert b"reset" in data or b"\\u" in data
            case Bye():
                assert b"bye" in data or b"\\u" in data
            case _:
                raise AssertionError(f"{parsed!r} is no message of a client")


if __name__ == "__main__":
    fuzz(test_one, _SEEDS, _WORDS)

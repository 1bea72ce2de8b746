"""The shares of parts in stacks as py-spy writes them."""

from __future__ import annotations

from bench.flame import shares_of

STACKS = """\
<module> (rtc_server/__main__.py:22);Runner.run (asyncio/runners.py:118) 30
<module> (rtc_server/__main__.py:22);run (uvloop/__init__.py:92);Encoder.encode (rtc_server/media/libopus.py:120) 40
<module> (rtc_server/__main__.py:22);JitterBuffer.push (rtc_server/media/jitter.py:161) 8
<module> (rtc_server/__main__.py:22);OutboundTrack.recv (rtc_server/tracks.py:61) 2
Thread._bootstrap (threading.py:1002);run (rtc_server/engine/core.py:286);Queue.get (queue.py:171) 10
Thread._bootstrap (threading.py:1002);Queue.get (queue.py:171);Condition.wait (threading.py:327) 50
x (rtc_server/webrtc/media_transport.py:1);Session.__process (pylibsrtp/__init__.py:268) 6
x (rtc_server/webrtc/media_transport.py:1);0x7f00 3
x (a.py:1);RtpRouter.<locals>.<listcomp> (aiortc/rtcdtlstransport.py:310) 1
"""


def test_a_sample_counts_to_where_it_was_taken() -> None:
    """libopus by itself, the server by its rooms, libraries by name; the greatest first, and all of it but a
    thread that waits."""
    shares = shares_of(STACKS)
    assert shares == {
        "libopus": 0.4,
        "uvloop: sockets, timers": 0.3,
        "the rest": 0.13,
        "rtc_server/media": 0.08,
        "libsrtp": 0.06,
        "rtc_server": 0.02,
        "aiortc": 0.01,
    }
    assert next(iter(shares)) == "libopus"
    assert abs(sum(shares.values()) - 1) < 1e-9

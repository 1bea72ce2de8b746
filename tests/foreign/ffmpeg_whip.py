"""FFmpeg's WHIP muxer, as PyAV has it, publishes a tone in a process of its own until it is stopped.

Usage: ffmpeg_whip.py http://127.0.0.1:8080/whip/echo [option=value ...]
"""

import sys
import time

import av
import numpy as np

HZ, RATE_HZ, BLOCK = 440, 48_000, 960

container = av.open(sys.argv[1], "w", format="whip", options=dict(each.split("=", 1) for each in sys.argv[2:]))
stream = container.add_stream("libopus", rate=RATE_HZ)
stream.layout = "stereo"
sent, started = 0, time.monotonic()
while True:
    sine = 0.25 * np.sin(2 * np.pi * HZ * np.arange(sent, sent + BLOCK) / RATE_HZ)
    samples = np.repeat((sine * 32767).astype(np.int16), 2)[None, :]
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
    frame.sample_rate, frame.pts = RATE_HZ, sent
    for packet in stream.encode(frame):
        container.mux(packet)
    sent += BLOCK
    time.sleep(max(0.0, started + sent / RATE_HZ - time.monotonic()))

"""``python -m tests.foreign.fujielab_client_apart QUESTION.npy ANSWER.npy URL``: fujielab's client, unchanged.

It says the question once it is connected, prints the model's text, and keeps what it hears until its input is closed.
"""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
from fujielab.moshi.moshi_client_lib import MoshiClient

_FRAME = 1920


def main() -> None:
    question, answer, url = sys.argv[1:]
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    client = MoshiClient()
    client.connect(url)
    said = np.concatenate([np.zeros(12 * _FRAME, np.float32), np.load(question)])
    heard: list[np.ndarray] = []
    at, due = 0, time.monotonic()
    while not over.wait(max(0.0, due - time.monotonic())):
        due += 0.08
        block = np.zeros(_FRAME, np.float32)
        part = said[at : at + _FRAME]
        block[: part.size] = part
        at += _FRAME
        client.add_audio_input(block)
        while (pcm := client.get_audio_output(timeout=0.001)) is not None:
            heard.append(pcm)
        while not client.text_output_queue.sync_q.empty():
            sys.stdout.write(client.get_text_output() or "")
            sys.stdout.flush()
    np.save(answer, np.concatenate([np.zeros(0, np.float32), *heard]))
    client.disconnect()


if __name__ == "__main__":
    main()

"""``python -m tests.foreign.moshi_client_apart QUESTION.npy ANSWER.npy HOST PORT``: Kyutai's own client, unchanged.

Only the sound card is a stand-in: a microphone that says the question and is quiet then, and a loudspeaker that is
recorded. What the client prints is the model's text. Ends when its input is closed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_LEAD_FRAMES = 12
"""Of silence before the question."""


class _Stream:
    """Calls back every 80 ms from a thread of its own, as PortAudio does."""

    def __init__(self, callback: Callable[..., None], blocksize: int, **_: Any) -> None:
        self._callback, self._size = callback, blocksize
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += 0.08
            self._block()

    def _block(self) -> None:
        raise NotImplementedError


def stand_in(question: np.ndarray, heard: list[np.ndarray]) -> types.ModuleType:
    """A module ``sounddevice`` with what the client uses of it."""

    class InputStream(_Stream):
        at = -_LEAD_FRAMES * 1920

        def _block(self) -> None:
            block = np.zeros((self._size, 1), np.float32)
            part = question[max(0, self.at) : max(0, self.at + self._size)]
            block[: part.size, 0] = part
            self.at += self._size
            self._callback(block, self._size, None, None)

    class OutputStream(_Stream):
        def _block(self) -> None:
            block = np.zeros((self._size, 1), np.float32)
            self._callback(block, self._size, None, None)
            heard.append(block[:, 0].copy())

    module = types.ModuleType("sounddevice")
    module.InputStream, module.OutputStream = InputStream, OutputStream  # type: ignore[attr-defined]
    return module


def main() -> None:
    question, answer, host, port = sys.argv[1:]
    heard: list[np.ndarray] = []
    sys.modules["sounddevice"] = stand_in(np.load(question), heard)
    from moshi import client

    def save() -> None:
        sys.stdin.read()
        np.save(Path(answer), np.concatenate([np.zeros(0, np.float32), *heard]))
        os._exit(0)  # the client's loop has no end of its own

    threading.Thread(target=save, daemon=True).start()
    sys.argv = ["moshi.client", "--host", host, "--port", port]
    client.main()


if __name__ == "__main__":
    main()

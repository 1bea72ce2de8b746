"""What clients of Kyutai's speech-to-text WebSocket say and hear in several files of tests."""

from __future__ import annotations

import numpy as np

from rtc_server import audio
from rtc_server.audio import FRAME_SAMPLES, FloatArray
from tests.support.asr import (
    AsrSocketClient,
)
from tests.support.parrot import DELAY_FRAMES

FRAME_S = audio.FRAME_MS / 1000


async def transcribed(client: AsrSocketClient, pcm: FloatArray) -> list[str]:
    """All words of ``pcm``. The silence before the marker completes the last one."""
    await client.send_audio(np.concatenate((pcm, audio.silence(FRAME_SAMPLES))))
    await client.send({"type": "Marker", "id": 99})
    await client.send_audio(audio.silence((DELAY_FRAMES + 1) * FRAME_SAMPLES))
    await client.until("Marker", id=99)
    return client.words

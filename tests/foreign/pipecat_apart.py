"""A pipeline of Pipecat's with one service in it, which is asked what wave files say (see :mod:`apart`)."""

from __future__ import annotations

import asyncio
import sys

from apart import RATE_HZ, Ear, ask_all
from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    OutputAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import LLMService
from pipecat.workers.runner import WorkerRunner


class Recorder(FrameProcessor):
    """At the end of the pipeline: what is said."""

    def __init__(self, ear: Ear) -> None:
        super().__init__()
        self._ear = ear

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputAudioRawFrame):
            self._ear.hear(frame.audio)
        elif isinstance(frame, TTSTextFrame):
            self._ear.read(frame.text)
        await self.push_frame(frame, direction)


async def ask_service(service: LLMService, files: tuple[str, ...], ready: asyncio.Event | None = None) -> int:
    """Returns how much went wrong. ``ready``: nothing is said before."""
    logger.remove()
    ear, errors = Ear(), []
    worker = PipelineWorker(Pipeline([service, Recorder(ear)]), cancel_on_idle_timeout=False)
    worker.add_event_handler("on_pipeline_error", lambda _, frame: errors.append(frame.error))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    await worker.queue_frame(LLMContextFrame(LLMContext([{"role": "user", "content": "We were talking of sums."}])))
    if ready is not None:
        await asyncio.wait_for(ready.wait(), 20)

    async def say(frame: bytes) -> None:
        await worker.queue_frame(InputAudioRawFrame(frame, RATE_HZ, 1))

    failed = await ask_all(files, ear, say)
    await worker.queue_frame(EndFrame())
    await running
    for error in errors:
        print(error, file=sys.stderr)
    return failed + len(errors)

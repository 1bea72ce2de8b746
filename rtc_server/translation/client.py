"""The media plane's end of a translator: utterances out to its process, translations back, within bounds and deadlines.

That there is a process is the work of :class:`rtc_server.engine.supervisor.Supervisor`. Knows nothing of rooms, peers
or HTTP, and never imports torch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, assert_never

from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.engine.link import Link
from rtc_server.engine.messages import LoadFailed, Pong
from rtc_server.engine.supervisor import STALL_TIMEOUT_S, EngineOwner, EngineState, Supervisor
from rtc_server.errors import (
    EngineFailed,
    EngineUnavailable,
    ModelLoadError,
    Overloaded,
    ServerError,
    TranslationFailed,
    TranslationLate,
    UnsupportedPair,
    UtteranceTooLong,
)
from rtc_server.metrics import Metrics
from rtc_server.translation.messages import (
    ERRORS,
    Done,
    Failed,
    Forget,
    FromTranslator,
    Job,
    Loaded,
    ToTranslator,
    pack_pcm,
    unpack_pcm,
)
from rtc_server.translation.model import (
    MAX_AUDIO_S,
    MAX_TEXT,
    Translation,
    TranslatorInfo,
    Utterance,
)

logger = logging.getLogger(__name__)

SERVICE: Final = "translate"
"""What metrics and logs call it."""
QUEUE: Final = 64
"""Utterances that the process has been given and has not answered."""
DEADLINE_S: Final = 30.0
_VOICES: Final = 1 << 31
"""As many as a message can tell apart."""


class Translator:
    """One translator, kept alive. ``make_link`` makes the link of each (re)start; one that has no more than ``queue``
    utterances at a time. ``name`` and ``notice``: as in :class:`TranslatorInfo`, as far as they are known before it has
    loaded."""

    def __init__(
        self,
        make_link: Callable[[], Link[ToTranslator, FromTranslator]],
        metrics: Metrics,
        queue: int = QUEUE,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        name: str = "",
        notice: str = "",
    ) -> None:
        self.info: TranslatorInfo | None = None
        self._name = name
        self._notice = notice
        self._metrics = metrics
        self._queue = queue
        self._jobs: dict[int, asyncio.Future[Translation]] = {}
        self._last_number = 0
        metrics.translations_waiting.set_function(lambda: len(self._jobs))
        owner: EngineOwner[FromTranslator] = EngineOwner(
            self._on_message,
            on_stall=lambda stalled: None,
            on_lost=self._on_lost,
            steps_s=tuple,
            tells_ready=lambda message: isinstance(message, Loaded),
        )
        self._supervisor = Supervisor(SERVICE, make_link, metrics, owner, stall_timeout_s)

    @property
    def state(self) -> EngineState:
        return self._supervisor.state

    @property
    def ready(self) -> bool:
        return self._supervisor.ready

    @property
    def name(self) -> str:
        """For people."""
        return self._name if self.info is None else self.info.name

    @property
    def notice(self) -> str:
        """What its users have to know."""
        return self._notice if self.info is None else self.info.notice

    @property
    def failure(self) -> ModelLoadError | None:
        """Why there is no translator and never will be."""
        return self._supervisor.failure

    @property
    def restarts(self) -> int:
        return self._supervisor.restarts

    @property
    def pid(self) -> int | None:
        """The process that holds the model, if it is loaded."""
        return self._supervisor.pid

    @property
    def waiting(self) -> int:
        """Utterances that have been given to the process and were not answered yet."""
        return len(self._jobs)

    def start(self) -> None:
        """Start loading; :meth:`wait_settled` tells how it went."""
        self._supervisor.start()

    async def wait_settled(self) -> None:
        """Wait until the model is ready. Raises ModelLoadError if it never will be."""
        await self._supervisor.wait_settled()

    async def wait_ready(self) -> None:
        """Wait until it can be used, for the first time or again. Safe to cancel; for ever, if it never is."""
        await self._supervisor.wait_ready()

    async def close(self) -> None:
        """Stop the process. What it has not answered fails with EngineUnavailable. Idempotent."""
        await self._supervisor.close()
        self._fail_all(EngineUnavailable)

    async def translate(self, utterance: Utterance, deadline_s: float = DEADLINE_S) -> Translation:
        """Translate ``utterance``, and speak it if that is wanted and can be. Safe to cancel.

        Raises UtteranceTooLong and UnsupportedPair before anything is sent; Overloaded if too many wait;
        TranslationLate if it is not there after ``deadline_s``; TranslationFailed if the model cannot do it;
        EngineUnavailable if there is no process just now, EngineFailed if it ended meanwhile.
        """
        begun_s = time.monotonic()
        try:
            translation = await self._translated(utterance, deadline_s)
        except ServerError as error:
            self._metrics.translations.labels(error.code).inc()
            raise
        self._metrics.translations.labels("done").inc()
        self._metrics.translation_seconds.observe(time.monotonic() - begun_s)
        return translation

    async def _translated(self, utterance: Utterance, deadline_s: float) -> Translation:
        _require_bounds(utterance)
        if not self.ready or self.info is None:
            raise EngineUnavailable
        hears = utterance.pcm is not None and utterance.source in self.info.hears
        _require_pair(utterance, hears, self.info)
        text, speak = _whole(utterance.text), utterance.speak and utterance.target in self.info.speaks
        if not hears and (not text or (utterance.source == utterance.target and not speak)):
            return Translation(text, text, None)  # there is nothing to be done
        if len(self._jobs) >= self._queue:
            raise Overloaded
        self._last_number += 1
        pcm = pack_pcm(utterance.pcm) if hears else None
        voice = utterance.voice % _VOICES
        job = Job(self._last_number, deadline_s, utterance.source, utterance.target, text, pcm, voice, speak)
        return await self._answer(job)

    async def _answer(self, job: Job) -> Translation:
        answer: asyncio.Future[Translation] = asyncio.get_running_loop().create_future()
        if not self._supervisor.send(job):
            raise EngineUnavailable
        self._jobs[job.number] = answer  # until the process has answered, whatever becomes of the caller
        try:
            async with asyncio.timeout(job.within_s):
                return await answer
        except TimeoutError:
            raise TranslationLate from None
        finally:
            if answer.cancelled():
                self._supervisor.send(Forget(job.number))

    def _on_message(self, message: FromTranslator) -> None:
        match message:
            case Loaded():
                self.info = message.info
                counts = len(message.info.pairs), len(message.info.speaks)
                logger.info("translator ready: %s, %d pairs of languages, %d voices", message.info.name, *counts)
                if message.info.notice != self._notice:
                    logger.info("translator: %s", message.info.notice)
            case Done():
                translation = Translation(message.text, message.original, unpack_pcm(message.pcm))
                self._settle(message.number, lambda answer: answer.set_result(translation))
            case Failed():
                error = ERRORS.get(message.code, TranslationFailed)()
                self._settle(message.number, lambda answer: answer.set_exception(error))
            case LoadFailed() | Pong():
                pass  # for the supervisor
            case _:
                assert_never(message)

    def _settle(self, number: int, settle: Callable[[asyncio.Future[Translation]], None]) -> None:
        answer = self._jobs.pop(number, None)
        if answer is not None and not answer.done():
            settle(answer)

    def _on_lost(self) -> None:
        self._fail_all(EngineFailed)

    def _fail_all(self, error: type[ServerError]) -> None:
        jobs, self._jobs = self._jobs, {}
        for answer in jobs.values():
            if not answer.done():
                answer.set_exception(error())


def _whole(text: str) -> str:
    """Without halves of characters, which JSON can say and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode().strip()


def _require_bounds(utterance: Utterance) -> None:
    """Raises UtteranceTooLong."""
    seconds = 0.0 if utterance.pcm is None else len(utterance.pcm) / MODEL_RATE_HZ
    if len(utterance.text) > MAX_TEXT or seconds > MAX_AUDIO_S:
        raise UtteranceTooLong


def _require_pair(utterance: Utterance, hears: bool, info: TranslatorInfo) -> None:
    """Raises UnsupportedPair, also for sound without words in a language that the model does not hear."""
    pair = utterance.source, utterance.target
    unheard = utterance.pcm is not None and not hears and not utterance.text
    if unheard or (utterance.source != utterance.target and pair not in info.pairs):
        raise UnsupportedPair

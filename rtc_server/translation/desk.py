"""The inside of a translator's process: jobs in, batches to the threads that compute, answers out.

One thread (that of :meth:`Desk.run`) owns the schedule and says everything that is said; the others compute. Knows no
transport and no model but by its contract.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from rtc_server import audio
from rtc_server.engine.messages import Ping, Pong, Stop
from rtc_server.errors import ServerError, TranslationFailed, TranslationLate
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
from rtc_server.translation.model import Outcome, Utterance, UtteranceModel
from rtc_server.translation.schedule import Schedule, Waiting

logger = logging.getLogger(__name__)

HANG_S: Final = 120.0
"""A batch that computes for longer than this will not come back: the process says no more that it lives."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A batch that a thread has done. ``seconds``: how long that took."""

    jobs: list[Waiting]
    outcomes: list[Outcome]
    seconds: float


Arrived = queue.SimpleQueue[ToTranslator | Computed]
"""What the desk is told, by the other side and by its own threads."""


class Desk:
    """Of a loaded ``model``. ``arrived``: what has come for it, also while it was loading; the other side bounds how
    much it asks for. ``say``: sends an answer, and never blocks."""

    def __init__(
        self,
        model: UtteranceModel,
        arrived: Arrived,
        say: Callable[[FromTranslator], None],
        hang_s: float = HANG_S,
    ) -> None:
        self._model = model
        self._arrived = arrived
        self._say = say
        self._hang_s = hang_s
        self._schedule = Schedule(model.info.batch, model.info.at_once)
        self._to_compute: queue.SimpleQueue[list[Waiting]] = queue.SimpleQueue()
        self._begun_s: dict[int, float] = {}  # when each running batch began, by its first job

    def run(self) -> None:
        """Serve until :class:`rtc_server.engine.messages.Stop` has come. What still computes then is left to end with
        the process."""
        for number in range(self._model.info.at_once):
            threading.Thread(target=self._compute, name=f"translate-{number}", daemon=True).start()
        self._say(Loaded(self._model.info))
        while True:
            message = self._arrived.get()
            match message:
                case Stop():
                    return
                case Job():
                    self._schedule.add(_waiting(message, time.monotonic()))
                case Forget():
                    if self._schedule.forget(message.number):
                        self._say(Failed(message.number, TranslationLate.code))
                case Ping():
                    self._answer_ping()
                case Computed():
                    self._finish(message)
                case _:
                    assert_never(message)
            self._hand_out()

    def _hand_out(self) -> None:
        for job in self._schedule.overdue(time.monotonic()):
            self._say(Failed(job.number, TranslationLate.code))
        while jobs := self._schedule.begin():
            self._begun_s[jobs[0].number] = time.monotonic()
            self._to_compute.put(jobs)

    def _finish(self, computed: Computed) -> None:
        self._schedule.end(computed.jobs[0].pair)
        del self._begun_s[computed.jobs[0].number]
        for job, outcome in zip(computed.jobs, computed.outcomes, strict=True):
            self._say(_answer(job.number, outcome, computed.seconds))

    def _answer_ping(self) -> None:
        if all(time.monotonic() - begun_s < self._hang_s for begun_s in self._begun_s.values()):
            self._say(Pong())

    def _compute(self) -> None:
        """One of the threads that compute."""
        while True:
            jobs = self._to_compute.get()
            begun_s = time.monotonic()
            outcomes = outcomes_of(self._model, [job.utterance for job in jobs])
            self._arrived.put(Computed(jobs, outcomes, time.monotonic() - begun_s))


def outcomes_of(model: UtteranceModel, batch: Sequence[Utterance]) -> list[Outcome]:
    """What ``model`` makes of a batch; where that raises, of each utterance by itself."""
    try:
        outcomes = model.translate(batch)
        if len(outcomes) == len(batch):
            return outcomes
    except BaseException:  # the border of a thread, to models whose libraries panic: what broke it is found out below
        logger.debug("a batch of %d failed", len(batch), exc_info=True)
    if len(batch) == 1:
        logger.warning("a translation failed")
        return [TranslationFailed()]
    return [outcome for utterance in batch for outcome in outcomes_of(model, [utterance])]


def _waiting(job: Job, now_s: float) -> Waiting:
    pcm = unpack_pcm(job.pcm)
    heard = None if pcm is None else audio.sanitise(pcm)
    utterance = Utterance(job.source, job.target, job.text, heard, job.voice, job.speak)
    return Waiting(job.number, now_s + job.within_s, utterance)


def _answer(number: int, outcome: Outcome, seconds: float) -> FromTranslator:
    if isinstance(outcome, ServerError):
        return Failed(number, outcome.code if outcome.code in ERRORS else TranslationFailed.code)
    return Done(number, seconds, outcome.text, outcome.original, pack_pcm(outcome.pcm))

"""The transcribing engine as it serves conversations: whether their users' words can be written down just now.

Owns the rule that captions go before anything else does. Knows no session; whose words they are, and what becomes of
them, is ``sessions.captions``'s.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from rtc_server.audio import FRAME_MS
from rtc_server.config import Settings
from rtc_server.engine.engine import Engine
from rtc_server.engine.model import ModelInfo, ServiceKind
from rtc_server.errors import EngineUnavailable, Overloaded, ServerError, ServerFull
from rtc_server.metrics import Metrics
from rtc_server.sessions.headroom import Headroom, Load
from rtc_server.system.loop_lag import LagWindow

_LOOK_S: Final = 0.25
"""The load is looked at no more often than this, however many conversations ask."""
_FAST_STEP_MS: Final = FRAME_MS / 2


class Captioner:
    """Of one server. ``engine``: the one that transcribes; ``engines``: those whose conversations come first;
    ``lag``: of the loop that moves their packets."""

    def __init__(
        self,
        engine: Engine,
        engines: Collection[Engine],
        settings: Settings,
        lag: LagWindow,
        metrics: Metrics,
    ) -> None:
        self.engine = engine
        self.metrics = metrics
        self.on = 0
        """Conversations that have captions."""
        self._engines = [engine, *(each for each in engines if each is not engine)]
        self._settings = settings
        self._lag = lag
        self._headroom = Headroom()
        self._looked_at: float | None = None

    @property
    def room(self) -> bool:
        """Whether the load of the last look leaves room for captions."""
        return self._headroom.there

    def serves(self, kind: ServiceKind) -> bool:
        """Whether conversations with a model of this kind have captions."""
        return kind is ServiceKind.DIALOGUE

    @property
    def hurries(self) -> bool:
        """Whether the model is so fast that words can be brought out before their time: that costs it more steps."""
        return (self.engine.step_p50_ms or 0.0) <= _FAST_STEP_MS and self.room

    def ends(self, now: float) -> ServerError | None:
        """Why captions that are there have to end now, if they have to."""
        if not self.engine.ready:
            return EngineUnavailable()
        return None if self._look(now) else Overloaded()

    def hinders(self, now: float) -> ServerError | None:
        """Why captions cannot begin now, if they cannot."""
        return self.ends(now) or (None if self.engine.has_room else ServerFull())

    def _look(self, now: float) -> bool:
        if self._looked_at is None or now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            self._headroom.look(now, self._load())
        return self._headroom.there

    def _load(self) -> Load:
        steps_ms = [each.step_p50_ms or 0.0 for each in self._engines if each.slots_used]
        share = max(steps_ms, default=0.0) / self._settings.max_step_ms
        return Load(self._lag.crowded, self._lag.late_share, share)


class Captioners:
    """All of a server: ``of_dialogues`` writes down what users say to a model, None if none does; ``of_rooms`` what
    members of rooms say, each in its model's languages."""

    def __init__(
        self, metrics: Metrics, of_dialogues: Captioner | None = None, of_rooms: Sequence[Captioner] = ()
    ) -> None:
        self.of_dialogues = of_dialogues
        self._of_rooms = of_rooms
        every = {*of_rooms, *(() if of_dialogues is None else (of_dialogues,))}
        metrics.captions.set_function(lambda: sum(each.on for each in every))

    def of(self, info: ModelInfo, language: str) -> Captioner | None:
        """Of a session with the model of ``info``, whose user speaks ``language``, if that is known."""
        if info.kind is ServiceKind.TRANSLATE:
            known = (each for each in self._of_rooms if each.engine.info is not None)
            return next((each for each in known if language in each.engine.info.languages), None)  # type: ignore[union-attr]
        if self.of_dialogues is not None and self.of_dialogues.serves(info.kind):
            return self.of_dialogues
        return None

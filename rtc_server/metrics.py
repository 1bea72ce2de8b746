"""Defines every metric. Moves none.

Metrics live in a registry of their own, so that two servers in one process (tests) do not share counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# A step must end within a frame: the buckets straddle 80 ms closely, as Kyutai's own server has them.
_STEP_BUCKETS_S: Final = (
    *(0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07),
    *(0.075, 0.08, 0.085, 0.09, 0.1, 0.15, 0.25, 1.0),
)
_DEPTH_BUCKETS_S: Final = (0.0, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48)
_FIRST_AUDIO_BUCKETS_S: Final = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_TRANSLATION_BUCKETS_S: Final = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)

OF_AN_ENGINE: Final = frozenset(
    {
        *("rtc_slots", "rtc_pages", "rtc_engine_memory_bytes", "rtc_device_memory_bytes"),
        *("rtc_engine_stalls", "rtc_engine_restarts"),
    }
)
"""What every process that uses an engine tells of it alike, and not of its own conversations there."""


class Metrics:
    """The server's metrics. Labels have few values and never name a person, an address or a session."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.sessions = Gauge("rtc_sessions", "Sessions by state.", ["state"], registry=r)
        self.sessions_waiting = Gauge(
            "rtc_sessions_waiting", "Sessions whose client waits for its first slot.", ["service"], registry=r
        )
        self.sessions_opened = Counter("rtc_sessions_opened", "Sessions opened.", ["service"], registry=r)
        self.sessions_ended = Counter("rtc_sessions_ended", "Sessions ended.", ["reason"], registry=r)
        self.sessions_restarted = Counter(
            "rtc_sessions_restarted",
            "Times that a session whose engine had died got a slot of another.",
            ["service"],
            registry=r,
        )
        self.streams_moved = Counter(
            "rtc_streams_moved",
            "Conversations that were to go on at another engine, with all that the model remembers: moved, or failed.",
            ["service", "outcome"],
            registry=r,
        )
        self.sessions_resumed = Counter(
            "rtc_sessions_resumed", "Times that a client came back to its session.", ["service"], registry=r
        )
        self.interruptions = Counter(
            "rtc_interruptions", "Times that a user spoke while the model did.", ["service"], registry=r
        )
        self.interruption_seconds = Histogram(
            "rtc_interruption_seconds",
            "From the start of speech over the model's voice to the model's silence.",
            ["service"],
            registry=r,
        )
        self.offers_refused = Counter("rtc_offers_refused", "Offers refused.", ["code"], registry=r)
        self.slots = Gauge("rtc_slots", "Slots of an engine.", ["service"], registry=r)
        self.slots_used = Gauge("rtc_slots_used", "Slots in use.", ["service"], registry=r)
        self.pages = Gauge(
            "rtc_pages",
            "Pages of memory that the conversations of a model share: free, and in total.",
            ["service", "kind"],
            registry=r,
        )
        self.engine_memory_bytes = Gauge(
            "rtc_engine_memory_bytes",
            "Memory that a model holds: weights, cache (the state of all its slots), and the rest on a GPU.",
            ["service", "kind"],
            registry=r,
        )
        self.device_memory_bytes = Gauge(
            "rtc_device_memory_bytes",
            "Memory of the GPU that a model is on, free and in total, all processes included.",
            ["service", "kind"],
            registry=r,
        )
        self.loop_lag_seconds = Gauge(
            "rtc_loop_lag_seconds",
            "By how much the event loop, which moves the packets, was late in the last seconds.",
            ["quantile"],
            registry=r,
        )
        self.step_seconds = Histogram(
            "rtc_step_seconds", "Time of one batched model step.", ["service"], buckets=_STEP_BUCKETS_S, registry=r
        )
        self.step_rows = Histogram(
            "rtc_step_rows",
            "Rows that a step advanced.",
            ["service"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=r,
        )
        self.frame_seconds = Histogram(
            "rtc_frame_seconds",
            "Time of a frame from the media plane through the engine and back.",
            ["service"],
            buckets=_STEP_BUCKETS_S,
            registry=r,
        )
        self.frames_dropped = Counter(
            "rtc_frames_dropped", "80 ms frames thrown away, by reason.", ["reason"], registry=r
        )
        self.frames_filled = Counter(
            "rtc_frames_filled", "Frames in which missing microphone audio became silence.", registry=r
        )
        self.audio_dropped_seconds = Counter(
            "rtc_audio_dropped_seconds",
            "Audio of clients that came faster than it lasts and was dropped, the oldest first, by endpoint.",
            ["endpoint"],
            registry=r,
        )
        self.playout_seconds = Histogram(
            "rtc_playout_seconds",
            "Audio waiting to be sent when a packet leaves while the model speaks.",
            buckets=_DEPTH_BUCKETS_S,
            registry=r,
        )
        self.concealed_share = Histogram(
            "rtc_concealed_share",
            "Share of a second of microphone audio that stood in for lost or late packets.",
            buckets=(0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
            registry=r,
        )
        self.loss_share = Histogram(
            "rtc_loss_share",
            "Share of packets lost in a second, by direction (in: as we saw it, out: as the peer reported).",
            ["direction"],
            buckets=(0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
            registry=r,
        )
        self.jitter_buffer_seconds = Histogram(
            "rtc_jitter_buffer_seconds",
            "How long a missing packet is waited for: the depth of the jitter buffer.",
            buckets=(0.025, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24),
            registry=r,
        )
        self.underruns = Counter("rtc_playout_underruns", "Times the voice ran dry while it spoke.", registry=r)
        self.first_audio_seconds = Histogram(
            "rtc_first_audio_seconds",
            "Time from the offer to the first packet with the model's audio.",
            ["service"],
            buckets=_FIRST_AUDIO_BUCKETS_S,
            registry=r,
        )
        self.asr_sockets = Gauge("rtc_asr_sockets", "Open WebSockets that transcribe.", registry=r)
        self.asr_words = Counter("rtc_asr_words", "Words told to WebSockets that transcribe.", registry=r)
        self.captions = Gauge("rtc_captions", "Conversations whose user's words are written down.", registry=r)
        self.captions_off = Counter(
            "rtc_captions_off", "Times that captions ended or could not be had, by reason.", ["reason"], registry=r
        )
        self.caption_words = Counter("rtc_caption_words", "Words of users told to conversations.", registry=r)
        self.rooms = Gauge("rtc_rooms", "Rooms.", registry=r)
        self.room_members = Gauge("rtc_room_members", "Members of rooms.", registry=r)
        self.rooms_paused = Gauge(
            "rtc_rooms_paused",
            "1 while the Redis that rooms are in does not answer, and nothing can be said in them.",
            registry=r,
        )
        self.lanes_failed = Counter(
            "rtc_lanes_failed",
            "Times that a speaker who was to be translated while speaking got no row of a model, or lost it, by code.",
            ["code"],
            registry=r,
        )
        self.room_seconds = Histogram(
            "rtc_room_seconds",
            "From the end of what was said in a room to its translation.",
            buckets=(0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0),
            registry=r,
        )
        self.engine_stalls = Counter(
            "rtc_engine_stalls",
            "Times that a loaded engine was silent for longer than is usual.",
            ["service"],
            registry=r,
        )
        self.engine_restarts = Counter("rtc_engine_restarts", "Engine processes restarted.", ["service"], registry=r)

        self.translations = Counter(
            "rtc_translations",
            "Utterances that were to be translated, by what became of them: done, or the code of an error.",
            ["outcome"],
            registry=r,
        )
        self.translation_seconds = Histogram(
            "rtc_translation_seconds",
            "From an utterance to its translation, with its voice if one was wanted.",
            buckets=_TRANSLATION_BUCKETS_S,
            registry=r,
        )
        self.translations_waiting = Gauge(
            "rtc_translations_waiting", "Utterances that wait to be translated, or are being translated.", registry=r
        )

    def render(self) -> bytes:
        return generate_latest(self.registry)


class _Merged:
    """What several processes have to tell, as one registry's. ``of_all``: services whose engine is the same for all."""

    def __init__(self, of_all: Collection[str]) -> None:
        self._of_all = of_all
        self._families: dict[str, Metric] = {}
        self._once: dict[tuple[str, frozenset[tuple[str, str]]], Sample] = {}

    def add(self, worker: int, text: bytes) -> None:
        for family in text_string_to_metric_families(text.decode()):
            known = Metric(family.name, family.documentation, family.type)
            kept = self._families.setdefault(family.name, known)
            of_engine = family.name.removesuffix("_created") in OF_AN_ENGINE
            for sample in family.samples:
                if of_engine and sample.labels["service"] in self._of_all:
                    self._add_once(kept, sample)
                else:
                    kept.add_sample(sample.name, {"worker": str(worker), **sample.labels}, sample.value)

    def _add_once(self, kept: Metric, sample: Sample) -> None:
        """The largest stays: a process that was started again has not seen what the others have."""
        key = (sample.name, frozenset(sample.labels.items()))
        before = self._once.get(key)
        if before is not None:
            if before.value >= sample.value:
                return
            kept.samples.remove(before)
        self._once[key] = sample
        kept.samples.append(sample)

    def collect(self) -> Iterable[Metric]:
        return self._families.values()


def merged(texts: Mapping[int, bytes], of_all: Collection[str] = ()) -> bytes:
    """What :meth:`Metrics.render` has made in several processes, as one text, such that sums over it are the server's.
    Each sample has a further label, ``worker``, but for what is known of an engine that all processes share: that is
    there once. ``of_all``: the services of such engines."""
    registry = _Merged(of_all)
    for worker, text in sorted(texts.items()):
        registry.add(worker, text)
    return generate_latest(registry)  # collect() is all that it asks for

"""Plans the services of this server and the engine behind each: settings in, engine clients out."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from rtc_server import bundled
from rtc_server.bundled import PICO, PICO_STT, PICO_STT_PT
from rtc_server.cluster.directory import Directory
from rtc_server.cluster.pooled import PooledEngine
from rtc_server.config import AUTO, DEFAULT_MODEL, Settings, is_host_and_port
from rtc_server.engine.client import EngineClient
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.engine import Engine
from rtc_server.engine.factory import SlotOptions, make_model
from rtc_server.engine.link import EngineLink
from rtc_server.engine.local import LocalLink
from rtc_server.engine.process import ChildSpec, ProcessLink
from rtc_server.engine.realtime import RealTime
from rtc_server.engine.remote import RemoteLink
from rtc_server.errors import ConfigError, ModelLoadError
from rtc_server.metrics import Metrics
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.system import hardware
from rtc_server.translation import cascade, checkpoint_options, pocket_options, simultaneous
from rtc_server.translation.checkpoint_options import CheckpointOptions, models_of
from rtc_server.translation.client import Translator
from rtc_server.translation.process import TranslatorLink, TranslatorSpec
from rtc_server.translation.simultaneous import Published
from rtc_server.usage import invocation
from rtc_server.usage.spelling import did_you_mean

logger = logging.getLogger(__name__)

ECHO: Final = "echo"
DIALOGUE: Final = "dialogue"
TRANSCRIBE: Final = "transcribe"
SERVICES: Final = (DIALOGUE, TRANSCRIBE, ECHO)
"""Of those that clients ask for by name, all that an engine can have."""
TRANSLATE: Final = "translate"
"""Rooms: what a server puts together of its other services, and of a translator."""
ALL_SERVICES: Final = (*SERVICES, TRANSLATE)
DETECTOR: Final = "vad"
"""Not a service: no client asks for it by name."""
SIMULTANEOUS: Final = "simultaneous"
"""Not a service either: rooms translate with it while one speaks."""
ENGINES: Final = (*SERVICES, SIMULTANEOUS)
"""All that may be on another machine, or in another process of this one."""
_CPU_SLOTS: Final = 1
_CPU_BUNDLED_SLOTS: Final = 4
"""The model that comes with the package was made to converse with so many at a time on two cores."""
_BUNDLED_THREADS: Final = 1
"""They are so small that a second thread makes a step no shorter, and takes a core from those who talk to them."""
_CUDA_SLOTS: Final = 8
_CPU_STT_SLOTS: Final = 4
_CUDA_STT_SLOTS: Final = 64
_NICENESS: Final = 5
"""Of a model that writes down, or translates, on cores on which another one talks."""
_KYUTAI_FACTORY: Final = "rtc_server.models.kyutai.fit:load_if_it_fits"
_KYUTAI_PACKAGES: Final = ("moshi", "torch", "sentencepiece", "safetensors", "huggingface_hub")


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One service: ``factory`` (``module:function``) called with ``options`` makes its model, which has to keep up with
    speech or not. ``niceness``: of its process."""

    service: str
    factory: str
    options: SlotOptions | KyutaiOptions
    in_process: bool
    real_time: RealTime = RealTime.UNMEASURED
    niceness: int = 0


def resolve_model(settings: Settings, cuda_devices: int) -> str:
    """Resolve ``--model auto`` on a machine with so many CUDA devices."""
    if settings.model != "auto":
        return settings.model
    wants_cuda = settings.device == "auto" or settings.device.startswith("cuda")
    if cuda_devices and wants_cuda:
        return DEFAULT_MODEL
    return bundled.PICO if bundled.is_complete(bundled.PICO) else ECHO


def resolve_stt(settings: Settings, model: str) -> str:
    """Resolve ``--stt`` beside ``model``; empty for none."""
    if settings.stt != "auto":
        return "" if settings.stt == "none" else settings.stt
    return bundled.PICO_STT if model == bundled.PICO and bundled.is_complete(bundled.PICO_STT) else ""


def resolve_device(settings: Settings, cuda_devices: int) -> str:
    """Resolve ``--device auto``."""
    return settings.device if settings.device != "auto" else ("cuda" if cuda_devices else "cpu")


def plan(settings: Settings, cuda_devices: int) -> list[EngineSpec]:
    """Of the engines to start here, those of services, the default one first."""
    return [spec for spec in plan_all(settings, cuda_devices) if spec.service in SERVICES]


def plan_all(settings: Settings, cuda_devices: int) -> list[EngineSpec]:
    """All engines to start here, the default service's first. ``echo`` is always there: it is the sound check. The last
    is no service's: it translates members of rooms while they speak."""
    remote = {*remote_engines(settings), *pooled_services(settings)}
    model = ECHO if DIALOGUE in remote else resolve_model(settings, cuda_devices)
    device = resolve_device(settings, cuda_devices)
    on_cpu = device == "cpu"
    specs = []
    if model != ECHO:
        slots = settings.slots or (_cpu_slots(model) if on_cpu else _CUDA_SLOTS)
        specs.append(_kyutai(DIALOGUE, model, slots, device, settings))
    stt = "" if TRANSCRIBE in remote else resolve_stt(settings, model)
    if stt:
        slots = settings.stt_slots or (_CPU_STT_SLOTS if on_cpu else _CUDA_STT_SLOTS)
        beside = _kyutai(TRANSCRIBE, stt, slots, device, settings)
        if specs and on_cpu:  # on the same cores: who talks comes first
            beside = dataclasses.replace(beside, niceness=_NICENESS)
        specs.append(beside)
    simultaneous = plan_simultaneous(settings, cuda_devices)
    no_services = [] if simultaneous is None else [simultaneous]
    _leave_room(specs, [*specs[1:], *no_services], _translators(settings))
    if ECHO not in remote:
        in_process = settings.engine != "process" or bool(specs)
        specs.append(EngineSpec(ECHO, "rtc_server.models.echo:load", SlotOptions(settings.echo_slots), in_process))
    return [*specs, *no_services]


def remote_engines(settings: Settings) -> dict[str, str]:
    """The addresses of engines on other machines, by service. Raises ConfigError."""
    addresses: dict[str, str] = {}
    for entry in settings.engine_at:
        service, equals, address = entry.partition("=")
        if not equals or not is_host_and_port(address):
            raise ConfigError(f"--engine-at {entry!r} is not SERVICE=HOST:PORT.")
        if service not in ENGINES:
            raise ConfigError(
                f"--engine-at {entry}: there is no service {service}.{did_you_mean(service, ENGINES)}",
                hint=f"There are: {', '.join(ENGINES)}.",
            )
        if service == SIMULTANEOUS and not settings.simultaneous:
            raise ConfigError(
                f"--engine-at {entry} goes with --simultaneous, which says between which languages it translates."
            )
        if service in addresses:
            raise ConfigError(f"--engine-at names two engines of {service}.")
        addresses[service] = address
    if addresses and not settings.cluster_key:
        raise ConfigError("--engine-at goes with --cluster-key, the secret that the engine has as well.")
    return addresses


def pool_address(settings: Settings) -> str:
    """That of ``--pool``; empty for none. Raises ConfigError."""
    if settings.pool and not is_host_and_port(settings.pool):
        raise ConfigError(f"--pool {settings.pool} is not HOST:PORT.")
    if settings.pool and not settings.cluster_key:
        raise ConfigError("--pool goes with --cluster-key, the secret that the pool has as well.")
    return settings.pool


def pooled_services(settings: Settings) -> tuple[str, ...]:
    """Those whose engines are in a pool. Raises ConfigError."""
    if not pool_address(settings):
        return ()
    for service in settings.pool_services:
        if service not in SERVICES:
            raise ConfigError(
                f"--pool-services: there is no service {service}.{did_you_mean(service, SERVICES)}",
                hint=f"There are: {', '.join(SERVICES)}.",
            )
        if service in remote_engines(settings):
            raise ConfigError(f"--engine-at and --pool-services both name {service}: leave one of them out.")
    return settings.pool_services


def _pages(settings: Settings, device: str) -> int | None:
    """Those of :class:`KyutaiOptions`. Reading them costs a CPU a copy, and it has memory for few conversations' time
    to compute."""
    if settings.kv_pages == AUTO:
        return 0 if device == "cpu" else None
    return int(settings.kv_pages)


def _translators(settings: Settings) -> tuple[str, ...]:
    """The models of rooms that are on the device."""
    name = "" if settings.rooms == "off" else resolve_translator(settings)
    return () if name == cascade.NAME else tuple(models_of(name))


def _leave_room(specs: list[EngineSpec], others: Iterable[EngineSpec], translators: tuple[str, ...]) -> None:
    """Have the one that takes what memory is free leave some for the ``others`` and the ``translators``, which are on
    the same device."""
    for index, spec in enumerate(specs):
        if isinstance(spec.options, KyutaiOptions) and spec.options.pages is None:
            beside = tuple(other.options for other in others if isinstance(other.options, KyutaiOptions))
            specs[index] = dataclasses.replace(
                spec, options=dataclasses.replace(spec.options, beside=beside, translators=translators)
            )


def _cpu_slots(model: str) -> int:
    return _CPU_SLOTS if bundled.directory_of(model) is None else _CPU_BUNDLED_SLOTS


def _kyutai(service: str, model: str, slots: int, device: str, settings: Settings) -> EngineSpec:
    options = KyutaiOptions(
        model,
        slots,
        device,
        dtype=settings.dtype,
        quantize=settings.quantize,
        kv_dtype=settings.kv_dtype,
        context=settings.context,
        pages=_pages(settings, device) if service == DIALOGUE else 0,
        temp=settings.temperature,
        temp_text=settings.text_temperature,
        top_k=settings.top_k,
        top_k_text=settings.text_top_k,
        seed=settings.seed,
        threads=settings.threads or (_BUNDLED_THREADS if device == "cpu" and bundled.directory_of(model) else None),
    )
    if service == SIMULTANEOUS:
        # What is set of the dialogue's sampling and memory is not meant for it: its checkpoint says what suits it.
        options = dataclasses.replace(options, context=None, temp=None, temp_text=None, top_k=None, top_k_text=None)
    if service == TRANSCRIBE:
        # What was said does not depend on chance, nor on how long the dialogue model remembers.
        options = dataclasses.replace(options, temp_text=0.0, context=None)
    real_time = RealTime.WANTED if settings.allow_slow else RealTime.REQUIRED
    return EngineSpec(service, _KYUTAI_FACTORY, options, settings.engine == "thread", real_time)


def plan_detector(settings: Settings, services: Collection[str]) -> EngineSpec | None:
    """The engine of voice-activity detection, if any service wants it. Beside a model it has a process of its own."""
    wanted = {DIALOGUE, TRANSCRIBE} & set(services) or settings.simultaneous
    if settings.vad == "off" or (settings.vad == "auto" and not wanted):
        return None
    in_process = settings.engine == "thread" or (settings.engine == "auto" and set(services) == {ECHO})
    return EngineSpec(DETECTOR, "rtc_server.models.silero:load", SlotOptions(settings.max_sessions), in_process)


def make_detector(settings: Settings, services: Collection[str], metrics: Metrics) -> EngineClient | None:
    """Its engine client, not started yet."""
    spec = plan_detector(settings, services)
    return None if spec is None else EngineClient(spec.service, _link_maker(spec, settings), metrics)


def captions_engine(settings: Settings, engines: Mapping[str, Engine]) -> Engine | None:
    """The engine that writes down what users say in their conversations, if any does. Raises ConfigError where one is
    asked for, and nothing transcribes."""
    if settings.captions == "off":
        return None
    engine = engines.get(TRANSCRIBE)
    if engine is None and settings.captions == "on":
        raise ConfigError("--captions on needs a model that transcribes.", hint="Name one with --stt.")
    return engine


def _refuse_unheard_of(model: str) -> None:
    """Raise ModelLoadError for what is neither a bundled model, nor a directory, nor like a hub repository."""
    if bundled.directory_of(model) or model.count("/") == 1 or Path(model).expanduser().exists():
        return
    alike = did_you_mean(model, [PICO, PICO_STT, PICO_STT_PT, ECHO])
    raise ModelLoadError(
        f"{model} is neither a directory nor a hub repository.{alike}",
        f"Give {PICO}, {ECHO}, a hub repository such as {DEFAULT_MODEL}, or a directory that holds a checkpoint.",
    )


def check_models(specs: Iterable[EngineSpec]) -> None:
    """Raise ModelLoadError for a model that there is not, or that wants a package that is not here: before a process
    has started for it."""
    for spec in specs:
        if not isinstance(spec.options, KyutaiOptions):
            continue
        model = spec.options.model
        _refuse_unheard_of(model)
        for package in _KYUTAI_PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise invocation.lacks(model, package)


def make_engines(settings: Settings, metrics: Metrics) -> dict[str, Engine]:
    """The engine clients by service, not started yet; the default service first. Raises ModelLoadError for what can be
    known to be missing by now."""
    specs = plan(settings, hardware.cuda_devices())
    check_models(specs)
    engines: dict[str, Engine] = {
        service: EngineClient(service, maker, metrics, shared=True)
        for service, maker in _remote_makers(settings).items()
        if service in SERVICES
    }
    engines |= {spec.service: EngineClient(spec.service, _link_maker(spec, settings), metrics) for spec in specs}
    engines |= _pooled_engines(settings, metrics)
    return {service: engines[service] for service in sorted(engines, key=SERVICES.index)}


def warn_of_unused_device(settings: Settings) -> None:
    """Say it where a GPU is named, and no model runs here that could use one."""
    if not settings.device.startswith("cuda") or resolve_translator(settings) not in ("", cascade.NAME):
        return
    specs = plan_all(settings, hardware.cuda_devices())
    if not any(isinstance(spec.options, KyutaiOptions) for spec in specs):
        logger.warning("--device %s has no effect: no service has a model that runs on a device", settings.device)


def _pooled_engines(settings: Settings, metrics: Metrics) -> dict[str, PooledEngine]:
    services = pooled_services(settings)
    if not services:
        return {}
    key = ClusterKey.read(Path(settings.cluster_key))
    directory = Directory(pool_address(settings), key)

    def make_client(service: str, address: str) -> EngineClient:
        return EngineClient(service, partial(RemoteLink, address, key), metrics, shared=True)

    return {service: PooledEngine(service, directory, make_client, metrics) for service in services}


def _remote_makers(settings: Settings) -> dict[str, Callable[[], EngineLink]]:
    addresses = remote_engines(settings)
    if not addresses:
        return {}
    key = ClusterKey.read(Path(settings.cluster_key))
    return {service: partial(RemoteLink, address, key) for service, address in addresses.items()}


def resolve_translator(settings: Settings) -> str:
    """Resolve ``--translate``; empty for none."""
    if settings.translate != "auto":
        return "" if settings.translate == "none" else settings.translate
    return cascade.NAME if cascade.is_there() else ""


def make_translator(settings: Settings, metrics: Metrics) -> Translator | None:
    """The translator of utterances, not started yet; None for none. Raises ModelLoadError for what can be known to be
    missing by now."""
    name = resolve_translator(settings)
    if not name:
        return None
    check_voices(settings.pocket_tts, name)
    if name == cascade.NAME:
        return _translator(cascade.FACTORY, cascade.CascadeOptions(settings.pocket_tts), settings, metrics)
    check_translator(name)
    device = resolve_device(settings, hardware.cuda_devices())
    options = CheckpointOptions(name, device, settings.threads, settings.pocket_tts)
    return _translator(checkpoint_options.FACTORY, options, settings, metrics)


def check_translator(name: str) -> None:
    """Raise ModelLoadError for a translator that is neither bundled, nor made of directories and what is like a hub
    repository, or that wants a package which is not here."""
    models = models_of(name)
    for model in models or [name]:
        if model.count("/") != 1 and not Path(model).expanduser().exists():
            raise ModelLoadError(
                f"{model} is neither a directory nor a hub repository."
                f"{did_you_mean(model, ('auto', 'none', cascade.NAME))}",
                f"Give {cascade.NAME}, a directory, or a hub repository such as {checkpoint_options.LARGE} or "
                f"{checkpoint_options.MADLAD}.",
            )
    for package in checkpoint_options.PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise invocation.lacks(name, package)


def check_voices(pocket_tts: Sequence[str], translator: str) -> None:
    """Raise ConfigError for what Pocket TTS does not speak, or where the ``translator`` needs no voice, and
    ModelLoadError where its package is wanted and not here."""
    if pocket_tts and checkpoint_options.speaks(translator):
        raise ConfigError(
            f"--pocket-tts has no effect: {checkpoint_options.name_of(translator)} speaks its translations itself.",
            "Leave it out.",
        )
    for one in pocket_tts:
        pocket_options.split(one)
    if pocket_tts and importlib.util.find_spec(pocket_options.PACKAGE) is None:
        raise invocation.lacks("--pocket-tts", pocket_options.PACKAGE)


def _translator(
    factory: str, options: cascade.CascadeOptions | CheckpointOptions, settings: Settings, metrics: Metrics
) -> Translator:
    if options.notice:  # at the start, and not when a client first asks for rooms
        logger.info("%s: %s", TRANSLATE, options.notice)
    spec = TranslatorSpec(factory, options, getattr(logging, settings.log_level.upper()), _NICENESS)
    return Translator(lambda: TranslatorLink(spec), metrics, name=options.name, notice=options.notice)


def make_recognisers(settings: Settings, metrics: Metrics) -> list[EngineClient]:
    """Engines that write down what is said in rooms, in languages that the service transcribe does not know: not
    started yet. The bundled model has a sibling for Portuguese."""
    cuda = hardware.cuda_devices()
    stt = resolve_stt(settings, resolve_model(settings, cuda))
    if stt != PICO_STT or TRANSCRIBE in remote_engines(settings) or not bundled.is_complete(PICO_STT_PT):
        return []
    spec = _kyutai(f"{TRANSCRIBE}-pt", PICO_STT_PT, settings.stt_slots or _CPU_STT_SLOTS, "cpu", settings)
    beside = dataclasses.replace(spec, real_time=RealTime.UNMEASURED, niceness=_NICENESS)
    return [EngineClient(beside.service, _link_maker(beside, settings), metrics)]


def plan_simultaneous(settings: Settings, cuda_devices: int) -> EngineSpec | None:
    """The engine to start here that translates members of rooms while they speak, if there is one."""
    if not settings.simultaneous or SIMULTANEOUS in remote_engines(settings):
        return None
    device = resolve_device(settings, cuda_devices)
    slots = settings.simultaneous_slots or (_CPU_SLOTS if device == "cpu" else _CUDA_SLOTS)
    return _kyutai(SIMULTANEOUS, settings.simultaneous, slots, device, settings)


def make_simultaneous(settings: Settings, metrics: Metrics) -> tuple[EngineClient, Published] | None:
    """Its engine client, not started yet, and what it translates; None for none. Raises ConfigError, and ModelLoadError
    for what can be known to be missing by now."""
    if not settings.simultaneous:
        return None
    what = simultaneous.describe(settings.simultaneous, settings.simultaneous_pairs)
    if what.notice:
        logger.info("%s: %s", SIMULTANEOUS, what.notice)
    spec = plan_simultaneous(settings, hardware.cuda_devices())
    if spec is None:
        return EngineClient(SIMULTANEOUS, _remote_makers(settings)[SIMULTANEOUS], metrics, shared=True), what
    check_models([spec])
    return EngineClient(spec.service, _link_maker(spec, settings), metrics), what


def make_transcriber(settings: Settings, metrics: Metrics, streams: int) -> EngineClient:
    """The engine client of ``transcribe`` alone, for files, which can wait: not started yet, with no more slots than
    ``streams``. Raises ConfigError where no model is named: the one that comes with the server knows a few words, and
    what it makes of a file would not tell."""
    specs = [] if settings.stt == "auto" else plan(settings, hardware.cuda_devices())
    spec = next((spec for spec in specs if spec.service == TRANSCRIBE), None)
    if spec is None:
        small = f", or --stt {PICO_STT}, which comes with the server and knows a few hundred words"
        raise ConfigError(
            "There is no model to transcribe with.",
            hint=f"Name one: --stt kyutai/stt-1b-en_fr{small if bundled.is_complete(PICO_STT) else ''}.",
        )
    check_models([spec])
    options = dataclasses.replace(spec.options, slots=min(streams, spec.options.slots))
    few = dataclasses.replace(spec, options=options, real_time=RealTime.UNMEASURED)
    return EngineClient(few.service, _link_maker(few, settings), metrics)


def _link_maker(spec: EngineSpec, settings: Settings) -> Callable[[], EngineLink]:
    if spec.in_process:
        return lambda: LocalLink(lambda: make_model(spec.factory, spec.options), spec.real_time)
    child = child_spec(spec, settings)
    return lambda: ProcessLink(child)


def child_spec(spec: EngineSpec, settings: Settings) -> ChildSpec:
    """The engine as a process of its own."""
    log_level = getattr(logging, settings.log_level.upper())
    return ChildSpec(spec.factory, spec.options, spec.real_time, log_level, spec.niceness)

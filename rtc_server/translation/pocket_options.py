"""Which languages Kyutai's Pocket TTS is to speak. Apart from the voices, which import torch: the media plane
chooses."""

from __future__ import annotations

from typing import Final

from rtc_server.errors import ConfigError
from rtc_server.translation.languages import tag_of

PACKAGE: Final = "pocket_tts"
LANGUAGES: Final = {
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fr": "french",
    "it": "italian",
    "nl": "dutch",
    "pt": "portuguese",
}
"""What the package calls them."""
NOTICE: Final = "Voices by Kyutai's Pocket TTS: CC BY 4.0."
HINT: Final = (
    f"Give languages of the published models ({', '.join(LANGUAGES)}), or LANGUAGE=FILE.yaml for a model of another, "
    "with voices/*.wav beside that."
)


def split(one: str) -> tuple[str, str]:
    """``pt``, or ``pt=model.yaml``: the language's tag, and the file of its model, empty for the published one.
    Raises ConfigError."""
    name, _, config = one.partition("=")
    language = tag_of(name.strip())
    if language is None or not (config.strip() or language in LANGUAGES):
        raise ConfigError(f"--pocket-tts: {one} is no language that Pocket TTS speaks. {HINT}")
    return language, config.strip()

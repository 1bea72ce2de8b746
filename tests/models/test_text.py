"""Tokens become whole characters: padding is silent, bytes are held back until they are a character."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.models.kyutai.text import TextDecoder, piece_table

UNKNOWN, START, END, PADDING = range(4)
FIRST_BYTE = 4
WORD, SPACE, ACCENT, UNUSED = range(FIRST_BYTE + 256, FIRST_BYTE + 260)


@dataclass(frozen=True)
class Pieces:
    """A tokenizer with every kind of piece: four specials, all bytes, four words."""

    def piece_size(self) -> int:
        return UNUSED + 1

    def id_to_piece(self, id: int) -> str:
        if self.is_byte(id):
            return f"<0x{id - FIRST_BYTE:02X}>"
        names = {WORD: "▁well", SPACE: "▁", ACCENT: "né▁e", UNUSED: "unused"}
        return names.get(id, "<special>")

    def is_byte(self, id: int) -> bool:
        return FIRST_BYTE <= id < FIRST_BYTE + 256

    def is_control(self, id: int) -> bool:
        return id in {START, END}

    def is_unknown(self, id: int) -> bool:
        return id == UNKNOWN

    def is_unused(self, id: int) -> bool:
        return id == UNUSED


TABLE = piece_table(Pieces())


def byte_tokens(data: bytes) -> list[int]:
    return [FIRST_BYTE + byte for byte in data]


def decode(tokens: list[int]) -> list[str]:
    decoder = TextDecoder(TABLE)
    return [decoder.push(token) for token in tokens]


@pytest.mark.parametrize("token", [UNKNOWN, START, END, PADDING, UNUSED, -2, -1, UNUSED + 1, 10**9])
def test_what_is_not_text_writes_nothing(token: int) -> None:
    assert decode([token]) == [""]


def test_a_piece_writes_itself_with_its_space() -> None:
    assert decode([WORD, SPACE, ACCENT, WORD]) == [" well", " ", "né e", " well"]


def test_the_checkpoint_says_which_token_is_padding() -> None:
    table = piece_table(Pieces(), silent=(WORD,))
    assert TextDecoder(table).push(WORD) == ""
    assert TextDecoder(table).push(PADDING) == "<special>"


def test_a_character_waits_for_its_last_byte() -> None:
    assert decode(byte_tokens("€".encode())) == ["", "", "€"]


def test_padding_between_the_bytes_of_a_character_changes_nothing() -> None:
    first, second = byte_tokens("é".encode())
    assert decode([first, PADDING, PADDING, second]) == ["", "", "", "é"]


def test_a_word_after_half_a_character_replaces_the_half() -> None:
    assert decode([*byte_tokens(b"\xe2\x82"), WORD]) == ["", "", "\ufffd well"]


def test_a_byte_that_begins_no_character_is_replaced() -> None:
    assert decode([*byte_tokens(b"\x80"), WORD]) == ["\ufffd", " well"]


def test_reset_forgets_half_a_character() -> None:
    decoder = TextDecoder(TABLE)
    decoder.push(byte_tokens(b"\xe2")[0])
    decoder.reset()
    assert decoder.push(WORD) == " well"


@given(st.text(), st.data())
def test_any_text_comes_back_whole_however_it_is_cut(text: str, data: st.DataObject) -> None:
    """Bytes, with padding strewn in: each output holds whole characters only, and together they are the text."""
    tokens: list[int] = []
    for token in byte_tokens(text.encode()):
        tokens += [PADDING] * data.draw(st.integers(0, 2)) + [token]
    outputs = decode(tokens)
    assert "".join(outputs) == text
    assert all(len(output) <= 1 for output in outputs)


@given(st.binary())
def test_any_bytes_come_out_as_the_unicode_standard_has_it(data: bytes) -> None:
    """What is written is what Python would replace all at once, less what is still held back."""
    written = "".join(decode(byte_tokens(data)))
    everything = data.decode("utf-8", errors="replace")
    assert everything.startswith(written)
    # Up to three bytes are held back, as what may become a character; half a surrogate pair is replaced byte by byte.
    assert len(everything) - len(written) <= 3


def test_pieces_of_a_real_tokenizer() -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello you"] * 10),
        model_writer=model,
        model_type="bpe",
        vocab_size=1000,
        hard_vocab_limit=False,
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor()
    processor.load_from_serialized_proto(model.getvalue())
    decoder = TextDecoder(piece_table(processor))
    tokens = [1, 3, *processor.encode("hello €you"), 2]
    assert "".join(decoder.push(token) for token in tokens) == " hello €you"

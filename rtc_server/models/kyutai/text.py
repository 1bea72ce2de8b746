"""Turns a model's text tokens into whole characters, one token at a time.

Owns what a SentencePiece piece means as text, and the few bytes of a character that is not complete yet.
Knows no torch and no model: it is given a tokenizer and token numbers.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Sequence
from typing import Final, Protocol

_BYTE_PIECE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE_MARK: Final = "\u2581"
"""SentencePiece writes a space inside a piece as U+2581, LOWER ONE EIGHTH BLOCK."""


class PieceSource(Protocol):
    """The part of ``sentencepiece.SentencePieceProcessor`` that is used here."""

    def piece_size(self) -> int: ...

    def id_to_piece(self, id: int) -> str: ...

    def is_byte(self, id: int) -> bool: ...

    def is_control(self, id: int) -> bool: ...

    def is_unknown(self, id: int) -> bool: ...

    def is_unused(self, id: int) -> bool: ...


def piece_table(source: PieceSource, silent: Collection[int] = (0, 3)) -> tuple[bytes, ...]:
    """The UTF-8 bytes that each token writes, indexed by token; empty for those that write nothing.

    ``silent``: tokens that mean "no text in this frame". For Kyutai's models these are 0 (end of padding,
    ``existing_text_end_padding_id``) and 3 (padding, ``existing_text_padding_id``).
    Control, unknown and unused pieces write nothing either; a byte fallback (``<0xE2>``) writes its byte.
    """
    return tuple(b"" if token in silent else _piece_bytes(source, token) for token in range(source.piece_size()))


def _piece_bytes(source: PieceSource, token: int) -> bytes:
    if source.is_control(token) or source.is_unknown(token) or source.is_unused(token):
        return b""
    piece = source.id_to_piece(token)
    if source.is_byte(token):
        match = _BYTE_PIECE.fullmatch(piece)
        return bytes.fromhex(match.group(1)) if match else b""
    return piece.replace(_SPACE_MARK, " ").encode("utf-8", errors="replace")


class TextDecoder:
    """The text of one stream: tokens in, whole characters out.

    A character whose bytes come as several tokens is held back until it is complete. Bytes that cannot
    become a character are written as U+FFFD, as the Unicode standard recommends (section 3.9).
    """

    def __init__(self, table: Sequence[bytes]) -> None:
        """``table``: what each token writes, from :func:`piece_table`; shared between streams."""
        self._table = table
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The characters that ``token`` completes, often none. A token outside the table writes nothing."""
        if not 0 <= token < len(self._table):
            return ""
        return self._utf8.decode(self._table[token])

    @property
    def held_back(self) -> bytes:
        """Those of a character that is not complete, at most three: another decoder goes on from there by
        :meth:`resume`."""
        return self._utf8.getstate()[0]

    def resume(self, held_back: bytes) -> None:
        self._utf8.setstate((held_back, 0))

    def reset(self) -> None:
        """Forget the bytes that are held back."""
        self._utf8.reset()

"""Resume tokens: one at a time for a session, each good for one offer. Pure."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from rtc_server.errors import ResumeRefused


class ResumeTokens:
    """The tokens of one session. Kept as digests, so that a look at the memory of a server opens nothing."""

    def __init__(self) -> None:
        self._valid: bytes | None = None
        self._spent: tuple[bytes, bytes] | None = None

    def issue(self) -> str:
        """The next token. Those before it are worth nothing from now on."""
        token = secrets.token_urlsafe(24)
        self._valid = _digest(token)
        return token

    def expect(self, token: str) -> None:
        """Take a token that another media node has issued, in place of those before it."""
        self._valid = _digest(token)

    def redeem(self, token: str, offer: str) -> bool:
        """Spend a token on an offer. False: it has been spent on this very offer before, whose answer may have been
        lost on its way. Raises ResumeRefused for any other."""
        spent = (_digest(token), _digest(offer))
        if self._valid is not None and hmac.compare_digest(self._valid, spent[0]):
            self._valid, self._spent = None, spent
            return True
        if self._spent is not None and all(map(hmac.compare_digest, self._spent, spent)):
            return False
        raise ResumeRefused

    def restore(self) -> None:
        """The offer could not be answered: its token is good again."""
        if self._spent is not None:
            self._valid, self._spent = self._spent[0], None

    def settle(self) -> None:
        """The client is back: the offer that brought it gets no answer any more."""
        self._spent = None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

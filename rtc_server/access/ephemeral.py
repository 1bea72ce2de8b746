"""Keys that this server makes for a short time, for clients that must not have a lasting one, such as pages.

OpenAI's SDKs call them client secrets and know them by ``ek_``. Pure; time is an argument, in seconds since 1970.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import jwt

from rtc_server.access.credentials import MAX_CREDENTIAL_BYTES, Authenticator
from rtc_server.access.principals import Principal
from rtc_server.errors import Forbidden, TooLarge

PREFIX: Final = "ek_"
_ALGORITHM: Final = "HS256"
_AUDIENCE: Final = "client-secret"
_KEY_HOLDER: Final = "key/"


class EphemeralKeys:
    """Makes and verifies them. ``secret``: signs them; of this server's processes, and gone with them."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secrets.token_bytes(32) if secret is None else secret

    def issue(
        self,
        principal: Principal,
        now: float,
        ttl_s: float,
        service: str | None = None,
        language: str | None = None,
    ) -> tuple[str, int]:
        """A key that acts for ``principal``, and when it expires: no later than what that came in with. ``service``:
        the only one that it opens; None: those that the principal may use. ``language``: see :class:`Principal`.

        Raises Forbidden for a principal that is ephemeral itself, which would never expire, and one that may not use
        the service; TooLarge.
        """
        if principal.ephemeral:
            raise Forbidden("A client secret cannot make another one.")
        if service is not None and not principal.may_use(service):
            raise Forbidden
        most = now + ttl_s if principal.expires_at is None else min(now + ttl_s, principal.expires_at)
        services = principal.services if service is None else {service}
        claims: dict[str, Any] = {"aud": _AUDIENCE, "exp": int(most), "sub": principal.name}
        optional = {
            "services": None if services is None else sorted(services),
            "max_session_s": principal.max_session_s,
            "language": language,
        }
        claims |= {name: value for name, value in optional.items() if value is not None}
        key = PREFIX + jwt.encode(claims, self._secret, algorithm=_ALGORITHM)
        if len(key) > MAX_CREDENTIAL_BYTES:
            raise TooLarge(MAX_CREDENTIAL_BYTES, "The client secret would be too long: ask for one of one model.")
        return key, int(most)

    def find(self, credential: str, now: float, authenticator: Authenticator | None) -> Principal | None:
        """For whom a key acts; None for what is none of ours, or one that has expired. ``authenticator``: whose keys
        hold now. For a key that has been taken out of its file, nothing opens."""
        if not credential.startswith(PREFIX) or len(credential) > MAX_CREDENTIAL_BYTES:
            return None
        try:
            claims = jwt.decode(
                credential.removeprefix(PREFIX),
                self._secret,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["exp", "sub"], "verify_exp": False},
            )
        except (jwt.PyJWTError, ValueError):
            return None
        name, expires_at = claims["sub"], claims["exp"]
        revoked = authenticator is not None and name.startswith(_KEY_HOLDER) and not authenticator.knows(name)
        if now >= expires_at or revoked:
            return None
        services = claims.get("services")
        return Principal(
            name,
            None if services is None else frozenset(services),
            claims.get("max_session_s"),
            expires_at=expires_at,
            ephemeral=True,
            language=claims.get("language"),
        )

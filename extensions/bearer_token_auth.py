"""`bearertokenauth`: a token in a header, sent by exporters and asked for by receivers (RFC 6750, section 2.1)."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Self, TypeAlias

from pydantic import AfterValidator, Field, SecretStr, model_validator

from ..pipeline.authentication import ClientAuthenticator, Identity, ServerAuthenticator
from ..pipeline.component import ComponentConfig, Context, Factory
from ..pipeline.secret_file import SecretFile

#: What may stand in a header over both transports, and is no space at an end. No scheme has braces in it: they are left of a
#: reference that was not replaced.
_TOKEN: Final = re.compile(r"[!-z|~]([ -z|~]*[!-z|~])?")


def _sendable(token: SecretStr) -> SecretStr:
    """Without what ends a file, which is not a part of it."""
    text = token.get_secret_value().rstrip("\r\n")
    if not _TOKEN.fullmatch(text):
        raise ValueError("is no token: that is of printable ASCII without braces, and not empty")
    return SecretStr(text)


Token: TypeAlias = Annotated[SecretStr, AfterValidator(_sendable)]


class BearerTokenSettings(ComponentConfig):
    """filename: of a file with a token a line, which wins over token and tokens. Receivers take each of several; exporters send the
    first."""

    header: str = Field(default="Authorization", pattern=r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$")
    scheme: str = Field(default="Bearer", pattern="^[!-~]*$")
    token: Token | None = None
    tokens: list[Token] = Field(default_factory=list)
    filename: str | None = None

    @model_validator(mode="after")
    def _has_a_token(self) -> Self:
        if self.token is None and not self.tokens and self.filename is None:
            raise ValueError("needs token, tokens or filename")
        if self.token is not None and self.tokens:
            raise ValueError("token and tokens exclude each other")
        return self


class BearerTokenAuth:
    def __init__(self, settings: BearerTokenSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._header = settings.header.lower()
        self.challenge = settings.scheme or "Bearer"
        self._configured = [
            token.get_secret_value() for token in (settings.token, *settings.tokens) if token is not None
        ]
        self._file: SecretFile[Sequence[str]] | None = None

    def start(self) -> None:
        if self._settings.filename is not None:
            self._file = SecretFile(self._settings.filename, _tokens, self._context)

    def shutdown(self, deadline: float) -> None: ...

    def credentials(self) -> tuple[str, str]:
        return self._header, self._values()[0]

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        shown = headers.get(self._header, "").encode("latin-1", "replace")
        # Each is compared, so that the time does not tell which of them was nearly right.
        fitting = [hmac.compare_digest(value.encode(), shown) for value in self._values()]
        return Identity.KNOWN if any(fitting) else Identity.UNKNOWN

    def _values(self) -> list[str]:
        tokens = self._configured if self._file is None else self._file.content()
        return [f"{self._settings.scheme} {token}".lstrip() for token in tokens]


def _tokens(text: str) -> Sequence[str]:
    tokens = [line.strip() for line in text.splitlines() if line.strip()]
    if not tokens:
        raise ValueError("there is no token in it")
    if not all(map(_TOKEN.fullmatch, tokens)):
        raise ValueError("a token in it has braces, or other characters than printable ASCII")
    return tokens


FACTORY = Factory(
    "extension",
    "bearertokenauth",
    BearerTokenSettings,
    BearerTokenAuth,
    offers=(ClientAuthenticator, ServerAuthenticator),
)

"""Which pages of browsers may send (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol), answered as the Collector does.

A browser asks first (a preflight request), for any path and without credentials. What it is answered says what its page may do;
a page that may not is served all the same, for it is the browser that keeps it from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from ...pipeline.component import ComponentConfig

Fields: TypeAlias = tuple[tuple[str, str], ...]

#: may always be sent: without Content-Type there is no request of OTLP
_ALLOWED_HEADERS: Final = frozenset({"accept", "content-type", "x-requested-with"})
_ALLOWED_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})


#: RFC 9110, section 5.6.2: a token, of which * is one
HeaderName: TypeAlias = Annotated[str, Field(pattern=r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$")]


def _origin(text: str) -> str:
    if not re.fullmatch(r"\*|[a-zA-Z*][a-zA-Z0-9+.*-]*://[^/\s]+", text):
        raise ValueError("is no origin, such as https://shop.example or https://*.example")
    if text.count("*") > 1:
        raise ValueError("has more than one *")
    return text


class CorsSettings(ComponentConfig):
    """``cors``: allowed_origins may have a * for any characters. max_age: seconds for which a browser need not ask again; 0 leaves
    that to it, -1 is each time."""

    allowed_origins: list[Annotated[str, AfterValidator(_origin)]] = Field(default_factory=list)
    allowed_headers: list[HeaderName] = Field(default_factory=list)
    exposed_headers: list[HeaderName] = Field(default_factory=list)
    max_age: int = Field(default=0, ge=-1)

    @model_validator(mode="after")
    def _somebody_is_allowed(self) -> Self:
        if not self.allowed_origins and (self.allowed_headers or self.exposed_headers):
            raise ValueError("allowed_headers and exposed_headers mean nothing without allowed_origins")
        return self


class _Pattern(NamedTuple):
    before: str
    wildcard: str
    after: str

    def matches(self, origin: str) -> bool:
        if not self.wildcard:
            return origin == self.before
        fits = len(origin) >= len(self.before) + len(self.after)
        return fits and origin.startswith(self.before) and origin.endswith(self.after)


class Cors:
    """Headers of requests come with their names in lower case."""

    def __init__(self, settings: CorsSettings) -> None:
        self._settings = settings
        self._patterns = [_Pattern(*origin.lower().partition("*")) for origin in settings.allowed_origins]
        self._headers = _ALLOWED_HEADERS | {name.lower() for name in settings.allowed_headers}

    def preflight(self, method: str, headers: Mapping[str, str]) -> Fields | None:
        """What the reply, 204, to a question of a browser says; None if it is none."""
        asked = headers.get("access-control-request-method")
        if method != "OPTIONS" or not asked:
            return None
        vary = ("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
        origin, wanted = headers.get("origin", ""), headers.get("access-control-request-headers", "")
        if not self._allows(origin) or asked not in _ALLOWED_METHODS or not self._allows_headers(wanted):
            return (vary,)
        allowed = [vary, *self._allowed(origin), ("Access-Control-Allow-Methods", asked)]
        if wanted:
            allowed.append(("Access-Control-Allow-Headers", wanted))
        if self._settings.max_age:
            allowed.append(("Access-Control-Max-Age", str(max(0, self._settings.max_age))))
        return tuple(allowed)

    def of_reply(self, headers: Mapping[str, str]) -> Fields:
        """What the reply to any other request says."""
        vary, origin = ("Vary", "Origin"), headers.get("origin", "")
        if not self._allows(origin):
            return (vary,)
        exposed = ", ".join(self._settings.exposed_headers)
        return (vary, *self._allowed(origin), *((("Access-Control-Expose-Headers", exposed),) if exposed else ()))

    def _allowed(self, origin: str) -> Fields:
        whoever = "*" in self._settings.allowed_origins
        return (
            ("Access-Control-Allow-Origin", "*" if whoever else origin),
            ("Access-Control-Allow-Credentials", "true"),
        )

    def _allows(self, origin: str) -> bool:
        return origin != "" and any(pattern.matches(origin.lower()) for pattern in self._patterns)

    def _allows_headers(self, wanted: str) -> bool:
        return "*" in self._settings.allowed_headers or _names(wanted) <= self._headers


def _names(text: str) -> set[str]:
    return {name for part in text.split(",") if (name := part.strip().lower())}


def cors_of(settings: CorsSettings | None) -> Cors | None:
    return None if settings is None or not settings.allowed_origins else Cors(settings)

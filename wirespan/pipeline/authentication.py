"""Who sends: what exporters and receivers want of extensions that know, and how they are configured, with the Collector's keys.

Names of headers are in lower case throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Protocol, runtime_checkable

from .component import ComponentConfig, Context, ExtensionOf


class Identity(Enum):
    """What became of a look at who sends. BUSY: there was no time for it; the sender may ask again."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    BUSY = "busy"


@runtime_checkable
class ClientAuthenticator(Protocol):
    """Says to a backend who sends. Safe from any thread."""

    def credentials(self) -> tuple[str, str]:
        """A header's name and its value, as they are now."""


@runtime_checkable
class ServerAuthenticator(Protocol):
    """Knows who may send."""

    #: what a client is told to show (RFC 9110, section 11.6.1)
    challenge: str

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        """By the headers of a request. In whatever event loop the request came."""


class ClientAuthSettings(ComponentConfig):
    """``auth`` of an exporter."""

    authenticator: Annotated[str, ExtensionOf(ClientAuthenticator)]


class ServerAuthSettings(ComponentConfig):
    """``auth`` of a receiver."""

    authenticator: Annotated[str, ExtensionOf(ServerAuthenticator)]


def client_authenticator(settings: ClientAuthSettings | None, context: Context) -> ClientAuthenticator | None:
    """Raises StartError if the extension is none."""
    return None if settings is None else context.extension(settings.authenticator, ClientAuthenticator)


def server_authenticator(settings: ServerAuthSettings | None, context: Context) -> ServerAuthenticator | None:
    """Raises StartError if the extension is none."""
    return None if settings is None else context.extension(settings.authenticator, ServerAuthenticator)

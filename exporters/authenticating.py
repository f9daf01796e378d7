"""The extension that says to an exporter's backend who sends."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..pipeline.authentication import ClientAuthenticator, client_authenticator
from ..pipeline.component import Context
from .otlp_settings import OtlpSettings, is_loopback

logger = logging.getLogger(__name__)


def authenticator_of(settings: OtlpSettings, context: Context, plain: Iterable[str]) -> ClientAuthenticator | None:
    """plain: endpoints without TLS; what is secret is better not sent there, other than on this machine. Raises StartError."""
    authenticator = client_authenticator(settings.auth, context)
    if authenticator is not None and not all(map(is_loopback, plain)):
        logger.warning("Credentials are sent in the clear. Use TLS.", extra={"exporter": context.id})
    return authenticator

"""Configuration that ``otlp_grpc`` and ``otlp_http`` share, with the Collector's keys and defaults.

What the YAML leaves out is taken from the ``OTEL_EXPORTER_OTLP_*`` variables
(https://opentelemetry.io/docs/specs/otel/protocol/exporter/), those for traces first, then from the defaults.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias
from urllib.parse import unquote, urlsplit

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)

from ..pipeline.authentication import ClientAuthSettings
from ..pipeline.component import ComponentConfig, Signal
from ..pipeline.duration import Duration, within
from ..pipeline.tls import ClientTls
from .queue_settings import QueueSettings

#: The time of a wait or of an attempt.
Interval: TypeAlias = Annotated[Duration, within("1ms", "1h")]
_LONGEST_TIMEOUT_MS = 3_600_000
#: RFC 9110, section 5.6.2: a token
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class RetrySettings(ComponentConfig):
    """``retry_on_failure``: waits grow from initial_interval by multiplier to max_interval, each drawn within
    ± randomization_factor; given up after max_elapsed_time, never if that is 0."""

    enabled: bool = True
    initial_interval: Interval = 5.0
    multiplier: float = Field(default=1.5, ge=1, le=100)
    randomization_factor: float = Field(default=0.5, ge=0, le=1)
    max_interval: Interval = 30.0
    max_elapsed_time: Annotated[Duration, within("1ms", "720h", or_zero=True)] = 300.0


class OtlpSettings(ComponentConfig):
    """What an OTLP exporter of either transport is told. timeout: seconds an attempt may take. compression: auto
    means gzip, as in the Collector, but none over this machine's loopback: it takes more CPU than all else the agent does
    with a span (docs/performance.md), and saves nothing there."""

    #: what the protocol can carry as a header's value, and that in words
    header_value: ClassVar[re.Pattern[str]]
    header_value_text: ClassVar[str]

    endpoint: str
    tls: ClientTls = ClientTls()
    auth: ClientAuthSettings | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    compression: Literal["auto", "gzip", "zstd", "zlib", "deflate", "none"]
    timeout: Interval
    sending_queue: QueueSettings = QueueSettings()
    retry_on_failure: RetrySettings = RetrySettings()

    #: of the other signals than traces; empty if the YAML has ``headers``, which then are for all
    _own_headers: dict[Signal, dict[str, SecretStr]] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fall_back_to_environment(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        readers: dict[str, Callable[[], Any]] = {
            "compression": _compression,
            "timeout": _timeout,
            "headers": partial(_headers, "traces"),
        }
        found = {key: read() for key, read in readers.items() if key not in data}
        if "endpoint" not in data:
            found |= cls.endpoints_from_environment()
        tls = data.get("tls", {})
        if isinstance(tls, dict):
            data = {**data, "tls": _present(_tls_from_environment(tls.keys())) | tls}
        return _present(found) | data

    @model_validator(mode="wrap")
    @classmethod
    def _keep_headers_of_signals_apart(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Those of the variables for traces may be credentials of another backend than that of metrics or logs."""
        settings = handler(data)
        if isinstance(data, dict) and "headers" not in data:
            others: tuple[Signal, ...] = ("metrics", "logs")
            for signal in others:
                found = {name: SecretStr(value) for name, value in (_headers(signal) or {}).items()}
                settings._own_headers[signal] = cls._sendable(found)
        return settings

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        return cls._sendable(headers)

    @classmethod
    def _sendable(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        """The headers. Raises ValueError for what a transport would refuse with every request, and with the value in its words.
        A file with a token ends in a newline, which is not a part of it."""
        sent = {name: SecretStr(value.get_secret_value().rstrip("\r\n")) for name, value in headers.items()}
        for name, value in sent.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError("a header's name is of letters, digits and - . _ alone")
            if not cls.header_value.fullmatch(value.get_secret_value()):
                raise ValueError(f"the value of header {name} has characters other than {cls.header_value_text}")
        return sent

    @classmethod
    def endpoints_from_environment(cls) -> dict[str, str | None]:
        """The keys that say where to send to, when the YAML has no ``endpoint``."""
        return {"endpoint": variable("ENDPOINT")}

    def destination(self, signal: Signal) -> str:
        """Where its data goes, for the log."""
        return without_secrets(self.endpoint)

    def backend(self, signal: Signal) -> str:
        """Who answers for it: the same for signals that are sent to the same host and port."""
        return self.endpoint

    def compression_to(self, endpoint: str) -> str:
        """How requests to this URL or ``host:port`` are compressed: ``compression``, with auto decided."""
        if self.compression == "auto":
            return "none" if is_loopback(endpoint) else "gzip"
        return self.compression

    def header_values(self, signal: Signal) -> dict[str, str]:
        """The headers in the clear, for the transport only; names in lower case, as HTTP/2 demands."""
        headers = self._own_headers.get(signal, self.headers)
        return {name.lower(): value.get_secret_value() for name, value in headers.items()}


def without_secrets(url: str) -> str:
    """A URL, or ``host:port``, without user, password and query."""
    scheme, separator, rest = url.partition("?")[0].rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def variable(name: str, signal: Signal = "traces") -> str | None:
    """``OTEL_EXPORTER_OTLP_<signal>_<name>``, else the one for all signals; an empty one counts as unset."""
    return signal_variable(signal, name) or general_variable(name)


def _name_of(name: str, signal: Signal = "traces") -> str:
    """The variable that :func:`variable` takes."""
    return f"OTEL_EXPORTER_OTLP_{f'{signal.upper()}_' if signal_variable(signal, name) else ''}{name}"


def signal_variable(signal: Signal, name: str) -> str | None:
    return os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}") or None


def general_variable(name: str) -> str | None:
    return os.environ.get(f"OTEL_EXPORTER_OTLP_{name}") or None


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _tls_from_environment(given: Collection[str]) -> dict[str, Any]:
    """given: the keys that the YAML has; a variable names no file beside PEM that is there."""
    insecure = variable("INSECURE")
    found = {
        "insecure": None if insecure is None else insecure.lower() == "true",
        "ca_file": variable("CERTIFICATE"),
        "cert_file": variable("CLIENT_CERTIFICATE"),
        "key_file": variable("CLIENT_KEY"),
    }
    return {key: value for key, value in found.items() if key.replace("_file", "_pem") not in given}


def _compression() -> str | None:
    text = variable("COMPRESSION")
    if text not in (None, "gzip", "none"):
        raise ValueError(f'{_name_of("COMPRESSION")} is "{text}"; it can be gzip or none')
    return text


def _timeout() -> str | None:
    """The variable has no unit, where the key wants one."""
    text = variable("TIMEOUT")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _LONGEST_TIMEOUT_MS:
        expected = f"a whole number of milliseconds from 1 to {_LONGEST_TIMEOUT_MS}, such as 5000"
        raise ValueError(f'{_name_of("TIMEOUT")} is "{text}"; by the OpenTelemetry specification it is {expected}')
    return f"{text}ms"


def _headers(signal: Signal) -> dict[str, str] | None:
    """``key=value`` separated by commas, values percent-encoded (W3C Baggage without properties)."""
    text = variable("HEADERS", signal)
    if text is None:
        return None
    pairs = [item.partition("=") for item in text.split(",") if item.strip()]
    if not all(separator and key.strip() for key, separator, _ in pairs):
        raise ValueError(f"{_name_of('HEADERS', signal)} is not a list of key=value, separated by commas")
    return {unquote(key.strip()): unquote(value.strip()) for key, _, value in pairs}

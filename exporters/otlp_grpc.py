"""``otlp_grpc``: OTLP over gRPC, with our own bytes instead of message objects.

The method is called without serialisers, so a request's bytes go out as they were encoded. Which failures are retried:
https://opentelemetry.io/docs/specs/otlp/#failures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import model_validator

from .. import __version__
from ..pipeline.authentication import ClientAuthenticator
from ..pipeline.component import ALL_SIGNALS, Context, Factory, Signal
from ..pipeline.tls import Material, machines_authorities
from .authenticating import authenticator_of
from .otlp_response import PartialSuccess, partial_success, retry_delay
from .otlp_settings import Interval, OtlpSettings
from .quiet_grpc import grpc
from .renewing import connected
from .sending import PermanentError, RetryableError, SendingExporter, Transport

EXPORT_METHODS: Mapping[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}

_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

#: beginnings of what gRPC says when it is UNAVAILABLE because nobody answered, and not by the word of the backend
_NOBODY_ANSWERED = ("failed to connect", "DNS resolution failed", "name resolver")

_CHANNEL_OPTIONS = (
    ("grpc.primary_user_agent", f"wirespan/{__version__}"),
    # Retries are ours. And gRPC's own delay between connection attempts, by default up to two minutes in which every
    # call fails at once, would keep a backend that has come back waiting. The least of them is also what an attempt to
    # connect may take: less than a call's own time by default, so that a call that nobody answers says so.
    ("grpc.enable_retries", 0),
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


class OtlpGrpcSettings(OtlpSettings):
    """endpoint: ``host:port``, or a URL whose scheme says whether TLS is used."""

    header_value: ClassVar = re.compile(r"[ -~]*")
    header_value_text: ClassVar = "printable ASCII"

    endpoint: str = "http://localhost:4317"
    timeout: Interval = 5.0
    compression: Literal["auto", "gzip", "none"] = "auto"  # gRPC in Python has deflate beside, which Collectors do not

    @model_validator(mode="after")
    def _can_be_dialled(self) -> Self:
        if self.tls.insecure_skip_verify:
            raise ValueError(
                "tls.insecure_skip_verify is not possible with gRPC in Python; give the server's certificate as "
                "tls.ca_file, and its name as tls.server_name_override if it is another"
            )
        if self.tls.grpc_lacks is not None:
            raise ValueError(self.tls.grpc_lacks)
        if "://" in self.endpoint and urlsplit(self.endpoint).scheme not in ("http", "https"):
            raise ValueError(f"endpoint {self.endpoint!r} is neither host:port nor an http:// or https:// URL")
        if not self.target:
            raise ValueError("endpoint is empty")
        return self

    @property
    def target(self) -> str:
        """``host:port`` for gRPC."""
        return urlsplit(self.endpoint).netloc if "://" in self.endpoint else self.endpoint

    @property
    def plaintext(self) -> bool:
        return urlsplit(self.endpoint).scheme == "http" if "://" in self.endpoint else self.tls.insecure


class GrpcTransport:
    """A channel; it connects with the first request and again whenever that is lost."""

    def __init__(
        self, settings: OtlpGrpcSettings, material: Material, authenticator: ClientAuthenticator | None = None
    ) -> None:
        self._authenticator = authenticator
        self._metadata = {signal: settings.header_values(signal) for signal in EXPORT_METHODS}
        compressed = settings.compression_to(settings.target) == "gzip"
        self._compression = grpc.Compression.Gzip if compressed else grpc.Compression.NoCompression
        self._channel = _channel(settings, material)
        self._export = {  # what is already encoded
            signal: self._channel.unary_unary(method, bytes, bytes) for signal, method in EXPORT_METHODS.items()
        }

    def send(self, signal: Signal, payload: bytes, timeout: float) -> PartialSuccess:
        metadata = self._metadata[signal]
        if self._authenticator is not None:
            metadata = metadata | dict([self._authenticator.credentials()])
        try:
            response: bytes = self._export[signal](
                payload, timeout=timeout, metadata=tuple(metadata.items()), compression=self._compression
            )
        except grpc.RpcError as error:
            raise _failure(error) from error
        return partial_success(response)

    def close(self) -> None:
        self._channel.close()


def _channel(settings: OtlpGrpcSettings, material: Material) -> grpc.Channel:
    if settings.plaintext:
        return grpc.insecure_channel(settings.target, _CHANNEL_OPTIONS)
    override = settings.tls.server_name_override
    options = (*_CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", override)) if override else _CHANNEL_OPTIONS
    authorities = material.authorities or machines_authorities() or None
    credentials = grpc.ssl_channel_credentials(authorities, material.key, material.certificate)
    return grpc.secure_channel(settings.target, credentials, options)


def _failure(error: grpc.RpcError) -> RetryableError | PermanentError:
    assert isinstance(error, grpc.Call)  # of a unary call it always is
    code, reason = error.code(), f"{error.code().name}: {error.details()}"
    metadata = dict(error.trailing_metadata() or ())
    status = metadata.get("grpc-status-details-bin", b"")
    delay = retry_delay(status if isinstance(status, bytes) else b"")
    if code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay is not None):
        unanswered = (error.details() or "").startswith(_NOBODY_ANSWERED)
        return RetryableError(reason, delay, unanswered)
    return PermanentError(reason)


def _create(settings: OtlpGrpcSettings, context: Context) -> SendingExporter:
    def connect() -> Transport:
        plain = [settings.target] if settings.plaintext else []
        authenticator = authenticator_of(settings, context, plain)
        tls = None if settings.plaintext else settings.tls
        return connected(tls, context, lambda material: GrpcTransport(settings, material, authenticator))

    return SendingExporter(settings, context, connect)


FACTORY = Factory(
    "exporter",
    "otlp_grpc",
    OtlpGrpcSettings,
    _create,
    deprecated_names=("otlp",),
    signals=ALL_SIGNALS,
    encoded_spans=True,
)

"""``otlp_http``: OTLP over HTTP in protobuf (https://opentelemetry.io/docs/specs/otlp/#otlphttp)."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

import urllib3
from pydantic import model_validator

from .. import __version__
from ..pipeline.authentication import ClientAuthenticator
from ..pipeline.component import ALL_SIGNALS, Context, Factory, Signal
from ..pipeline.tls import Material
from .authenticating import authenticator_of
from .compressing import LEVELS, CompressionParameters, compressor
from .otlp_response import PartialSuccess, partial_success, status_message
from .otlp_settings import (
    Interval,
    OtlpSettings,
    general_variable,
    signal_variable,
    without_secrets,
)
from .renewing import connected
from .sending import PermanentError, RetryableError, SendingExporter, Transport

_RETRYABLE = frozenset({429, 502, 503, 504})
#: a name that is not known is a NewConnectionError too
_NOBODY_ANSWERED = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
_SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
_CONTENT_TYPE = "application/x-protobuf"
#: More of an answer is not read; the connection is closed instead.
_LONGEST_ANSWER = 64 * 1024


class OtlpHttpSettings(OtlpSettings):
    """endpoint: a URL to which ``/v1/<signal>`` is added. <signal>_endpoint: the whole URL, used as it is."""

    #: RFC 9110, section 5.5: no controls but the tab
    header_value: ClassVar = re.compile(r"[\t -~\x80-\xff]*")
    header_value_text: ClassVar = "those of Latin-1 that can be printed"

    endpoint: str = "http://localhost:4318"
    traces_endpoint: str | None = None
    metrics_endpoint: str | None = None
    logs_endpoint: str | None = None
    timeout: Interval = 30.0
    compression: Literal["auto", "gzip", "zstd", "zlib", "deflate", "none"] = "auto"
    compression_params: CompressionParameters = CompressionParameters()

    @classmethod
    def endpoints_from_environment(cls) -> dict[str, str | None]:
        own: dict[str, str | None] = {f"{signal}_endpoint": signal_variable(signal, "ENDPOINT") for signal in _SIGNALS}
        return {"endpoint": general_variable("ENDPOINT"), **own}

    @model_validator(mode="after")
    def _the_level_is_one_of_the_compression(self) -> Self:
        level, levels = self.compression_params.level, LEVELS.get(self.compression)
        if level is not None and (levels is None or level not in levels):
            known = "has no levels" if levels is None else f"has the levels {levels[0]} to {levels[-1]}"
            raise ValueError(f"compression_params.level is {level}, but compression {self.compression} {known}")
        return self

    @model_validator(mode="after")
    def _are_urls(self) -> Self:
        for url in map(self.url, _SIGNALS):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"endpoint {url!r} is not an http:// or https:// URL")
        return self

    @property
    def encrypted(self) -> bool:
        """Whether any signal is sent by TLS."""
        return any(urlsplit(self.url(signal)).scheme == "https" for signal in _SIGNALS)

    def url(self, signal: Signal) -> str:
        """Where its requests are posted to."""
        own: str | None = getattr(self, f"{signal}_endpoint")
        return own or f"{self.endpoint.rstrip('/')}/v1/{signal}"

    def destination(self, signal: Signal) -> str:
        return without_secrets(self.url(signal))

    def backend(self, signal: Signal) -> str:
        return urlsplit(self.url(signal)).netloc


class HttpTransport:
    """A pool of connections that are kept alive, for each backend one a consumer."""

    def __init__(
        self, settings: OtlpHttpSettings, material: Material, authenticator: ClientAuthenticator | None = None
    ) -> None:
        self._authenticator = authenticator
        self._urls = {signal: settings.url(signal) for signal in _SIGNALS}
        self._encodings = {signal: settings.compression_to(url) for signal, url in self._urls.items()}
        level = settings.compression_params.level
        self._compress = {name: compressor(name, level) for name in set(self._encodings.values())}
        self._headers = {"User-Agent": f"wirespan/{__version__}", "Content-Type": _CONTENT_TYPE}
        self._headers_of = {signal: settings.header_values(signal) for signal in _SIGNALS}
        self._pool = _pool(settings, material)

    def send(self, signal: Signal, payload: bytes, timeout: float) -> PartialSuccess:
        encoding = self._encodings[signal]
        body, headers = self._compress[encoding](payload), self._headers | self._headers_of[signal]
        if encoding != "none":
            headers["Content-Encoding"] = encoding
        if self._authenticator is not None:
            headers |= dict([self._authenticator.credentials()])
        try:
            status, answered, answer = self._post(self._urls[signal], body, headers, timeout)
        except urllib3.exceptions.HTTPError as error:
            raise RetryableError(str(error), unreachable=isinstance(error, _NOBODY_ANSWERED)) from error
        if 200 <= status < 300:
            return partial_success(answer) if answered.get("Content-Type") == _CONTENT_TYPE else PartialSuccess()
        reason = f"HTTP {status} {status_message(answer)}".rstrip()
        if status in _RETRYABLE:
            raise RetryableError(reason, _retry_after(answered.get("Retry-After")))
        raise PermanentError(reason)

    def close(self) -> None:
        self._pool.clear()

    def _post(
        self, url: str, body: bytes, headers: dict[str, str], timeout: float
    ) -> tuple[int, urllib3.HTTPHeaderDict, bytes]:
        response = self._pool.request(
            "POST",
            url,
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(total=timeout),
            retries=False,
            preload_content=False,
        )
        answer = response.read(_LONGEST_ANSWER)
        if len(answer) < _LONGEST_ANSWER:
            response.release_conn()
        else:
            response.close()
        return response.status, response.headers, answer


def _pool(settings: OtlpHttpSettings, material: Material) -> urllib3.PoolManager:
    tls: dict[str, Any] = {}
    if settings.encrypted:
        context, name = settings.tls.context(material), settings.tls.server_name_override
        tls = {"ssl_context": context, "server_hostname": name}
        if settings.tls.insecure_skip_verify:  # it warns at each connection, but it was asked for
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return urllib3.PoolManager(num_pools=len(_SIGNALS), maxsize=settings.sending_queue.num_consumers, **tls)


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header (RFC 9110, section 10.2.3): a number of them or a date; None if neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):  # a date beyond what datetime can hold
        return None


def _create(settings: OtlpHttpSettings, context: Context) -> SendingExporter:
    def connect() -> Transport:
        plain = [url for signal in context.signals if urlsplit(url := settings.url(signal)).scheme == "http"]
        authenticator = authenticator_of(settings, context, plain)
        tls = settings.tls if settings.encrypted else None
        return connected(tls, context, lambda material: HttpTransport(settings, material, authenticator))

    return SendingExporter(settings, context, connect)


FACTORY = Factory(
    "exporter",
    "otlp_http",
    OtlpHttpSettings,
    _create,
    deprecated_names=("otlphttp",),
    signals=ALL_SIGNALS,
    encoded_spans=True,
)

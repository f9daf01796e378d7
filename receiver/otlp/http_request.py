"""A request of OTLP over HTTP and its reply, without the connection (https://opentelemetry.io/docs/specs/otlp/#otlphttp)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from ...pipeline.component import Signal
from ...pipeline.http_server import Reply
from ...pipeline.protobuf import MalformedMessage
from .answers import RETRY_SECONDS, Code, status, status_json
from .decompression import body_limit, decompressed
from .intake import Intake, TooLarge, Verdict
from .json_request import encoded
from .settings import HttpServerSettings

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Refusal(Reply):
    """reason: under which it is counted, if it is."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of an acceptable request says. length: bytes of the body, None if that is not said."""

    signal: Signal
    content_type: str
    encoding: str
    length: int | None


def refusal(
    http_status: HTTPStatus,
    message: str,
    content_type: str = PROTOBUF,
    headers: tuple[tuple[str, str], ...] = (),
    reason: str = "",
) -> Refusal:
    """A reply whose body is a Status."""
    code = {
        HTTPStatus.SERVICE_UNAVAILABLE: Code.UNAVAILABLE,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Code.RESOURCE_EXHAUSTED,
        HTTPStatus.INTERNAL_SERVER_ERROR: Code.INTERNAL,
        HTTPStatus.UNAUTHORIZED: Code.UNAUTHENTICATED,
    }.get(http_status, Code.INVALID_ARGUMENT)
    body = status_json(code, message) if content_type == JSON else status(code, message)
    return Refusal(http_status, content_type, body, headers, reason)


def busy(content_type: str = PROTOBUF, reason: str = "") -> Refusal:
    retry = (("Retry-After", str(RETRY_SECONDS)),)
    return refusal(HTTPStatus.SERVICE_UNAVAILABLE, "no room; try again later", content_type, retry, reason)


def too_large(error: TooLarge, content_type: str) -> Refusal:
    return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error), content_type, reason="too_large")


def unauthenticated(headers: Mapping[str, str], challenge: str) -> Refusal:
    """challenge: what has to be shown."""
    shown = (("WWW-Authenticate", challenge),)
    message = "credentials are missing, or wrong"
    content_type = JSON if content_type_of(headers) == JSON else PROTOBUF
    return refusal(HTTPStatus.UNAUTHORIZED, message, content_type, shown, "unauthenticated")


def content_type_of(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def read_head(
    settings: HttpServerSettings, signals: Iterable[Signal], method: str, target: str, headers: Mapping[str, str]
) -> Head | Refusal:
    """What a request asks for, or the refusal that its head earns. Names of headers are in lower case."""
    path = target.partition("?")[0]
    signal = next((signal for signal in signals if settings.path(signal) == path), None)
    if signal is None:
        return refusal(HTTPStatus.NOT_FOUND, "nothing is received at this path")
    if method != "POST":
        return refusal(HTTPStatus.METHOD_NOT_ALLOWED, "only POST is", headers=(("Allow", "POST"),))
    content_type = content_type_of(headers)
    if content_type not in (PROTOBUF, JSON):
        message = f"Content-Type has to be {PROTOBUF} or {JSON}"
        return refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message, reason="unsupported")
    encoding = headers.get("content-encoding", "").strip().lower() or "identity"
    encodings = [name or "identity" for name in settings.compression_algorithms]
    if encoding not in encodings:
        accepted = (("Accept-Encoding", ", ".join(encodings)),)
        message = f"Content-Encoding has to be one of {', '.join(encodings)}"
        return refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message, content_type, accepted, "unsupported")
    length = headers.get("content-length")
    if length is not None and int(length) > settings.max_request_body_size:  # h11 has seen that it is a number
        return too_large(body_limit(settings.max_request_body_size), content_type)
    return Head(signal, content_type, encoding, None if length is None else int(length))


def handle(intake: Intake, settings: HttpServerSettings, head: Head, body: bytes, sender: str) -> Reply:
    """The reply to a request whose body is there. sender: its address."""
    try:
        data = decompressed(body, head.encoding, settings.max_request_body_size)
        if head.content_type == JSON:
            data = encoded(head.signal, data)
    except TooLarge as error:
        return too_large(error, head.content_type)
    except MalformedMessage as error:
        return refusal(HTTPStatus.BAD_REQUEST, str(error), head.content_type, reason="malformed")
    return _reply(intake.take(head.signal, data, "http", sender), head.content_type)


def _reply(verdict: Verdict, content_type: str) -> Reply:
    match verdict:
        case Verdict.OK:
            return Reply(HTTPStatus.OK, content_type, b"{}" if content_type == JSON else b"")
        case Verdict.BUSY:
            return busy(content_type)
        case Verdict.MALFORMED:
            return refusal(HTTPStatus.BAD_REQUEST, "not a request of this signal", content_type)
        case Verdict.FAILED:
            message = "the request could not be handled"
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, message, content_type)

"""What to look at when a backend cannot be talked to at all: transports' own words are about handshakes and frames."""

from __future__ import annotations

#: a server that gets no TLS, or another protocol, says nothing: it closes
_PERHAPS_TLS = "the backend may speak TLS (https://), or another protocol, on this port"
#: what an error says, and what it means for the configuration; the first that fits
_ADVICE = (
    ("WRONG_VERSION_NUMBER", "the backend speaks no TLS on this port: use http:// in the endpoint, or tls.insecure"),
    ("CERTIFICATE_VERIFY_FAILED", "the backend's certificate is not trusted: see tls.ca_file"),
    (
        "Hostname Verification Check failed",
        "the backend's certificate is for another name: see tls.server_name_override",
    ),
    (
        "Expected SETTINGS frame",
        "the backend speaks HTTP/1.1 on this port: use otlp_http, or its port for gRPC, often 4317",
    ),
    (
        "Connection refused",
        "nothing listens there: is the backend running, and is endpoint right? Its port is usually 4317 for otlp_grpc and "
        "4318 for otlp_http; in a container, localhost is the container itself",
    ),
    ("Socket closed", _PERHAPS_TLS),
    ("Remote end closed connection without response", _PERHAPS_TLS),
    ("Connection reset by peer", _PERHAPS_TLS),
)


def advice_on(error: str) -> dict[str, str]:
    """The field ``advice`` of a log line; none if there is nothing to say."""
    return next(({"advice": advice} for words, advice in _ADVICE if words in error), {})

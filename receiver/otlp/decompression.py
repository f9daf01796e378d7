"""What is in a compressed body, of which no more is made than may be: a zip bomb takes the limit and no byte beyond.

Names of encodings are the Collector's; HTTP calls zlib's format deflate.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from ...pipeline.protobuf import MalformedMessage
from .intake import TooLarge

#: What a frame of zstd looks back on is allocated before anything comes out. Encoders with default settings want so much,
#: as a power of two: 8 MiB.
_ZSTD_WINDOW_LOG: Final = 23
#: members of gzip, or frames of zstd, that a body may be made of: what is left is copied for each
PARTS: Final = 64


class _Decompressor(Protocol):
    """As zlib and zstd have it alike, for one member of a gzip file or one frame of zstd."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


def _zlib(window: int, limit: int) -> tuple[Callable[[], Any], type[Exception]]:
    return partial(zlib.decompressobj, window), zlib.error


def _zstd(limit: int) -> tuple[Callable[[], Any], type[Exception]]:
    from backports import zstd  # only now: few use it

    window = max(_ZSTD_WINDOW_LOG, limit.bit_length() - 1)
    options = {int(zstd.DecompressionParameter.window_log_max): window}
    return partial(zstd.ZstdDecompressor, options=options), zstd.ZstdError


_CODECS: Final[Mapping[str, Callable[[int], tuple[Callable[[], _Decompressor], type[Exception]]]]] = {
    "gzip": partial(_zlib, 31),  # zlib's wbits: the header of gzip; of zlib
    "zstd": _zstd,
    "zlib": partial(_zlib, 15),
    "deflate": partial(_zlib, 15),
}


def body_limit(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than max_request_body_size, {limit} bytes")


def decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    """Raises TooLarge, before more than the limit is there, or MalformedMessage."""
    if encoding == "identity":
        return body
    decompressor_of_a_part, error_of_codec = _CODECS[encoding](limit)
    whole = bytearray()
    try:
        for _ in range(PARTS):
            decompressor = decompressor_of_a_part()
            whole += decompressor.decompress(body, limit + 1 - len(whole))
            if len(whole) > limit:
                raise body_limit(limit)
            if not decompressor.eof:
                raise MalformedMessage("the compressed body is cut off")
            body = decompressor.unused_data
            if not body:
                return bytes(whole)
    except error_of_codec as error:
        raise MalformedMessage("the body cannot be decompressed") from error
    raise MalformedMessage(f"the compressed body has more than {PARTS} parts")

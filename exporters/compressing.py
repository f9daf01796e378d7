"""How requests over HTTP are compressed: names as in the Collector, which calls zlib's format deflate as HTTP does."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

from ..pipeline.component import ComponentConfig

Compressor: TypeAlias = Callable[[bytes], bytes]

_OF_ZLIB: Final = range(-1, 10)
#: by compression, the levels that it has. Those of zstd above 11 take more time than any backend is worth.
LEVELS: Final[Mapping[str, Sequence[int]]] = {
    "gzip": _OF_ZLIB,
    "zlib": _OF_ZLIB,
    "deflate": _OF_ZLIB,
    "zstd": range(1, 12),
}
#: Measured with batches of 5,000 spans: 10 % more bytes than level 9, in 30 % of its time.
_ZLIB_LEVEL: Final = 1
#: Measured likewise: a third of the bytes of gzip's level 1, in a third of its time; level 1 has twice as many, in as long.
_ZSTD_LEVEL: Final = 3


class CompressionParameters(ComponentConfig):
    """level: as the compression counts them; None is the one that was found best."""

    level: int | None = None


def compressor(compression: str, level: int | None) -> Compressor:
    """What compresses a request. Safe from any thread."""
    match compression:
        case "none":
            return bytes
        case "gzip":
            return partial(gzip.compress, compresslevel=_ZLIB_LEVEL if level is None else level)
        case "zstd":
            from backports import zstd  # only now: few use it

            return partial(zstd.compress, level=level or _ZSTD_LEVEL)
        case _:
            return partial(zlib.compress, level=_ZLIB_LEVEL if level is None else level)

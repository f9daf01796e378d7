"""Bodies of requests: what they are made of, and what a hostile one can take."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from backports import zstd

from wirespan.pipeline.protobuf import MalformedMessage
from wirespan.receiver.otlp.decompression import PARTS, decompressed
from wirespan.receiver.otlp.intake import TooLarge

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress, "zlib": zlib.compress}
of_each_encoding = pytest.mark.parametrize("encoding", COMPRESS)
of_each_with_parts = pytest.mark.parametrize("encoding", ["gzip", "zstd"])


@of_each_encoding
def test_of_a_bomb_no_more_is_made_than_may_be(encoding: str) -> None:
    bomb = COMPRESS[encoding](bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decompressed(bomb, encoding, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@of_each_encoding
def test_a_body_of_just_the_limit_is_taken(encoding: str) -> None:
    assert decompressed(COMPRESS[encoding](bytes(1_000)), encoding, 1_000) == bytes(1_000)
    with pytest.raises(TooLarge):
        decompressed(COMPRESS[encoding](bytes(1_001)), encoding, 1_000)


@of_each_with_parts
def test_a_body_of_several_parts_is_one(encoding: str) -> None:
    parts = COMPRESS[encoding](b"one ") + COMPRESS[encoding](b"two")
    assert decompressed(parts, encoding, 100) == b"one two"


@of_each_with_parts
def test_a_body_of_countless_empty_parts_is_refused_before_it_takes_time(encoding: str) -> None:
    assert decompressed(COMPRESS[encoding](b"") * PARTS, encoding, 100) == b""
    with pytest.raises(MalformedMessage, match="more than 64 parts"):
        decompressed(COMPRESS[encoding](b"") * 1_000_000, encoding, 100)


@pytest.mark.parametrize(
    ("window_log", "limit", "taken"), [(23, 1_000, True), (24, 1_000, False), (24, 20_000_000, True)]
)
def test_zstd_gets_no_larger_window_than_a_body_may_have_or_encoders_take_by_default(
    window_log: int, limit: int, taken: bool
) -> None:
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    body = compressor.compress(b"short") + compressor.flush()
    if taken:
        assert decompressed(body, "zstd", limit) == b"short"
    else:
        with pytest.raises(MalformedMessage):
            decompressed(body, "zstd", limit)

"""Which parser is asked, and that none is asked in vain."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from wirespan.receiver.protocols.parser import Parser
from wirespan.receiver.protocols.registry import HTTP1_PARSER, PARSERS, RESP_PARSER, recognise, third_party_parsers

HEADS = [
    (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", HTTP1_PARSER),
    (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", RESP_PARSER),
    (b"GET /key\r\n", b"$-1\r\n", RESP_PARSER),
    (b"\x00\x00\x00\x10binary", b"\x00\x00\x00\x04", None),
    (b"", b"", None),
]


@pytest.mark.parametrize(("request_head", "response_head", "parser"), HEADS)
def test_the_parser_that_knows_the_heads_is_found(
    request_head: bytes, response_head: bytes, parser: Parser | None
) -> None:
    assert recognise(request_head, response_head) is parser


def test_parsers_have_names_of_their_own() -> None:
    assert len({parser.name for parser in PARSERS}) == len(PARSERS)


def install(folder: Path, name: str, code: str) -> None:
    """A package that offers a parser."""
    (folder / f"{name}.py").write_text(code)
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[wirespan.protocols]\n{name} = {name}:PARSER\n")


def test_a_parser_of_an_installed_package_is_asked_last(tmp_path: Path) -> None:
    install(
        tmp_path,
        "shouting",
        "class Shouting:\n"
        "    name = 'shouting'\n"
        "    def recognises(self, request, response): return request.startswith(b'HEY!')\n"
        "PARSER = Shouting()\n",
    )
    code = (
        "from wirespan.receiver.protocols.registry import PARSERS, recognise\n"
        "print([parser.name for parser in PARSERS], recognise(b'HEY!', b'').name)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "['http', 'redis', 'dns', 'tls', 'shouting'] shouting\n", result.stderr


def test_a_parser_that_cannot_be_loaded_is_reported_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(tmp_path, "broken_parser", "raise RuntimeError('needs a licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert third_party_parsers() == ()
    assert "'broken_parser' (broken_parser:PARSER) cannot be loaded: needs a licence" in caplog.text

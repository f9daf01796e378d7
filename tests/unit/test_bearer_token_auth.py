"""`bearertokenauth`: which token is sent, which are taken, and a file of them that changes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import ValidationError

from support.authenticating import reloads, running
from support.certificates import replace
from support.waiting import wait_until
from wirespan.extensions.bearer_token_auth import FACTORY, BearerTokenAuth
from wirespan.pipeline.authentication import Identity
from wirespan.pipeline.component import StartError
from wirespan.pipeline.counters import Counters


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirespan.pipeline.secret_file._LOOK_SECONDS", 0.05)


def is_known(extension: BearerTokenAuth, value: str, header: str = "authorization") -> bool:
    return asyncio.run(extension.identify({header: value})) is Identity.KNOWN


def test_what_is_sent_is_what_is_asked_for() -> None:
    with running(FACTORY, token="s3cret") as extension:
        assert extension.credentials() == ("authorization", "Bearer s3cret")
        assert is_known(extension, "Bearer s3cret")
        for wrong in ("", "Bearer", "Bearer ", "s3cret", "bearer s3cret", "Bearer s3cre", "Bearer s3crets", "Bearer §"):
            assert not is_known(extension, wrong)
        assert not is_known(extension, "Bearer s3cret", "x-api-key")


def test_header_and_scheme_can_be_others() -> None:
    with running(FACTORY, token="s3cret", header="X-API-Key", scheme="") as extension:
        assert extension.credentials() == ("x-api-key", "s3cret")
        assert is_known(extension, "s3cret", "x-api-key")
        assert not is_known(extension, "s3cret")


def test_of_several_tokens_the_first_is_sent_and_each_is_taken() -> None:
    with running(FACTORY, tokens=["one", "two"]) as extension:
        assert extension.credentials() == ("authorization", "Bearer one")
        assert [is_known(extension, f"Bearer {token}") for token in ("one", "two", "three")] == [True, True, False]


def test_tokens_of_a_file_are_used_instead_and_change_with_it(tmp_path: Path) -> None:
    file, counters = tmp_path / "tokens", Counters()
    file.write_text("\n one \r\ntwo\n\n")
    with running(FACTORY, counters, token="ignored", filename=str(file)) as extension:
        assert extension.credentials() == ("authorization", "Bearer one")
        assert [is_known(extension, f"Bearer {token}") for token in ("two", "ignored", "")] == [True, False, False]
        replace(file, b"three\n")
        wait_until("it is sent", lambda: extension.credentials() == ("authorization", "Bearer three"))
        assert [is_known(extension, f"Bearer {token}") for token in ("three", "one")] == [True, False]
        assert reloads(counters, "succeeded") == 1


@pytest.mark.parametrize(
    "content", [b"", b"\n \n", b"a\x00b", "tök".encode(), b"\xff", b"x" * 2_000_000, None], ids=range(7)
)
def test_a_file_that_cannot_be_used_changes_nothing_and_is_said_without_what_is_in_it(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, counters = tmp_path / "tokens", Counters()
    file.write_text("one")
    with running(FACTORY, counters, filename=str(file)) as extension:
        replace(file, content) if content is not None else file.unlink()
        wait_until("two looks", lambda: extension.credentials() and reloads(counters, "failed") >= 2)
        assert extension.credentials() == ("authorization", "Bearer one")
        (said,) = [vars(record) for record in caplog.records if "cannot be reloaded" in record.message]
        assert said["error"].startswith(f"cannot read {file}: ")
        assert not content or content.decode("latin-1").strip() == "" or content.decode("latin-1") not in said["error"]
        replace(file, b"two")
        wait_until("it is used again", lambda: extension.credentials() == ("authorization", "Bearer two"))
    with pytest.raises(StartError, match="cannot read"), running(FACTORY, filename=f"{file}.none"):
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs token, tokens or filename"),
        ({"token": "a", "tokens": ["b"]}, "token and tokens exclude each other"),
        ({"token": ""}, "is no token: that is of printable ASCII"),
        ({"tokens": ["a\nb"]}, "is no token: that is of printable ASCII"),
        ({"token": "a", "header": "a b"}, "String should match pattern"),
        ({"token": "a", "scheme": "a b"}, "String should match pattern"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FACTORY.config.model_validate(given)


def test_a_newline_at_the_end_of_a_token_is_not_a_part_of_it() -> None:
    with running(FACTORY, token="s3cret\n") as extension:
        assert extension.credentials() == ("authorization", "Bearer s3cret")

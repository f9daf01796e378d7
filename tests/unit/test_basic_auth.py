"""`basicauth`: users of htpasswd files, what a wrong password costs, and what exporters show."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import bcrypt
import pytest
from pydantic import ValidationError

from support.authenticating import basic, reloads, running
from support.certificates import replace
from support.waiting import wait_until
from wirespan.extensions import basic_auth
from wirespan.extensions.basic_auth import FACTORY, BasicAuthServer
from wirespan.pipeline.authentication import ClientAuthenticator, Identity, ServerAuthenticator
from wirespan.pipeline.component import StartError
from wirespan.pipeline.counters import Counters

PASSWORD = "pä:ss wörd"
LONG = "0123456789" * 8


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirespan.pipeline.secret_file._LOOK_SECONDS", 0.05)


def identified(extension: BasicAuthServer, headers: Mapping[str, str]) -> Identity:
    return asyncio.run(extension.identify(headers))


def knows(extension: BasicAuthServer, user: str, password: str) -> bool:
    return identified(extension, basic(user, password)) is Identity.KNOWN


def openssl_hash(kind: str, password: str) -> str:
    words = ["openssl", "passwd", f"-{kind}", password]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def bcrypt_hash(password: str) -> str:
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(5)).decode()


def sha_hash(password: str) -> str:
    return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()


def ssha_hash(password: str) -> str:
    return "{SSHA}" + base64.b64encode(hashlib.sha1(password.encode() + b"salt").digest() + b"salt").decode()


HASHES = {
    "plain": str,
    "bcrypt": bcrypt_hash,
    "bcrypt of htpasswd": lambda password: bcrypt_hash(password).replace("$2b$", "$2y$"),
    "sha": sha_hash,
    "ssha": ssha_hash,
    "apr1": lambda password: openssl_hash("apr1", password),
    "sha256": lambda password: openssl_hash("5", password),
    "sha512": lambda password: openssl_hash("6", password),
}


@pytest.mark.requires_command("openssl")
@pytest.mark.parametrize("kind", HASHES)
@pytest.mark.parametrize("password", [PASSWORD, LONG], ids=["short", "long"])
def test_whoever_shows_the_password_of_a_hash_is_known(kind: str, password: str) -> None:
    with running(FACTORY, htpasswd={"inline": f"# users\n\nbob:{HASHES[kind](password)}\n"}) as extension:
        for _ in range(2):  # the second time by what is remembered
            assert knows(extension, "bob", password)
            for user, wrong in (
                ("bob", password[:-1] if len(password) < 72 else password[1:]),
                ("eve", password),
                ("", ""),
            ):
                assert not knows(extension, user, wrong)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic /w==",
        "Basic Ym9i",
        "Bearer Ym9iOnB3",
        "Basic Ym9iOnAAdw==",
    ],
)
def test_what_is_no_user_and_password_is_unknown(header: str) -> None:
    with running(FACTORY, htpasswd={"inline": "bob:pw"}) as extension:
        assert identified(extension, {"authorization": header}) is Identity.UNKNOWN
        assert identified(extension, {}) is Identity.UNKNOWN
        assert identified(extension, {"authorization": "bAsIc Ym9iOnB3"}) is Identity.KNOWN


def test_users_of_a_file_change_with_it_and_those_beside_it_win(tmp_path: Path) -> None:
    file, counters = tmp_path / "htpasswd", Counters()
    file.write_text("bob:pw\neve:one\n")
    with running(FACTORY, counters, htpasswd={"file": str(file), "inline": "eve:two"}) as extension:
        assert [knows(extension, *shown) for shown in (("bob", "pw"), ("eve", "one"), ("eve", "two"))] == [
            True,
            False,
            True,
        ]
        replace(file, b"bob:new\n")
        wait_until("it is used", lambda: knows(extension, "bob", "new"))
        assert not knows(extension, "bob", "pw")
        replace(file, b"no user\n")
        wait_until("it is refused", lambda: knows(extension, "bob", "new") and reloads(counters, "failed") >= 2)
        assert reloads(counters, "succeeded") == 1
    with pytest.raises(StartError, match=r"cannot read .*: line 1 is not name:password"):
        FACTORY.create(FACTORY.config.model_validate({"htpasswd": {"file": str(file)}}), extension._context).start()


def test_a_wrong_password_takes_as_long_as_a_user_who_does_not_exist() -> None:
    with running(FACTORY, htpasswd={"inline": f"bob:{bcrypt_hash(PASSWORD)}"}) as extension:
        knows(extension, "bob", PASSWORD)
        looked_at: list[str] = []
        original = basic_auth.fits

        def fits(password: str, hashed: str) -> bool:
            looked_at.append(hashed)
            return original(password, hashed)

        basic_auth.fits = fits
        try:
            assert not knows(extension, "bob", "wrong")
            assert not knows(extension, "nobody", "wrong")
            assert not knows(extension, "nobody", PASSWORD)  # of another, whose hash was looked at instead
            assert len(set(looked_at)) == 1
            assert len(looked_at) == 3
            assert knows(extension, "bob", PASSWORD)
            assert len(looked_at) == 3
        finally:
            basic_auth.fits = original


def test_a_crowd_with_wrong_passwords_keeps_none_out_who_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    leave = threading.Event()
    with running(FACTORY, htpasswd={"inline": "bob:pw"}) as extension:
        assert knows(extension, "bob", "pw")
        monkeypatch.setattr(basic_auth, "fits", lambda *_: not leave.wait(10))

        async def crowd() -> tuple[list[Identity], Identity]:
            tasks = [asyncio.create_task(extension.identify(basic("bob", str(number)))) for number in range(50)]
            await asyncio.sleep(0.05)
            began = time.monotonic()
            known = await extension.identify(basic("bob", "pw"))
            assert time.monotonic() - began < 1
            leave.set()
            return await asyncio.gather(*tasks), known

        identities, known = asyncio.run(crowd())
    assert known is Identity.KNOWN
    assert identities.count(Identity.UNKNOWN) == basic_auth.WAITING
    assert identities.count(Identity.BUSY) == 50 - basic_auth.WAITING


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basic_auth, "REMEMBERED", 10)
    names = [f"user{number}" for number in range(30)]
    with running(FACTORY, htpasswd={"inline": "\n".join(f"{name}:pw" for name in names)}) as extension:
        assert all(knows(extension, name, "pw") for name in names)
        assert len(extension._right) == 10
        assert not any(b"pw" in digest for digest in extension._right)


def test_an_exporter_shows_user_and_password_and_those_of_files_as_they_change(tmp_path: Path) -> None:
    with running(FACTORY, client_auth={"username": "bob", "password": f"{PASSWORD}\n"}) as extension:
        assert extension.credentials() == next(iter(basic("bob", PASSWORD).items()))
        assert isinstance(extension, ClientAuthenticator)
        assert not isinstance(extension, ServerAuthenticator)
    user, password = tmp_path / "user", tmp_path / "password"
    user.write_text("eve\n")
    password.write_text("one\n")
    files = {"username_file": str(user), "password_file": str(password), "username": "ignored", "password": "ignored"}
    with running(FACTORY, client_auth=files) as extension:
        assert extension.credentials() == next(iter(basic("eve", "one").items()))
        replace(password, b"two\n")
        wait_until("it is shown", lambda: extension.credentials() == next(iter(basic("eve", "two").items())))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs either htpasswd, for receivers, or client_auth, for exporters"),
        ({"htpasswd": {"inline": "a:b"}, "client_auth": {"username": "a", "password": "b"}}, "needs either htpasswd"),
        ({"htpasswd": {}}, "needs file or inline"),
        ({"htpasswd": {"inline": "a:b\nbob"}}, "line 2 is not name:password"),
        (
            {"htpasswd": {"inline": "a:$argon2id$v=19$s3cret"}},
            "line 1 has a hash of an unknown kind; htpasswd -B makes",
        ),
        ({"htpasswd": {"inline": "# nobody"}}, "there is no user in it"),
        ({"client_auth": {"username": "a"}}, "needs password or password_file"),
        ({"client_auth": {"password": "a"}}, "needs username or username_file"),
        ({"client_auth": {"username": "a:b", "password": "a"}}, "a user's name has no colon"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as refusal:
        FACTORY.config.model_validate(given)
    assert "s3cret" not in str(refusal.value.errors()[0]["msg"])

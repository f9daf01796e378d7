"""`basicauth`: a user and a password (RFC 7617), sent by exporters or asked for by receivers, never both by one.

A good hash takes long to compare, and a client shows the same password with every request. So what was found right is
remembered, as a keyed hash; the others wait for a thread of their own, where they take no time of those that are known.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Final, NamedTuple, Self

from pydantic import SecretStr, model_validator

from ..pipeline.authentication import ClientAuthenticator, Identity, ServerAuthenticator
from ..pipeline.component import ComponentConfig, Context, Factory
from ..pipeline.scheduling import schedule_as_batch
from ..pipeline.secret_file import SecretFile
from .htpasswd import fits, users

#: of users and passwords that were found right, those shown last
REMEMBERED: Final = 1_024
#: that wait until they are looked at; more are told to come again
WAITING: Final = 32


class HtpasswdSettings(ComponentConfig):
    """What is in both is taken from inline."""

    file: str | None = None
    inline: SecretStr | None = None

    @model_validator(mode="after")
    def _has_users(self) -> Self:
        if self.file is None and self.inline is None:
            raise ValueError("needs file or inline")
        if self.inline is not None:
            users(self.inline.get_secret_value())
        return self


class ClientSettings(ComponentConfig):
    """A file wins over what is beside it."""

    username: str | None = None
    username_file: str | None = None
    password: SecretStr | None = None
    password_file: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.username is None and self.username_file is None:
            raise ValueError("needs username or username_file")
        if self.password is None and self.password_file is None:
            raise ValueError("needs password or password_file")
        if self.username is not None:
            _user(self.username)
        return self


class BasicAuthSettings(ComponentConfig):
    htpasswd: HtpasswdSettings | None = None
    client_auth: ClientSettings | None = None

    @model_validator(mode="after")
    def _is_of_one_end(self) -> Self:
        if (self.htpasswd is None) == (self.client_auth is None):
            raise ValueError("needs either htpasswd, for receivers, or client_auth, for exporters")
        return self


class BasicAuthClient:
    def __init__(self, settings: ClientSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._user_file: SecretFile[str] | None = None
        self._password_file: SecretFile[str] | None = None

    def start(self) -> None:
        if self._settings.username_file is not None:
            self._user_file = SecretFile(self._settings.username_file, _user, self._context)
        if self._settings.password_file is not None:
            self._password_file = SecretFile(self._settings.password_file, _line, self._context)

    def shutdown(self, deadline: float) -> None: ...

    def credentials(self) -> tuple[str, str]:
        user, password = self._settings.username or "", self._settings.password
        user = user if self._user_file is None else self._user_file.content()
        secret = "" if password is None else _line(password.get_secret_value())
        secret = secret if self._password_file is None else self._password_file.content()
        return "authorization", f"Basic {base64.b64encode(f'{user}:{secret}'.encode()).decode()}"


class Shown(NamedTuple):
    user: str
    password: str


class BasicAuthServer:
    challenge = 'Basic realm="wirespan", charset="UTF-8"'

    def __init__(self, settings: HtpasswdSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._inline = {} if settings.inline is None else users(settings.inline.get_secret_value())
        self._file: SecretFile[Mapping[str, str]] | None = None
        self._thread = ThreadPoolExecutor(1, f"{context.id} passwords", schedule_as_batch)
        self._lock = Lock()  # guards what follows
        self._key = os.urandom(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._waiting = 0

    def start(self) -> None:
        if self._settings.file is not None:
            self._file = SecretFile(self._settings.file, users, self._context)

    def shutdown(self, deadline: float) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        shown = shown_in(headers.get("authorization", ""))
        if shown is None:
            return Identity.UNKNOWN
        table = self._users()
        # That there is no such user has to take as long as that the password is wrong.
        hashed = table.get(shown.user) or next(iter(table.values()))
        digest = self._digest(shown, hashed)
        with self._lock:
            if digest in self._right:
                self._right.move_to_end(digest)
                return Identity.KNOWN
            if self._waiting >= WAITING:
                return Identity.BUSY
            self._waiting += 1
        try:
            fitting = await asyncio.get_running_loop().run_in_executor(self._thread, fits, shown.password, hashed)
        finally:
            with self._lock:
                self._waiting -= 1
        if not fitting or shown.user not in table:
            return Identity.UNKNOWN
        self._remember(digest)
        return Identity.KNOWN

    def _users(self) -> Mapping[str, str]:
        return self._inline if self._file is None else {**self._file.content(), **self._inline}

    def _digest(self, shown: Shown, hashed: str) -> bytes:
        """Of the hash as well: where that has changed, what was found right is no more."""
        parts = "\0".join((shown.user, hashed, shown.password)).encode()
        return hmac.digest(self._key, parts, hashlib.sha256)

    def _remember(self, digest: bytes) -> None:
        with self._lock:
            self._right[digest] = None
            while len(self._right) > REMEMBERED:
                self._right.popitem(last=False)


def shown_in(header: str) -> Shown | None:
    """What is in an ``Authorization`` header; None for what is no user and password."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, separator, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:  # of base64, and of UTF-8
        return None
    return Shown(user, password) if separator and "\0" not in user + password else None


def _line(text: str) -> str:
    """Without what ends a file, which is not a part of it."""
    return text.rstrip("\r\n")


def _user(text: str) -> str:
    user = _line(text)
    if ":" in user:
        raise ValueError("a user's name has no colon")
    return user


def _create(settings: BasicAuthSettings, context: Context) -> BasicAuthClient | BasicAuthServer:
    if settings.htpasswd is not None:
        return BasicAuthServer(settings.htpasswd, context)
    assert settings.client_auth is not None  # one of both is there
    return BasicAuthClient(settings.client_auth, context)


FACTORY = Factory(
    "extension", "basicauth", BasicAuthSettings, _create, offers=(ClientAuthenticator, ServerAuthenticator)
)

"""Real PostgreSQL, MariaDB and memcached for tests, each on a free port, with its data in a temporary folder of its user."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.availability import need_command, unavailable
from support.processes import Process, free_port
from support.servers import Listening

#: servers refuse to run as root
USER = "nobody"


@dataclass(frozen=True)
class Database(Listening):
    """programs: of this version, for clients and for itself."""

    programs: Path

    def run(self, program: str, *words: object, check: bool = True) -> str:
        """What a client of it prints, over TCP; AssertionError if it fails."""
        command = [str(self.programs / program), *map(str, words)]
        environment = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "wirespan"}
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env={**environment, "PGDATABASE": "postgres"}
        )
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr


def _as_user(*command: str | Path) -> list[str | Path]:
    return [need_command("setpriv"), f"--reuid={USER}", "--regid=nogroup", "--clear-groups", *command]


@contextmanager
def _folder_of_user() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="wirespan-database-"))
    try:
        shutil.chown(folder, USER, "nogroup")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _quietly(command: Sequence[str | Path], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


@contextmanager
def postgresql(folder: Path) -> Iterator[Database]:
    """A PostgreSQL that logs connections and statements. Its user is ``wirespan``."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        unavailable("there is no PostgreSQL; `make setup-dev` installs it")
    programs = found[-1].parent
    settings = {"fsync": "off", "autovacuum": "off", "ssl": "off", "log_connections": "on", "log_statement": "all"}
    with _folder_of_user() as data:
        port = free_port()
        _quietly(_as_user(programs / "initdb", "-D", data, "-A", "trust", "-U", "wirespan", "-N", "--locale=C"), data)
        command = [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", ""]
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with Process("postgres", _as_user(*command, *options), folder) as process:
            process.wait_for_log("database system is ready to accept connections")
            yield Database(process, port, programs)


@contextmanager
def mariadb(folder: Path) -> Iterator[Database]:
    """A MariaDB that logs commands to ``general.log`` of the test's folder. Its user is ``root``, without a password."""
    programs = need_command("mariadb").parent
    server = need_command("mariadbd")
    with _folder_of_user() as data:
        port = free_port()
        basics = ["--no-defaults", f"--datadir={data}", "--user=nobody"]
        install = [*basics, "--auth-root-authentication-method=normal", "--skip-test-db"]
        _quietly(_as_user(need_command("mariadb-install-db"), *install), data)
        options = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={data}/socket", f"--pid-file={data}/pid"]
        log = ["--general-log", f"--general-log-file={data}/general.log", "--skip-name-resolve"]
        with Process("mariadbd", _as_user(server, *basics, *options, *log), folder) as process:
            process.wait_for_log("ready for connections")
            (folder / "general.log").symlink_to(data / "general.log")
            yield Database(process, port, programs)


@contextmanager
def memcached(folder: Path) -> Iterator[Listening]:
    port = free_port()
    command = [need_command("memcached"), "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", USER]
    with Process("memcached", command, folder) as process:
        process.wait_for_port(port)
        yield Listening(process, port)

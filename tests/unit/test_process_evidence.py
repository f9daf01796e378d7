"""Each kind of evidence about a process on its own: control groups, declarations, command lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from wirespan.receiver.resource.cgroup import control_group
from wirespan.receiver.resource.environment import ATTRIBUTES_LIMIT, VALUE_LIMIT, declared_attributes
from wirespan.receiver.resource.program import program_name

ID = "0123456789abcdef" * 4
OTHER_ID = "fedcba9876543210" * 4


@pytest.mark.parametrize(
    ("path", "container_id", "unit"),
    [
        ("/", None, None),
        (f"/docker/{ID}", ID, None),
        (f"/docker/{OTHER_ID}/docker/{ID}", ID, None),
        (f"/kubepods/burstable/pod1/{ID}/init.scope", ID, None),
        (f"/system.slice/docker-{ID}.scope", ID, None),
        (f"/../crio-{ID}.scope", ID, None),
        (f"/machine.slice/libpod-{ID}.scope/container", ID, None),
        (f"/machine.slice/libpod-conmon-{ID}.scope", None, None),
        (f"/kubelet.service/kubepods/pod1/{ID}", ID, None),
        (f"/system.slice/docker-{ID}.scope/system.slice/nginx.service", ID, "nginx"),
        (f"/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}", ID, None),
        (f"/docker/{ID[:-1]}", None, None),
        ("/system.slice/nginx.service", None, "nginx"),
        ("/system.slice/system-foo.slice/foo@1.service", None, "foo"),
        ("/system.slice/my\\x2dapp.service", None, "my-app"),
        ("/user.slice/user-0.slice/session-3.scope", None, None),
        ("/user.slice/user-0.slice/user@0.service/init.scope", None, None),
        ("/user.slice/user-0.slice/user@0.service/app.slice/shop.service", None, "shop"),
        ("/system.slice/run-u31.service", None, None),
        (f"/system.slice/run-r{ID[:32]}.service", None, None),
        ("/system.slice/run-shop.service", None, "run-shop"),
    ],
)
def test_control_groups_tell_container_and_unit(path: str, container_id: str | None, unit: str | None) -> None:
    for lines in (f"0::{path}\n", f"5:devices:/\n1:name=systemd:{path}\n0::/\n"):
        found = control_group(lines)
        assert (found.container_id, found.unit) == (container_id, unit)


def test_only_systemds_own_hierarchy_names_a_unit() -> None:
    assert control_group("4:memory:/system.slice/other.service\n0::/\n").unit is None
    assert control_group("garbage\n\n::").container_id is None


CORPUS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parents[1] / "corpus" / "cgroups.yaml").read_text())
UID = "01234567-89ab-cdef-0123-456789abcdef"
NAMED = {"U": UID, "V": UID[::-1], "H": "0123456789abcdef" * 2, "C": ID, "D": OTHER_ID}


def spelt(path: str) -> str:
    """The path with names in place of the letters that stand for them."""
    letters = {**NAMED, "u": UID.replace("-", "_")}
    for letter, name in letters.items():
        path = re.sub(rf"(?<![A-Za-z]){letter}(?![A-Za-z])|(?<=pod){letter}(?![A-Za-z])", name, path)
    return path


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["of"])
def test_every_runtime_and_driver_tells_pod_and_container(case: dict[str, Any]) -> None:
    path = spelt(case["path"])
    pod, container = NAMED.get(case.get("pod", "")), NAMED.get(case.get("container", ""))
    v1 = f"12:memory:{path}\n4:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::/\n"
    for lines in (f"0::{path}\n", v1, f"3:pids:/user.slice\n2:cpu:/docker/{OTHER_ID[::-1]}\n" * bool(pod) + v1):
        found = control_group(lines)
        assert (found.pod_uid, found.container_id) == (pod, container)
        assert found.unit == case.get("unit")


# ---- declarations ---------------------------------------------------------------------------------------------------


def declared(value: bytes) -> tuple[dict[str, str], int]:
    found = declared_attributes(b"A=1\0OTEL_RESOURCE_ATTRIBUTES=" + value + b"\0B=2\0")
    return found.attributes, found.ignored


@pytest.mark.parametrize(
    ("value", "attributes", "ignored"),
    [
        (b"", {}, 0),
        (b"a=1", {"a": "1"}, 0),
        (b" a = 1 ,b=2,", {"a": "1", "b": "2"}, 0),
        (b"a=x=y", {"a": "x=y"}, 0),
        (b"a%2Cb=%3D", {"a,b": "="}, 0),
        (b"a=100%", {"a": "100%"}, 0),
        (b"a,=b,c=,d=1", {"d": "1"}, 3),
        (b"a=%FF,b=1", {"b": "1"}, 1),
        (b"a=\xff,b=1", {"b": "1"}, 1),
        (b"a=1,a=2", {"a": "2"}, 0),
        (b"a=" + b"x" * (VALUE_LIMIT + 1), {}, 1),
    ],
)
def test_malformed_declarations_are_ignored_and_counted(value: bytes, attributes: object, ignored: int) -> None:
    assert declared(value) == (attributes, ignored)


def test_a_process_can_declare_so_many_attributes_only() -> None:
    attributes, ignored = declared(b",".join(b"k%d=1" % i for i in range(ATTRIBUTES_LIMIT + 5)))
    assert (len(attributes), ignored) == (ATTRIBUTES_LIMIT, 5)


@pytest.mark.parametrize(
    "environment", [b"", b"OTEL_SERVICE_NAME=\0", b"OTEL_SERVICE_NAME= \0", b"OTEL_SERVICE_NAME=x"]
)
def test_an_empty_or_cut_service_name_is_none(environment: bytes) -> None:
    assert declared_attributes(environment).attributes == {}


# ---- programs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executable", "command_line", "name"),
    [
        ("nginx", "nginx: worker process", "nginx"),
        ("postgres", "postgres: user db 10.0.0.1(5432) idle", "postgres"),
        ("python3.11", "python3 app.py", "app"),
        ("python3.11", "python3|-OO|-X|dev|-W|error|/srv/shop/app.py|secret", "app"),
        ("python3.11", "python3|-mshop.web.__main__", "shop.web"),
        ("python3.11", "python3|-um|shop|secret", "shop"),
        ("python3.11", "python3|-m|not a module", "python3.11"),
        ("python3.11", "python3|-c|import app|secret.py", "python3.11"),
        ("python3.11", "python3", "python3.11"),
        ("python3.11", "python3|-|secret", "python3.11"),
        ("python3.11", "python3|-u|--|manage.py", "manage"),
        ("python3.11", "python3|/srv/shop/__main__.py", "shop"),
        ("python3.11", "/usr/bin/python3|/srv/venv/bin/gunicorn|shop:app", "gunicorn"),
        ("python3.11", "gunicorn: master [shop:app]", "gunicorn"),
        ("pypy3", "pypy3|app.py", "app"),
        ("pythonista", "pythonista|app.py", "pythonista"),
        ("node", "node|--max-old-space-size=4096|-r|./tracing.js|/srv/server.mjs", "server"),
        ("node", "node|--require|./tracing.js|server.js", "server"),
        ("node", "node|--unknown|secret|server.js", "server"),
        ("node", "node|--unknown|server|secret", "node"),
        ("node", "node|server|secret", "server"),
        ("node", "node|-e|secret", "node"),
        ("node", "node|.", "node"),
        ("ruby3.1", "ruby|-W0|-I|lib|/srv/bin/rails|server", "rails"),
        ("perl", "perl|-Mstrict|-we|secret", "perl"),
        ("perl", "/usr/bin/perl|-T|-i.bak|/usr/sbin/spamd|--secret", "spamd"),
        ("php8.2", "php|-d|memory_limit=1G|artisan|serve", "artisan"),
        ("php8.2", "php|-S|0.0.0.0:80|-t|public|router.php", "router"),
        ("php8.2", "php|-f|job.php|--|secret", "job"),
        ("php-fpm8.2", "php-fpm: pool www", "php-fpm8.2"),
        ("java", "java|-Xmx1g|-Dpassword=secret|-jar|/srv/shop.jar|secret", "shop"),
        ("java", "java|-cp|/a.jar:/b.jar|-ea|com.example.Main|secret", "com.example.Main"),
        ("java", "java|-p|mods|-m|com.example/com.example.Main", "com.example.Main"),
        ("java", "java|--module=com.example/com.example.Main", "com.example.Main"),
        ("java", "java|@options|secret", "java"),
        ("java", "java|-version", "java"),
        ("redis-server", "/usr/bin/redis-server 127.0.0.1:6379", "redis-server"),
    ],
)
def test_programs_are_named_as_their_users_call_them(executable: str, command_line: str, name: str) -> None:
    separator = "|" if "|" in command_line or ":" in command_line else " "
    assert program_name(executable, command_line.split(separator)) == name


def test_no_command_line_breaks_the_naming_of_a_program() -> None:
    for executable in ("python3", "node", "java", "ruby", "perl", "php"):
        for arguments in ([], [""], ["", ""], ["x", "-"], ["x", "--"], ["x", "-f"], ["x", "-m"], ["x", "-jar"]):
            assert program_name(executable, arguments)

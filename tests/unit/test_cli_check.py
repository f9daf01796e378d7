"""``wirespan check``: what each requirement looks like when it is met, and when not, on machines made of files."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from wirespan.service import check
from wirespan.service.check import Finding, Machine, Verdict
from wirespan.service.cli import main

ALL_CAPABILITIES = 0x1FFFFFFFFFF


def btf(*tracepoints: str) -> bytes:
    """A BTF file with nothing in it but names."""
    names = b"\0int\0" + b"".join(b"btf_trace_%s\0" % name.encode() for name in tracepoints)
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, 8, 8, len(names)) + bytes(8) + names


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One that lacks nothing."""
    made = Machine(
        tmp_path, "6.3.0-1-amd64", "x86_64", "libbpf.so.1", tmp_path / "wirespan.bpf.o", tmp_path / "libwirespan.so.1"
    )
    write(made, "sys/kernel/btf/vmlinux", btf(*check.ESSENTIAL_TRACEPOINTS, *check.OPTIONAL_TRACEPOINTS))
    write(made, "sys/kernel/security/lockdown", b"none [integrity] confidentiality\n")
    write(made, "proc/self/uid_map", b"         0          0 4294967295\n")
    write(made, "proc/sys/net/core/bpf_jit_enable", b"1\n")
    made.object_file.write_bytes(b"\x7fELF...")
    made.native_library.write_bytes(b"\x7fELF...")
    give_capabilities(made, ALL_CAPABILITIES)
    limit_nice(made, "0")
    write(made, "proc/2/stat", b"2 (kthreadd) S 0 0 0 0 -1 2129984" + b" 0" * 43)
    write(made, "proc/2/cmdline", b"")
    write(made, "proc/2/cgroup", b"0::/\n")
    return made


def write(machine: Machine, path: str, content: bytes) -> None:
    file = machine.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def give_capabilities(machine: Machine, capabilities: int) -> None:
    write(machine, "proc/self/status", b"Name:\tx\nCapEff:\t%016x\nCapBnd:\tffff\n" % capabilities)


def limit_nice(machine: Machine, limit: str) -> None:
    row = f"Max nice priority         {limit:20} {limit:20} \n"
    write(machine, "proc/self/limits", b"Limit                     Soft Limit           Hard Limit\n" + row.encode())


def without(*capabilities: int) -> int:
    return ALL_CAPABILITIES & ~sum(1 << capability for capability in capabilities)


def assert_verdict(finding: Finding, verdict: Verdict, found: str, remedy: str = "") -> None:
    assert finding.verdict is verdict
    assert found in finding.found
    assert remedy in finding.remedy
    assert bool(finding.remedy) == (verdict is not Verdict.OK)


def test_a_machine_with_everything_passes_every_check(machine: Machine) -> None:
    lacking = [finding for finding in check.run_checks(machine) if finding.verdict is not Verdict.OK]
    assert [finding for finding in lacking if finding.requirement != "libbpf"] == []


@pytest.mark.parametrize(
    ("release", "ok"), [("6.2.16-generic", False), ("6.3.0", True), ("7.0-rc1", True), ("5.19", False)]
)
def test_the_kernel_must_be_6_3_or_later(machine: Machine, release: str, ok: bool) -> None:
    finding = check.check_kernel(replace(machine, release=release))
    assert_verdict(finding, Verdict.OK if ok else Verdict.FAILED, release, "" if ok else "6.3 or later")


def test_another_architecture_fails(machine: Machine) -> None:
    finding = check.check_architecture(replace(machine, architecture="aarch64"))
    assert_verdict(finding, Verdict.FAILED, "aarch64", "x86_64")


def test_a_kernel_without_btf_fails(machine: Machine) -> None:
    (machine.root / "sys/kernel/btf/vmlinux").unlink()
    assert_verdict(check.check_btf(machine), Verdict.FAILED, "no /sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF")
    assert_verdict(check.check_essential_tracepoints(machine), Verdict.FAILED, "not known")
    assert_verdict(check.check_optional_tracepoints(machine), Verdict.WARNING, "not known")


@pytest.mark.parametrize("content", [b"", b"\x9f\xeb", b"\xeb\x9f" + bytes(30)])
def test_a_file_that_is_no_btf_fails(machine: Machine, content: bytes) -> None:
    write(machine, "sys/kernel/btf/vmlinux", content)
    assert check.check_btf(machine).verdict is Verdict.FAILED


def test_a_missing_essential_tracepoint_fails(machine: Machine) -> None:
    # A longer name that ends alike must not pass for it.
    write(machine, "sys/kernel/btf/vmlinux", btf("sock_send_length_x", *check.ESSENTIAL_TRACEPOINTS[1:]))
    assert_verdict(check.check_essential_tracepoints(machine), Verdict.FAILED, "no sock_send_length", "6.3")


def test_a_missing_optional_tracepoint_is_a_warning_that_says_what_is_lost(machine: Machine) -> None:
    write(machine, "sys/kernel/btf/vmlinux", btf(*check.ESSENTIAL_TRACEPOINTS, "tcp_sendmsg_locked"))
    assert_verdict(check.check_optional_tracepoints(machine), Verdict.WARNING, "no sk_data_ready", "no queue time")


@pytest.mark.parametrize(
    ("capabilities", "verdict", "found"),
    [
        (without(check.CAP_BPF), Verdict.OK, "CAP_SYS_ADMIN"),
        (without(check.CAP_SYS_ADMIN), Verdict.OK, "CAP_BPF, CAP_PERFMON"),
        (without(check.CAP_SYS_ADMIN, check.CAP_PERFMON), Verdict.FAILED, "no CAP_PERFMON"),
        (0, Verdict.FAILED, "no CAP_BPF, CAP_PERFMON"),
    ],
)
def test_programs_need_bpf_and_perfmon_or_sys_admin(
    machine: Machine, capabilities: int, verdict: Verdict, found: str
) -> None:
    give_capabilities(machine, capabilities)
    assert_verdict(
        check.check_capabilities(machine), verdict, found, "" if verdict is Verdict.OK else "sudo wirespan run"
    )


def test_capabilities_of_a_user_namespace_do_not_count(machine: Machine) -> None:
    write(machine, "proc/self/uid_map", b"         0       1000          1\n")
    assert_verdict(check.check_capabilities(machine), Verdict.FAILED, "user namespace", "rootless")


@pytest.mark.parametrize(
    ("missing", "found", "lost"),
    [
        ((check.CAP_SYS_PTRACE,), "no CAP_SYS_PTRACE", "executable and environment"),
        ((check.CAP_DAC_READ_SEARCH, check.CAP_DAC_OVERRIDE), "no CAP_DAC_READ_SEARCH", "service.name"),
        (range(41), "no CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH", "; environment"),
    ],
)
def test_not_being_able_to_read_other_processes_is_a_warning_that_says_what_is_lost(
    machine: Machine, missing: Iterable[int], found: str, lost: str
) -> None:
    give_capabilities(machine, without(*missing))
    assert_verdict(check.check_process_capabilities(machine), Verdict.WARNING, found, lost)


def test_what_overrides_the_permissions_of_files_reads_them_too(machine: Machine) -> None:
    give_capabilities(machine, without(check.CAP_DAC_READ_SEARCH))
    assert check.check_process_capabilities(machine).verdict is Verdict.OK


@pytest.mark.parametrize(("limit", "verdict"), [("0", "warning"), ("19", "warning"), ("20", "ok"), ("unlimited", "ok")])
def test_giving_way_needs_a_limit_of_nice_20_or_a_capability(machine: Machine, limit: str, verdict: str) -> None:
    limit_nice(machine, limit)
    assert check.check_scheduling(replace(machine)).verdict is Verdict.OK
    give_capabilities(machine, without(check.CAP_SYS_NICE))
    assert_verdict(check.check_scheduling(machine), Verdict(verdict), f"RLIMIT_NICE {limit}")


def test_a_pid_namespace_of_its_own_is_a_warning_that_says_what_is_lost(machine: Machine) -> None:
    write(machine, "proc/2/stat", b"2 (sh) S 1 0 0 0 -1 4194304" + b" 0" * 43)
    finding = check.check_pid_namespace(machine)
    assert_verdict(finding, Verdict.WARNING, "pid namespace of its own", "hostPID: true, docker run --pid=host")
    assert "without: service.name" in finding.remedy


@pytest.mark.requires_command("unshare")
@pytest.mark.skipif(os.geteuid() != 0, reason="making a pid namespace needs root")
@pytest.mark.parametrize("private", [True, False])
def test_a_pid_namespace_of_its_own_is_seen_on_this_machine(private: bool) -> None:
    enter = ["unshare", "--pid", "--fork", "--mount-proc"] if private else []
    run = subprocess.run([*enter, sys.executable, "-m", "wirespan", "check", "--json"], capture_output=True, timeout=60)
    (found,) = [entry for entry in json.loads(run.stdout)["checks"] if entry["requirement"].startswith("processes of")]
    assert found["verdict"] == ("warning" if private else "ok")


def test_lockdown_of_confidentiality_fails_and_a_kernel_without_it_passes(machine: Machine) -> None:
    write(machine, "sys/kernel/security/lockdown", b"none integrity [confidentiality]\n")
    assert_verdict(check.check_lockdown(machine), Verdict.FAILED, "confidentiality", "integrity is fine")
    (machine.root / "sys/kernel/security/lockdown").unlink()
    assert check.check_lockdown(machine).verdict is Verdict.OK


def test_a_jit_that_is_off_is_a_warning_and_one_that_is_not_visible_is_not(machine: Machine) -> None:
    write(machine, "proc/sys/net/core/bpf_jit_enable", b"0\n")
    assert_verdict(check.check_jit(machine), Verdict.WARNING, "off", "sysctl")
    (machine.root / "proc/sys/net/core/bpf_jit_enable").unlink()
    assert check.check_jit(machine).verdict is Verdict.OK


def test_a_library_that_cannot_be_loaded_fails(machine: Machine) -> None:
    finding = check.check_libbpf(replace(machine, libbpf="libnone.so.1"))
    assert_verdict(finding, Verdict.FAILED, "libnone.so.1: cannot open shared object file", "apt install libbpf1")


def test_a_library_that_is_another_fails(machine: Machine) -> None:
    assert check.check_libbpf(replace(machine, libbpf="libc.so.6")).verdict is Verdict.FAILED


def test_what_is_not_compiled_fails(machine: Machine) -> None:
    for file, find in (
        (machine.object_file, check.check_object_file),
        (machine.native_library, check.check_native_library),
    ):
        file.write_bytes(b"int main")
        assert_verdict(find(machine), Verdict.FAILED, "no ELF object", "make setup")
        file.unlink()
        assert_verdict(find(machine), Verdict.FAILED, "not compiled yet", "make setup")


def test_the_command_says_the_same_in_both_formats() -> None:
    table, text = CliRunner().invoke(main, ["check"]), CliRunner().invoke(main, ["check", "--json"])
    report = json.loads(text.output)
    assert len(report["checks"]) == len(check.CHECKS)
    for entry in report["checks"]:
        assert f"{entry['requirement']} " in table.output
        assert entry["found"] in table.output
        assert entry["remedy"] in table.output
    failed = [entry for entry in report["checks"] if entry["verdict"] == "failed"]
    assert table.exit_code == text.exit_code == (1 if failed else 0)
    assert report["ok"] == (not failed)

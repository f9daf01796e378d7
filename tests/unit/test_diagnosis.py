"""Reasons from what libbpf really said, recorded with libbpf 1.1 on Linux 6.18."""

from __future__ import annotations

import errno

from wirespan.receiver.kernel.diagnosis import failed_program, reason
from wirespan.receiver.kernel.library import BpfError

REFUSED_BY_THE_VERIFIER = """\
prog 'no_proof': BPF program load failed: Permission denied
prog 'no_proof': -- BEGIN PROG LOAD LOG --
0: R1=ctx() R10=fp0
; int BPF_PROG(no_proof) @ refused.bpf.c:23
0: (b7) r1 = 4096                     ; R1=4096
; return *(volatile int *)0x1000; @ refused.bpf.c:25
1: (61) r0 = *(u32 *)(r1 +0)
R1 invalid mem access 'scalar'
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
-- END PROG LOAD LOG --
prog 'no_proof': failed to load: -13
failed to load object 'refused.bpf.o'""".splitlines()

NO_SUCH_FIELD = """\
prog 'no_field': BPF program load failed: Invalid argument
prog 'no_field': -- BEGIN PROG LOAD LOG --
0: R1=ctx() R10=fp0
1: <invalid CO-RE relocation>
failed to resolve CO-RE relocation <byte_off> [8] struct sock.nofield (0:0 @ offset 0)
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
-- END PROG LOAD LOG --
prog 'no_field': failed to load: -22
failed to load object 'refused.bpf.o'""".splitlines()

NO_SUCH_TARGET = """\
prog 'no_target': failed to find kernel BTF type ID of 'no_such_tracepoint': -3
prog 'no_target': failed to prepare load attributes: -3
prog 'no_target': failed to load: -3
failed to load object 'refused.bpf.o'""".splitlines()

NOT_PERMITTED = """\
prog 'fentry': BPF program load failed: Operation not permitted
permission error while running as root; try raising 'ulimit -l'? current value: 8.0 MiB
prog 'fentry': failed to load: -1
failed to load object 'refused.bpf.o'""".splitlines()

NO_PRIVILEGE = """\
Failed to bump RLIMIT_MEMLOCK (err = -1), you might need to do it explicitly!
Error in bpf_object__probe_loading():Operation not permitted(1). Couldn't load trivial BPF program. Make sure your \
kernel supports BPF (CONFIG_BPF_SYSCALL=y) and/or that RLIMIT_MEMLOCK is set to big enough value.
failed to load object 'refused.bpf.o'""".splitlines()


def test_the_verifiers_verdict_comes_with_the_source_line_it_is_about() -> None:
    assert failed_program(REFUSED_BY_THE_VERIFIER) == "no_proof"
    assert reason(REFUSED_BY_THE_VERIFIER) == (
        "R1 invalid mem access 'scalar' (at `return *(volatile int *)0x1000; @ refused.bpf.c:25`)"
    )


def test_a_log_that_lost_its_beginning_still_has_its_verdict() -> None:
    assert reason(REFUSED_BY_THE_VERIFIER[6:]) == "R1 invalid mem access 'scalar'"


def test_the_last_of_several_logs_counts() -> None:
    earlier = [line.replace("R1 invalid", "R9 invalid") for line in REFUSED_BY_THE_VERIFIER]
    assert reason([*earlier, *REFUSED_BY_THE_VERIFIER]).startswith("R1 invalid")


def test_a_missing_target_is_told_in_libbpfs_words() -> None:
    assert failed_program(NO_SUCH_TARGET) == "no_target"
    assert reason(NO_SUCH_TARGET) == "failed to find kernel BTF type ID of 'no_such_tracepoint': -3"


def test_a_missing_field_of_the_kernel_is_named() -> None:
    assert failed_program(NO_SUCH_FIELD) == "no_field"
    assert reason(NO_SUCH_FIELD).startswith("failed to resolve CO-RE relocation <byte_off> [8] struct sock.nofield")


def test_a_refusal_without_a_log_keeps_the_kernels_error() -> None:
    assert failed_program(NOT_PERMITTED) == "fentry"
    assert reason(NOT_PERMITTED) == "BPF program load failed: Operation not permitted"


def test_a_failure_of_no_program_in_particular_blames_none() -> None:
    assert failed_program(NO_PRIVILEGE) is None
    assert "Couldn't load trivial BPF program" in reason(NO_PRIVILEGE)


def test_silence_gives_no_reason() -> None:
    assert (failed_program([]), reason([])) == (None, "")


def test_an_error_says_what_failed_and_what_to_do_and_then_why() -> None:
    assert str(BpfError("load x", errno.EPERM, NO_PRIVILEGE)) == (
        "cannot load x: EPERM (Operation not permitted): run it as root (sudo wirespan run), or grant CAP_BPF and "
        "CAP_PERFMON; a container's seccomp profile must allow bpf(); libbpf says: Error in "
        "bpf_object__probe_loading():Operation not permitted(1). Couldn't load trivial BPF program"
    )


def test_an_error_number_that_only_the_kernel_knows_has_a_name() -> None:
    assert str(BpfError("attach x", 524)) == "cannot attach x: ENOTSUPP"

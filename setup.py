"""What pyproject.toml cannot say: what is in C is compiled for a wheel, which is then of the platform it was compiled for.

A wheel carries the BPF object, which libbpf fits to each kernel, and a shared library. The library knows nothing of
Python, so that one wheel serves every version of it. Of glibc it knows symbols, and the newest of their versions is in
the wheel's tag (PEP 600). An editable installation compiles nothing: there make does, whenever the sources change.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).parent
LIBRARY = ROOT / "wirespan" / "native" / "libwirespan.so.1"
#: glibc 2.17 is the oldest that is worth telling apart: no Python that wirespan runs on is built for an older one.
OLDEST_GLIBC = 17


class Compile(Command):
    """Compiles where the sources are: from there package data goes into the wheel."""

    description = "compile what is in C"
    user_options = ()
    editable_mode = False

    def initialize_options(self) -> None: ...

    def finalize_options(self) -> None: ...

    def run(self) -> None:
        if not self.editable_mode:
            for script in ("build-bpf", "build-native"):
                subprocess.run([ROOT / "scripts" / script], check=True)


class Build(build):
    """First of all compiles, so that what is compiled is there when package data is collected."""

    sub_commands = [("compile", None), *build.sub_commands]  # noqa: RUF012  # setuptools' own type


class PlatformWheel(bdist_wheel):
    """For every Python 3, but for one platform."""

    def get_tag(self) -> tuple[str, str, str]:
        platform = super().get_tag()[2]
        content = LIBRARY.read_bytes() if LIBRARY.exists() else b""  # not yet there: an editable installation
        versions = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", content)]
        if versions:
            platform = platform.replace("linux", f"manylinux_2_{max(OLDEST_GLIBC, *versions)}", 1)
        return "py3", "none", platform


class CompiledDistribution(Distribution):
    """Holds what is compiled, which setuptools would otherwise see only in extension modules."""

    def has_ext_modules(self) -> bool:
        return True


setup(distclass=CompiledDistribution, cmdclass={"build": Build, "compile": Compile, "bdist_wheel": PlatformWheel})

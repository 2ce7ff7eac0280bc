"""Builds C sources of this directory as shared objects, once a process."""

from __future__ import annotations

import functools
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLAGS = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-pthread", "-fPIC", "-shared")
_directory = tempfile.TemporaryDirectory(prefix="duroxide-faults-")


@functools.cache
def compiled(source: str) -> str:
    """The path of the shared object; CalledProcessError or FileNotFoundError where there is no compiler."""
    target = Path(_directory.name) / source.replace(".c", ".so")
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    subprocess.run([*compiler, *FLAGS, str(HERE / source), "-o", str(target), "-ldl"], check=True)
    return str(target)

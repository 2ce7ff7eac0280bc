"""Builds and loads the example store: a third party's store in C, against nothing but csrc/duroxide_store.h."""

from __future__ import annotations

import functools
import importlib.util
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from duroxide.storage.capsule import CapsuleProvider

HERE = Path(__file__).resolve().parent
HEADERS = HERE.parent.parent / "csrc"
FLAGS = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-D_POSIX_C_SOURCE=200809L", "-pthread", "-fPIC", "-shared")


@functools.cache
def module() -> Any:
    """The compiled module; built once a process, in a directory that goes with it."""
    directory = tempfile.TemporaryDirectory(prefix="example-store-")
    target = Path(directory.name) / f"example_store_c{sysconfig.get_config_var('EXT_SUFFIX')}"
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    includes = [f"-I{HERE}", f"-I{HEADERS}", f"-I{sysconfig.get_paths()['include']}"]
    if sysconfig.get_platform().startswith("macosx"):
        includes += ["-undefined", "dynamic_lookup"]
    sources = sorted(map(str, HERE.glob("*.c")))
    subprocess.run([*compiler, *FLAGS, *includes, *sources, "-o", str(target)], check=True)
    spec = importlib.util.spec_from_file_location("example_store_c", target)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    loaded.directory = directory  # type: ignore[attr-defined]
    return loaded


def open_store() -> CapsuleProvider:
    """A new, empty store as a provider."""
    return CapsuleProvider(module().open_store(), "example")

"""The sanitizers see what they are there for: the end of each allocation of an arena, and memory that was freed. `python -m tests.memory` runs the rest."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
CC = (sysconfig.get_config_var("CC") or "cc").split()[0]
PROGRAM = """
#include <stdio.h>
#include "duroxide_arena.h"

int main(int argc, char **argv)
{
    dx_arena arena = {NULL};
    volatile char *first = dx_alloc(&arena, 10), *second = dx_alloc(&arena, 10);
    int last = argc > 1 ? 10 : 9; /* one too far */
    for (int i = 0; i <= last; i++) first[i] = 'x', second[i] = 'y';
    if (first[0] != 'x' || second[0] != 'y') return 1;
    dx_arena_free(arena.last);
    return argc > 2 ? first[0] : 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("memory")
    (directory / "x.c").write_text(PROGRAM)
    flags = ["-std=c11", "-Wall", "-Werror", "-g", f"-I{CSRC}", "-DDX_ALONE=1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    try:
        subprocess.run([CC, *flags, str(directory / "x.c"), "-o", str(directory / "x")], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a C compiler with sanitizers: {error}")
    return directory / "x"


def said(program: Path, *arguments: str) -> str:
    """The report; empty where there is none."""
    done = subprocess.run([str(program), *arguments], env={**os.environ, "LD_PRELOAD": ""}, capture_output=True, text=True)
    assert (done.returncode != 0) == bool(done.stderr)
    return done.stderr


def test_right_use_of_an_arena_is_no_report(program: Path) -> None:
    assert said(program) == ""


def test_one_byte_beyond_an_allocation_is_seen(program: Path) -> None:
    assert "heap-buffer-overflow" in said(program, "overflow")

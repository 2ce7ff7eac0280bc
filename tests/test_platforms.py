"""What other platforms meet: C without extensions of one compiler, and a C store that does not load."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import duroxide
from duroxide.storage import _sqlite
from duroxide.storage.base import StoreError

CSRC = Path(__file__).resolve().parent.parent / "csrc"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("path", sorted(CSRC.glob("*.c")), ids=lambda path: path.name)
def test_the_c_sources_are_strict_c11_without_a_warning(path: Path) -> None:
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-fsyntax-only", f"-I{CSRC}"]
    done = subprocess.run(["gcc", *flags, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted([*CSRC.glob("*.[ch]"), *CSRC.parent.glob("duroxide/**/*.pyx")]), ids=lambda path: path.name)
def test_no_source_asks_for_a_posix_that_is_older_than_c99(path: Path) -> None:
    """Below 200112 Apple's headers hide what C99 added, `snprintf` among it, and its compiler then refuses to compile."""
    assert all(int(year) >= 200112 for year in re.findall(r"_POSIX_C_SOURCE[ =](\d+)", path.read_text(encoding="utf-8")))


def test_where_the_c_store_does_not_load_the_python_one_takes_over_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*connections: object) -> object:
        raise StoreError("no extensions here", operation="open")

    monkeypatch.setattr(_sqlite, "open_store", refuse)
    with caplog.at_level(logging.WARNING, "duroxide.storage"):
        provider = duroxide.SqliteProvider.open(str(tmp_path / "x.db"))
    assert provider.name == "sqlite (Python)"
    assert "the store in C does not run here" in caplog.text and "no extensions here" in caplog.text
    runtime = duroxide.Runtime(provider)
    runtime.register_orchestration("flow", lambda ctx, value: value)
    runtime.start()
    client = duroxide.Client(provider)
    client.start_orchestration("i", "flow", 5)
    assert client.wait_for_orchestration("i", 20_000).output == 5
    runtime.shutdown()
    provider.close()

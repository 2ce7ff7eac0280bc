"""What is shipped: one version everywhere, types with every module, no sources in wheels, everything in the sdist, imports that stay light."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import duroxide

ROOT = Path(__file__).resolve().parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def python(*arguments: str, interpreter: Path | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(interpreter or sys.executable), *arguments], cwd=cwd, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    return done.stdout


def test_the_version_is_the_same_everywhere() -> None:
    (project,) = re.findall(r'^version = "(.+)"$', PROJECT, re.MULTILINE)
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    assert project == newest == duroxide.__version__


def test_every_public_name_is_there() -> None:
    assert not [name for name in duroxide.__all__ if not hasattr(duroxide, name)]
    errors = [name for name, value in vars(duroxide).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert {"DuroxideError", "ActivityError", "OrchestrationFailed", "OperationTimeout", "NotFound", "OptionError", "ProviderError"} <= {*errors}


def test_package_data_has_the_marker_and_every_stub() -> None:
    """What setuptools is told to ship; `test_a_wheel_has_what_it_should` builds one."""
    assert '"py.typed"' in PROJECT and '"**/*.pyi"' in PROJECT
    assert (ROOT / "duroxide" / "py.typed").exists()
    assert not [p.name for p in (ROOT / "duroxide").rglob("*.pyx") if not p.with_suffix(".pyi").exists()]


def test_each_python_that_is_promised_is_named_once() -> None:
    (least,) = re.findall(r'^requires-python = ">=3\.(\d+)"$', PROJECT, re.MULTILINE)
    named = [int(minor) for minor in re.findall(r"Python :: 3\.(\d+)\"", PROJECT)]
    assert named[0] == int(least) and named == list(range(named[0], named[-1] + 1))


def test_importing_costs_no_build_and_no_test_package() -> None:
    """At run time nothing is needed but apsw."""
    found = python("-c", "import duroxide, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))").split()
    assert "apsw" in found
    assert not {"Cython", "setuptools", "pytest", "hypothesis", "mypy", "sqlite3", "_sqlite3", "asyncio"} & {*found}


def test_an_import_starts_nothing_and_says_nothing() -> None:
    code = "import threading, duroxide; assert threading.active_count() == 1, threading.enumerate()"
    assert python("-W", "error", "-c", code) == ""


# ── by building, some minutes ──


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(sdist, the wheel made of it)."""
    directory = tmp_path_factory.mktemp("dist")
    environment = directory / "environment"
    python("-m", "venv", str(environment))
    inside = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    python("-m", "pip", "install", "-q", "build", interpreter=inside)
    python("-m", "build", "--outdir", str(directory), str(ROOT), interpreter=inside)
    (sdist,), (wheel,) = directory.glob("*.tar.gz"), directory.glob("*.whl")
    return sdist, wheel


@pytest.mark.soak
def test_a_wheel_has_what_it_should(built: tuple[Path, Path]) -> None:
    names = {Path(name) for name in zipfile.ZipFile(built[1]).namelist()}
    suffixes = {name.suffix for name in names}
    assert not suffixes & {".pyx", ".pxd", ".c", ".h", ".cpp"}
    wanted = {p.relative_to(ROOT) for p in (ROOT / "duroxide").rglob("*") if p.suffix in (".py", ".pyi", ".typed")}
    assert wanted <= names and not any(name.parts[0] in ("tests", "bench", "docs", "csrc") for name in names)
    compiled = {name.name.split(".")[0] for name in names if name.suffix in (".so", ".pyd")}
    assert compiled == {p.stem for p in (ROOT / "duroxide").rglob("*.pyx")}
    assert any(name.name == "LICENSE" for name in names)


@pytest.mark.soak
def test_an_sdist_has_what_a_build_needs(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist:
        names = {Path(*Path(name).parts[1:]) for name in sdist.getnames()}
    needed = [p.relative_to(ROOT) for d in ("duroxide", "csrc") for p in (ROOT / d).rglob("*")]
    needed = [p for p in needed if p.suffix in (".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".typed")]
    assert {*needed, Path("setup.py"), Path("pyproject.toml"), Path("LICENSE"), Path("README.md"), Path("CHANGELOG.md")} <= names
    assert not [name for name in names if name.suffix in (".so", ".pyd", ".db")]


@pytest.mark.soak
def test_a_wheel_runs_the_demo_in_a_fresh_environment(built: tuple[Path, Path], tmp_path: Path) -> None:
    python("-m", "venv", str(tmp_path / "fresh"))
    inside = tmp_path / "fresh" / ("Scripts" if os.name == "nt" else "bin") / "python"
    python("-m", "pip", "install", "-q", str(built[1]), interpreter=inside)
    assert "result: " in python("-m", "duroxide", "demo", interpreter=inside, cwd=tmp_path)
    assert python("-c", "import duroxide; print(duroxide.SqliteProvider.in_memory().name)", interpreter=inside, cwd=tmp_path) == "sqlite (C)\n"

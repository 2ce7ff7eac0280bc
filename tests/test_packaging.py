"""What is shipped: one version everywhere, types with every module, no sources in wheels, everything in the sdist, imports that stay light."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import duroxide

ROOT = Path(__file__).resolve().parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
SOURCES = ROOT / "duroxide"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WHEELS = script("wheels")


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=1_800, check=False)
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


@pytest.mark.skipif(not SOURCES.exists(), reason="an installed wheel is tested")
def test_package_data_has_the_marker_and_every_stub() -> None:
    """What setuptools is told to ship; `.ci/wheels.py` looks into one."""
    assert '"py.typed"' in PROJECT and '"**/*.pyi"' in PROJECT
    assert (ROOT / "duroxide" / "py.typed").exists()
    assert not [p.name for p in (ROOT / "duroxide").rglob("*.pyx") if not p.with_suffix(".pyi").exists()]


def test_each_python_that_is_promised_is_named_once() -> None:
    (least,) = re.findall(r'^requires-python = ">=3\.(\d+)"$', PROJECT, re.MULTILINE)
    named = [int(minor) for minor in re.findall(r"Python :: 3\.(\d+)\"", PROJECT)]
    assert named[0] == int(least) and named == list(range(named[0], named[-1] + 1))


def test_each_dependency_is_argued() -> None:
    """In docs/decisions/0007-dependencies.md, in bold."""
    argued = {name.split("[")[0] for name in re.findall(r"\*\*([\w\[\]-]+)\*\*", (ROOT / "docs/decisions/0007-dependencies.md").read_text("utf-8"))}
    lists = re.findall(r"^(?:requires|dependencies|postgres|entra|test|lint|docs) = \[(.*?)\]$", PROJECT, re.MULTILINE | re.DOTALL)
    named = {name for text in lists for name in re.findall(r'"([\w-]+)(?:\[\w+\])?>=', text)}
    assert len(named) > 20 and not named - argued


def test_importing_costs_no_build_and_no_test_package() -> None:
    """At run time nothing is needed but apsw."""
    found = python("-c", "import duroxide, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))").split()
    assert "apsw" in found
    assert not {"Cython", "setuptools", "pytest", "hypothesis", "mypy", "sqlite3", "_sqlite3", "asyncio"} & {*found}


def test_an_import_starts_nothing_and_says_nothing() -> None:
    code = "import threading, duroxide; assert threading.active_count() == 1, threading.enumerate()"
    assert python("-W", "error", "-c", code) == ""


# ── what .ci/wheels.py asks of a wheel, by wheels with one fault each ──


def wheel(path: Path, names: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in names.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    package = tmp_path / "sources" / "duroxide"
    package.mkdir(parents=True)
    for name in ("__init__.py", "py.typed", "_queue.pyx", "_queue.pyi"):
        (package / name).write_text("")
    (tmp_path / "sources" / "pyproject.toml").write_text(PROJECT)
    return tmp_path / "sources"


GOOD = {
    "duroxide/__init__.py": "", "duroxide/py.typed": "", "duroxide/_queue.pyi": "", "duroxide/_queue.cpython-312-x86_64-linux-gnu.so": "",
    "duroxide-1.0.dist-info/licenses/LICENSE": "", "duroxide-1.0.dist-info/RECORD": "", "duroxide-1.0.dist-info/WHEEL": "",
    "duroxide-1.0.dist-info/METADATA": f"""Name: duroxide
Version: {duroxide.__version__}
License-Expression: MIT
License-File: LICENSE
Requires-Python: >=3.10
Requires-Dist: apsw>=3.46
Provides-Extra: postgres
Requires-Dist: psycopg[binary]>=3.2; extra == "postgres"
Provides-Extra: entra
Provides-Extra: test
Provides-Extra: lint
Provides-Extra: docs
""",
}  # fmt: skip
METADATA = "duroxide-1.0.dist-info/METADATA"


def test_a_wheel_as_it_should_be_has_no_fault(sources: Path, tmp_path: Path) -> None:
    assert WHEELS.faults(wheel(tmp_path / "x.whl", GOOD), sources) == []


@pytest.mark.parametrize("name", ["duroxide/_queue.c", "duroxide/_queue.pyx", "duroxide/_turn.pxd", "tests/test_x.py", "csrc/x.h", "duroxide/x.db"])
def test_a_stray_file_in_a_wheel_is_seen(name: str, sources: Path, tmp_path: Path) -> None:
    assert WHEELS.faults(wheel(tmp_path / "x.whl", {**GOOD, name: ""}), sources) == [f"stray: {name}"]


@pytest.mark.parametrize("name", [name for name in GOOD if name != METADATA])
def test_a_file_that_a_wheel_lacks_is_seen(name: str, sources: Path, tmp_path: Path) -> None:
    names = {key: text for key, text in GOOD.items() if key != name}
    assert len(WHEELS.faults(wheel(tmp_path / "x.whl", names), sources)) == 1


@pytest.mark.parametrize("line", [line for line in GOOD[METADATA].splitlines() if not line.startswith("Requires-Dist: psy")])
def test_metadata_that_are_not_the_projects_are_seen(line: str, sources: Path, tmp_path: Path) -> None:
    for changed in (line.replace(": ", ": x"), line + "\nRequires-Dist: numpy"):
        names = {**GOOD, METADATA: GOOD[METADATA].replace(line, changed)}
        assert len(WHEELS.faults(wheel(tmp_path / "x.whl", names), sources)) == 1, changed


def test_a_wheel_that_is_too_large_is_seen(sources: Path, tmp_path: Path) -> None:
    large = {**GOOD, "duroxide/__init__.py": "#" * 2_000_001}  # not compressed here
    assert "more than" in WHEELS.faults(wheel(tmp_path / "x.whl", large), sources)[0]


# ── by building, some minutes ──


@pytest.mark.soak
def test_wheels_are_built_of_the_sdist_and_a_new_user_is_served(tmp_path: Path) -> None:
    assert "all green" in python(str(ROOT / ".ci" / "wheels.py"), "--no-tests", "--out", str(tmp_path))
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sdist:
        names = {Path(*Path(name).parts[1:]) for name in sdist.getnames()}
    needed = [p.relative_to(ROOT) for d in ("duroxide", "csrc", "tests", "docs") for p in (ROOT / d).rglob("*")]
    needed = [p for p in needed if p.suffix in (".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".typed", ".md")]
    assert {*needed, Path("setup.py"), Path("pyproject.toml"), Path("LICENSE"), Path("README.md"), Path("CHANGELOG.md")} <= names
    assert not [name for name in names if name.suffix in (".so", ".pyd") or "__pycache__" in name.parts]

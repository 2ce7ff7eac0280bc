"""Wheels from the sdist, and the tests from the installed wheel, for each interpreter that is named.

    python .ci/wheels.py python3.10 python3.13                  # all of it; 8 to 10 minutes each on two idle cores
    python .ci/wheels.py --no-tests                             # this interpreter only, without the test suite
    python .ci/wheels.py python3.12 -- -x tests/test_queue.py   # the rest goes to pytest

What is unpacked for the tests is the sdist without `duroxide/`, so that nothing but the installed wheel can be what is imported. Everything is
left in build/wheels (`--out`): the sdist, the wheels, and the environments, which a second run uses again.
"""

from __future__ import annotations

import argparse
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEWCOMER = ROOT / ".ci" / "newcomer.py"
LARGEST = 2_000_000  # bytes
SHIPPED = {".py", ".pyi", ".typed", ".so", ".pyd"}
EXTRAS = {"postgres", "entra", "test", "lint", "docs"}


def say(*command: object, cwd: Path | None = None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    print("$", *command, flush=True)
    subprocess.run([str(each) for each in command], cwd=cwd, env=environment, check=True)


def faults(wheel: Path, sources: Path) -> list[str]:
    """What is wrong with a wheel that was built of the tree at `sources`."""
    size = wheel.stat().st_size
    found = [f"{size} bytes are more than {LARGEST}"] if size > LARGEST else []
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name) for name in archive.namelist()}
        (metadata,) = (archive.read(str(name)).decode() for name in names if name.name == "METADATA")
    ours = {name for name in names if name.parts[0] == "duroxide"}
    found += [f"stray: {name}" for name in sorted(ours) if name.suffix not in SHIPPED or "__pycache__" in name.parts]
    found += [f"stray: {name}" for name in sorted(names - ours) if not re.fullmatch(r"duroxide-[\d.]+\.dist-info", name.parts[0])]
    wanted = {path.relative_to(sources) for path in (sources / "duroxide").rglob("*") if path.suffix in (".py", ".pyi", ".typed")}
    found += [f"missing: {name}" for name in sorted(wanted - names)]
    compiled = {name.parent / name.name.split(".")[0] for name in ours if name.suffix in (".so", ".pyd")}
    modules = {path.relative_to(sources).with_suffix("") for path in (sources / "duroxide").rglob("*.pyx")}
    found += [f"not compiled: {name}" for name in sorted(modules - compiled)]
    found += [f"missing: {name}" for name in ("LICENSE", "RECORD", "WHEEL") if not any(path.name == name for path in names)]
    return found + wrong_metadata(metadata, sources)


def wrong_metadata(text: str, sources: Path) -> list[str]:
    project = (sources / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)
    said = email.message_from_string(text)
    wanted = {
        "Name": "duroxide",
        "Version": version,
        "License-Expression": "MIT",
        "License-File": "LICENSE",
        "Requires-Python": ">=3.10",
    }
    found = [f"{key}: {said[key]}, not {value}" for key, value in wanted.items() if said[key] != value]
    extras = {*said.get_all("Provides-Extra", [])}
    needed = [line for line in said.get_all("Requires-Dist", []) if "extra ==" not in line]
    found += [f"extras: {sorted(extras)}"] if extras != EXTRAS else []
    found += [f"needs at run time: {needed}"] if [re.split(r"\W", line)[0] for line in needed] != ["apsw"] else []
    return found


def sdist(out: Path) -> tuple[Path, Path]:
    """(the sdist, where it lies unpacked)."""
    for old in [*out.glob("*.tar.gz"), *out.glob("*.whl")]:
        old.unlink()
    say(sys.executable, "-m", "build", "--sdist", "--outdir", out, ROOT)
    (packed,) = out.glob("*.tar.gz")
    shutil.rmtree(out / "sources", ignore_errors=True)
    with tarfile.open(packed) as archive:
        archive.extractall(out / "sources")
    (sources,) = (out / "sources").iterdir()
    return packed, sources


def itself(name: str) -> str:
    """The program behind a name on PATH: a new user's PATH does not have it, nor the shell that a version switcher needs."""
    code = "import sys; print(sys.executable)"
    return subprocess.run([name, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def one(interpreter: str, packed: Path, sources: Path, out: Path, rest: list[str] | None) -> None:
    """Wheel, its contents, a new user, and the tests unless `rest` (for pytest) is None."""
    code = "import sys, sysconfig; print(f'{sys.version_info[0]}{sys.version_info[1]}' + 't' * bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
    version = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    environment = out / f"venv-{version}"
    inside = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not inside.exists():
        say(interpreter, "-m", "venv", environment)
    say(inside, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, packed)
    (wheel,) = out.glob(f"*-cp{version.rstrip('t')}-cp{version}-*.whl")
    wrong = faults(wheel, sources)
    assert not wrong, "\n".join([f"{wheel.name}:", *wrong])
    print(f"{wheel.name}: {wheel.stat().st_size} bytes, as it should be", flush=True)
    say(sys.executable, NEWCOMER, wheel, "--python", interpreter)
    if rest is None:
        return
    say(inside, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", wheel)
    say(inside, "-m", "pip", "install", "--quiet", f"{wheel}[test]")
    place = out / f"tests-{version}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sources, place, ignore=lambda at, names: ["duroxide"] if Path(at) == sources else [])
    say(inside, "-m", "pytest", *rest, cwd=place)


if __name__ == "__main__":
    own = sys.argv[1:] if "--" not in sys.argv else sys.argv[1 : sys.argv.index("--")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "interpreters", nargs="*", default=[sys.executable], help="each a path or a name on PATH (default: this one)"
    )
    parser.add_argument("--no-tests", action="store_true", help="build, look and install only")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "wheels")
    asked = parser.parse_args(own)
    interpreters = [itself(name) for name in asked.interpreters]
    asked.out.mkdir(parents=True, exist_ok=True)
    packed, sources = sdist(asked.out.resolve())
    say(sys.executable, NEWCOMER, packed, "--compiler", "--python", interpreters[0])
    for interpreter in interpreters:
        one(interpreter, packed, sources, asked.out.resolve(), None if asked.no_tests else sys.argv[len(own) + 2 :])
    print("all green:", *interpreters)

"""The tests on a build that sees every wrong use of memory: `python -m tests.memory asan` or `valgrind`, then arguments for pytest.

Builds a copy of the tree in build/memory, so that the build in place stays as it is, and runs there. asan: AddressSanitizer and
UndefinedBehaviorSanitizer, subprocesses too. valgrind: memcheck, this process alone. Python's own small-object allocator is off in
both, and each allocation of our arenas is a block of its own. Any report makes the exit code 1, whatever the tests say.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
LEFT_OUT = shutil.ignore_patterns(".git", "build", "dist", "*.so", "*.pyd", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "bench-*")

# What runs C or Cython at all; not what only reads files, and not the simulation: the sanitizers do not follow greenlets.
TESTS = {
    "asan": [
        "test_engine_*.py", "test_queue.py", "test_conformance.py", "test_c_abi.py", "test_example_store.py", "test_client.py", "test_context.py",
        "test_differences.py", "test_golden.py", "test_parity.py", "test_model.py", "test_random_programs.py", "test_sqlite_*.py", "test_adoption.py",
        "test_inspect.py", "test_succession.py", "test_registry.py", "test_options.py", "test_fixture.py", "test_liveness.py", "test_runtime_*.py",
        "test_kill.py", "test_chaos.py", "test_disk_faults.py", "test_power.py", "test_fork.py", "test_leaks.py", "test_exit.py",
    ],
    "valgrind": [
        "test_engine_*.py", "test_queue.py", "test_c_abi.py", "test_sqlite_claims.py", "test_client.py", "test_conformance.py",
        "test_example_store.py", "test_differences.py",
    ],
}  # fmt: skip


def copy_if_changed(source: str, target: str) -> str:
    """So that only what changed is built again."""
    there = Path(target)
    if not there.exists() or there.stat().st_mtime_ns != os.stat(source).st_mtime_ns:
        shutil.copy2(source, target)
    return target


def built(kind: str) -> Path:
    tree = ROOT / "build" / "memory" / kind
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT, copy_function=copy_if_changed, dirs_exist_ok=True)
    switch = {"asan": "DUROXIDE_SANITIZE", "valgrind": "DUROXIDE_DEBUG"}[kind]
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=tree, env={**os.environ, switch: "1"}, check=True, stdout=subprocess.DEVNULL)
    return tree


def library(name: str) -> str:
    """Where the compiler has it."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return subprocess.run([compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout.strip()


def environment(kind: str, tree: Path, reports: Path) -> dict[str, str]:
    chosen = {"PYTHONPATH": str(tree), "PYTHONMALLOC": "malloc", "PYTHONDONTWRITEBYTECODE": "1"}
    if kind == "asan":
        # Not leaks: CPython frees little of its own at exit (test_leaks.py looks for growth). abort: in a subprocess too it is a death.
        options = f"log_path={reports}/report:detect_leaks=0:abort_on_error=1:allocator_may_return_null=1"
        chosen |= {
            "LD_PRELOAD": f"{library('libasan.so')} {library('libstdc++.so.6')}",
            "ASAN_OPTIONS": options, "UBSAN_OPTIONS": f"{options}:print_stacktrace=1",
        }  # fmt: skip
    return {**os.environ, **chosen}


def command(kind: str, reports: Path) -> list[str]:
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    if kind == "asan":
        return pytest
    memcheck = ["valgrind", "--tool=memcheck", "--leak-check=no", "--error-exitcode=9", "--num-callers=30", f"--log-file={reports}/report.%p"]
    return [*memcheck, f"--suppressions={HERE / 'python.supp'}", *pytest]


def found(kind: str, reports: Path) -> list[Path]:
    """The reports that say something: valgrind writes one for every run."""
    return [path for path in sorted(reports.iterdir()) if kind == "asan" or "ERROR SUMMARY: 0 errors" not in path.read_text(errors="replace")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m tests.memory")
    parser.add_argument("kind", choices=sorted(TESTS))
    chosen, rest = parser.parse_known_args()
    tree = built(chosen.kind)
    reports = tree / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    if not any(argument.startswith("tests") for argument in rest):
        rest += [str(path.relative_to(tree)) for pattern in TESTS[chosen.kind] for path in sorted((tree / "tests").glob(pattern))]
    done = subprocess.run([*command(chosen.kind, reports), *rest], cwd=tree, env=environment(chosen.kind, tree, reports))
    said = found(chosen.kind, reports)
    for report in said:
        print(f"── {report}", report.read_text(errors="replace")[:6_000], sep="\n")
    print(f"{chosen.kind}: {len(said)} reports; pytest ended with {done.returncode}")
    return 1 if said else done.returncode


if __name__ == "__main__":
    sys.exit(main())

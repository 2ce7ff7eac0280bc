"""A new user: a fresh environment in an empty directory, nothing of this repository but what is installed and what the pages say.

    python .ci/newcomer.py dist/duroxide-0.3.0-....whl                      # no compiler within reach
    python .ci/newcomer.py dist/duroxide-0.3.0.tar.gz --compiler            # built on the spot
    python .ci/newcomer.py ... --python /path/to/python3.12

Installs, then runs the demo, README's quick start, the first page of the documentation and one example. Started as root it works as `nobody`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TAKEN_ALONG = ["README.md", "docs/start.md", "tests/pages.py", "docs/examples/etl_sales.py"]
COMPILERS = ["cc", "c99", "gcc", "g++", "clang", "tcc", "cl"]
INSTALLED = """
    import sys, pathlib, duroxide
    assert pathlib.Path(sys.prefix) in pathlib.Path(duroxide.__file__).parents, duroxide.__file__
    provider = duroxide.SqliteProvider.in_memory()
    print("duroxide", duroxide.__version__, "on", sys.version.split()[0], "with", provider.name)
    assert provider.name == "sqlite (C)", "the store in C is not there"
    provider.close()
"""
FIRST_PAGE = """
    import pathlib, sys
    root = pathlib.Path(sys.argv[1])
    sys.path.append(str(root / "tests"))
    import pages
    print("blocks of the first page that ran:", pages.run(root / "docs" / "start.md", pathlib.Path()))
"""


class Newcomer:
    def __init__(self, home: Path, compiler: bool) -> None:
        self.home = home
        self.bin = home / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.python = str(self.bin / "python")
        path = [str(self.bin), *(os.environ["PATH"].split(os.pathsep) if compiler else [])]
        names = [name for name in os.environ if name.startswith(("PIP_", "SSL_", "SYSTEMROOT", "TEMP"))]
        self.environment = {**{name: os.environ[name] for name in names}, "HOME": str(home), "PATH": os.pathsep.join(path)}
        found = [name for name in COMPILERS if shutil.which(name, path=self.environment["PATH"])]
        assert bool(found) == compiler, f"compilers within reach: {found}"

    def run(self, *command: str, inside: str = ".") -> str:
        directory = self.home / inside
        directory.mkdir(exist_ok=True)
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command,
            cwd=directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=1_800,
            check=False,
            **self.who(directory),
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4_000:]}{done.stderr[-4_000:]}"
        return done.stdout

    def who(self, directory: Path) -> dict[str, Any]:
        """Root would hide what only root may do."""
        if os.name == "nt" or os.getuid() != 0:
            return {}
        import pwd

        nobody = pwd.getpwnam("nobody")
        for path in (self.home, directory, *self.home.glob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def try_it(package: Path, interpreter: str, compiler: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="newcomer-") as place:
        home = Path(place)
        for name in TAKEN_ALONG:
            (home / "pages" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, home / "pages" / name)
        shutil.copy(package, home)
        one = Newcomer(home, compiler)
        one.run(interpreter, "-m", "venv", str(home / "venv"))
        no_builds = [] if compiler else ["--only-binary", ":all:"]
        one.run(one.python, "-m", "pip", "install", "--quiet", *no_builds, str(home / package.name))
        print(one.run(one.python, "-c", textwrap.dedent(INSTALLED), inside="empty"), end="")

        said = one.run(one.python, "-m", "duroxide", "demo", inside="demo")
        assert "result: " in said, said
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        (program,), (printed,) = (re.findall(rf"^```{kind}\n(.*?)^```$", readme, re.M | re.S) for kind in ("python", "text"))
        assert one.run(one.python, "-c", program, inside="quick") == printed
        print(one.run(one.python, "-c", textwrap.dedent(FIRST_PAGE), str(home / "pages"), inside="page"), end="")

        shop = home / "example"
        shop.mkdir()
        (shop / "lisbon.csv").write_text("item,count,price\nlamp,2,10.5\n")
        one.run(one.python, str(home / "pages" / "docs" / "examples" / "etl_sales.py"), ".", inside="example")
        totals = json.loads((shop / "totals.json").read_text())
        assert "lamp" in json.dumps(totals), totals
        print(f"a new user is served by {package.name}", "with" if compiler else "without", "a compiler")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="a wheel, or an sdist with --compiler")
    parser.add_argument("--python", default=sys.executable, help="the interpreter (default: this one)")
    parser.add_argument("--compiler", action="store_true", help="leave PATH as it is, with a compiler on it")
    arguments = parser.parse_args()
    try_it(arguments.package.resolve(), arguments.python, arguments.compiler)

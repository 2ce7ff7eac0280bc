"""Builds the Cython modules and the C store. Everything else about the package stands in pyproject.toml."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("DUROXIDE_DEBUG") == "1"
SANITIZE = os.environ.get("DUROXIDE_SANITIZE") == "1"  # AddressSanitizer and UndefinedBehaviorSanitizer: see tests/memory
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-O1", "-g"]
WINDOWS = os.name == "nt"
C_SOURCES = {"_sqlite": "sqlite_*.c", "_events": "event_*.c"}  # module -> what is compiled into it
HEADERS = sorted(str(p) for p in Path("csrc").glob("*.h"))


def extension(path: Path) -> Extension:
    c_sources = sorted(Path("csrc").glob(C_SOURCES[path.stem])) if path.stem in C_SOURCES else []
    if WINDOWS:
        flags = ["/Od", "/Zi"] if DEBUG else ["/O2", "/DNDEBUG"]
    else:
        flags = ["-O0", "-g3", "-UNDEBUG"] if DEBUG else ["-O2", "-g0", "-DNDEBUG"]
        flags += ["-std=c11", "-fvisibility=hidden"] + (SANITIZERS if SANITIZE else [])
    return Extension(
        ".".join(path.with_suffix("").parts),
        [str(path), *map(str, c_sources)],
        include_dirs=["csrc"],
        depends=HEADERS,
        define_macros=[("DX_ALONE", "1")] if DEBUG or SANITIZE else [],
        extra_compile_args=flags,
        extra_link_args=SANITIZERS if SANITIZE else [],
    )


class BuildExt(build_ext):
    """Leaves what it built beside the sources, too: Python in a clone finds the clone's package before the installed one."""

    def run(self) -> None:
        super().run()
        if not self.inplace:
            self.copy_extensions_to_source()


setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=cythonize(
        [extension(p) for p in sorted(Path("duroxide").rglob("*.pyx"))],
        build_dir="build/cython",
        compiler_directives={"language_level": 3, "boundscheck": DEBUG, "wraparound": DEBUG, "initializedcheck": DEBUG},
    ),
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)

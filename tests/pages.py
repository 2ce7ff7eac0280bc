"""The code of a page: its fenced blocks in order, and a run of them in one namespace, as a reader would type them.

A `python` block runs unless `<!-- not run: reason -->` stands before it. A `text` block whose neighbour above is a `python` block is
what that one prints. Blocks of other languages are left alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import duroxide

ROOT = Path(__file__).resolve().parent.parent
_FENCE = re.compile(r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block:
    def __init__(self, line: int, code: str, reason: str | None) -> None:
        self.line = line
        self.code = code
        self.reason = reason  # why it is not run
        self.printed: str | None = None  # what it is said to print


def blocks(page: Path) -> list[Block]:
    """The `python` blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    last = None
    for fence in _FENCE.finditer(text):
        if fence["language"] == "python":
            found.append(Block(text.count("\n", 0, fence.start("code")) + 1, fence["code"], fence["reason"]))
        elif fence["language"] == "text" and last == "python":
            found[-1].printed = fence["code"]
        last = fence["language"]
    return found


def run(page: Path, directory: Path) -> int:
    """Run the blocks of a page in an empty directory; AssertionError where one prints something else than the page says.
    Returns how many ran."""
    module = types.ModuleType("__page__")
    sys.modules["__page__"] = module  # so that classes of the page can be found by their module
    ran = 0
    with _inside(directory):
        try:
            for block in blocks(page):
                if block.reason is None:
                    _run(block, page, module)
                    ran += 1
        finally:
            del sys.modules["__page__"]
            _close(module)
    return ran


def _run(block: Block, page: Path, module: types.ModuleType) -> None:
    said = io.StringIO()
    place = f"{page.relative_to(ROOT)}:{block.line}"
    with contextlib.redirect_stdout(said):
        # The lines of a traceback are those of the page.
        exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), module.__dict__)
    if block.printed is not None:
        assert said.getvalue() == block.printed, f"{place} prints\n{said.getvalue()}and says that it prints\n{block.printed}"


@contextlib.contextmanager
def _inside(directory: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def _close(module: types.ModuleType) -> None:
    """Pages start runtimes and need not end on how to stop them."""
    for kind, end in ((duroxide.Runtime, "shutdown"), (duroxide.SqliteProvider, "close")):
        for value in list(vars(module).values()):
            if isinstance(value, kind):
                getattr(value, end)()

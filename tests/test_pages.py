"""Every `python` block of every page runs as it stands there, and prints what the page says (see `pages`)."""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if pages.blocks(path))


LOGGERS = ("", "duroxide", "duroxide.runtime", "duroxide.orchestration", "duroxide.activity")


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """Pages show how a program takes signals and log lines: that ends with the page."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    loggers = {name: (logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in LOGGERS}
    yield
    for number, handler in signals.items():
        signal.signal(number, handler)
    for name, (level, handlers) in loggers.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).handlers[:] = handlers


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT / "docs").with_suffix("").as_posix())
def test_the_code_of_a_page_runs(path: Path, tmp_path: Path) -> None:
    pages.run(path, tmp_path)


def test_few_blocks_are_left_out() -> None:
    """Those that need something that is the reader's own; each says what."""
    out = {f"{path.name}:{block.line}": block.reason for path in PAGES for block in pages.blocks(path) if block.reason}
    assert len(out) <= 6, out


def test_no_block_escapes_by_its_spelling() -> None:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"^ *```(?:py|Python|python3|pycon)\b", text, re.MULTILINE), path
        assert len(re.findall(r"^ *```python\b", text, re.MULTILINE)) == len(pages.blocks(path)), path


def test_a_wrong_output_is_seen(tmp_path: Path) -> None:
    page = ROOT / "docs" / "planted.md"  # only its name is used
    with pytest.raises(AssertionError, match="says that it prints"):
        block = pages.Block(3, "print(1)\n", None)
        block.printed = "2\n"
        pages._run(block, page, __import__("types").ModuleType("planted"))

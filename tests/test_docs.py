"""What the documents say is there, is there: files, functions, tests, the parts of every decision, the names of the layers.

Convention: a link whose text is code, as [`Queue.submit`](../duroxide/storage/_queue.pyx), names something that the file defines.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), ROOT / "bench" / "README.md", *(ROOT / "docs").rglob("*.md")]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
PARTS = ("## Context", "## Options", "## Choice", "## Consequences")

_LINK = re.compile(r"\[([^\]\n]+)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def links(text: str) -> list[tuple[str, str]]:
    """(text, target) of every link outside code blocks."""
    return _LINK.findall(_FENCE.sub("", text))


def defines(source: str, name: str) -> bool:
    """Whether a Python, Cython or C source defines a function, class, struct, constant or statement of this name."""
    n = re.escape(name)
    return any(
        re.search(pattern, source, re.MULTILINE)
        for pattern in (
            rf"^\s*(?:async def|def|class|cdef|cpdef)\b[^=\n]*\b{n}\b\s*(?:[(:]|$)",
            rf"^\s*\"?{n}\"?\s*(?::[^=\n]*)?[:=]",
            rf"^[A-Za-z_][^;={{}}\n]*\b\*?{n}\([^;]*$",  # a C function's definition
            rf"^}}\s*{n}\s*;",
            rf"^\s*#define\s+{n}\b",
        )
    )


def wrong_links(document: str, path: Path) -> list[str]:
    """What a document that stands at `path` links to in vain."""
    wrong = []
    for text, target in links(document):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        if not to.exists() or ROOT not in (to, *to.parents):
            wrong.append(f"{target}: no such file in the repository")
            continue
        if to.suffix == ".md" and anchor and anchor not in anchors(to):
            wrong.append(f"{target}: no such heading")
        name = re.fullmatch(r"`([A-Za-z_][\w.]*)`", text)
        if name and to.suffix in (".py", ".pyx", ".c", ".h") and not name[1].endswith(to.suffix):
            source = to.read_text(encoding="utf-8")
            wrong += [f"{target} does not define {part} ({name[1]})" for part in name[1].split(".") if not defines(source, part)]
    return wrong


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", _FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_what_they_name(path: Path) -> None:
    wrong = wrong_links(path.read_text(encoding="utf-8"), path)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "document",
    [
        "[x](nowhere.md)", "[`Queue.nothing`](../duroxide/storage/_queue.pyx)", "[x](journey.md#no-such-head)",
        "[`dx_sen`](../csrc/sqlite_turn.c)", "[`nothing_at_all`](../duroxide/client.py)", "[x](../../outside)",
    ],
)  # fmt: skip
def test_a_link_to_what_is_gone_is_seen(document: str) -> None:
    assert wrong_links(document, ROOT / "docs" / "journey.md")


def names_of_tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def cases() -> set[str]:
    from duroxide import testing

    return {case.name for case in testing.cases()}


def test_every_difference_has_a_test_that_is_there() -> None:
    """In each line of the tables, the last column names tests as `file.py::test_name`, `test_conformance.py[case]` or a parity program."""
    text = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not re.match(r"\| ?(what|---)", line)]
    assert len(rows) > 40
    known = {path.name: names_of_tests(path) for path in (ROOT / "tests").glob("test_*.py")}
    for row in rows:
        named = re.findall(r"`([\w.]+\.py)(?:::(\w+)|\[(\w+)\])`", row.rsplit("|", 2)[1])
        assert named, f"no test: {row}"
        for file, test, case in named:
            if file == "test_conformance.py" and case:
                assert case in cases(), f"{case}: {row}"
            elif case:
                assert (ROOT / "tests" / "golden" / "histories" / f"{case}.json").exists(), f"{case}: {row}"
            else:
                assert test in known.get(file, ()), f"{file}::{test}: {row}"


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_its_parts_and_is_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(r"# \d{4}: .+\n", text) and text[2:6] == path.name[:4]
    assert [line for line in text.splitlines() if line.startswith("## ")] == list(PARTS)
    assert len(text.splitlines()) <= 30


def test_no_two_decisions_have_one_number() -> None:
    assert len({path.name[:4] for path in DECISIONS}) == len(DECISIONS)


def test_the_map_shows_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / target).resolve() for _, target in links(text)}
    missing = []
    for path in sorted((ROOT / "duroxide").rglob("*.py*")):
        if path.suffix in (".py", ".pyx") and path.name != "__init__.py" and not {path, *path.parents} & linked:
            missing.append(path.name)
    assert [name for name in missing if f"`{name}`" not in text] == []


def test_everything_public_is_documented() -> None:
    """The API reference is made of docstrings; where a method has none, it would be a bare signature."""
    import duroxide

    bare = []
    for name, value in vars(duroxide).items():
        if name.startswith("_") or inspect.ismodule(value) or not callable(value):
            continue
        found = {name: value}
        if isinstance(value, type):
            found |= {f"{name}.{key}": each for key, each in vars(value).items() if not key.startswith("_")}
        for where, each in found.items():
            each = getattr(each, "__func__", each)  # a static method
            if (callable(each) or isinstance(each, property)) and not each.__doc__:
                bare.append(where)
    assert not bare


def test_nothing_in_the_repository_names_the_machine_it_was_made_on() -> None:
    """The documents stand alone."""
    for path in DOCUMENTS:
        found = re.findall(r"(?:^|[\s(`])(/(?:work|opt|root|home|tmp)/\S*|\.\./shared\S*)", path.read_text(encoding="utf-8"))
        assert not found, f"{path.name}: {found}"

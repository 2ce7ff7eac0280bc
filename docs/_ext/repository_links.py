"""Links from pages to files of the repository: a Markdown link to a source becomes a page of that source, at the line that it names.

Owns the pages under `source/` and the few pages whose text stands outside of docs (`OUTSIDE`). So one Markdown file reads well in
the repository and on the site, and a link whose text is code, as [`Queue.submit`](../duroxide/storage/_queue.pyx), lands on that definition.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent.parent
ROOT = DOCS.parent

# page -> the file that is its text
OUTSIDE = {
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
    "security": "SECURITY.md",
    "benchmarks": "bench/README.md",
}
# pages of the first page's table of contents that others write: left out while they are not there
COMING = ("performance", "compatibility", "scaling", "reliability")
_PAGES = {(ROOT / file).resolve(): DOCS / f"{page}.md" for page, file in OUTSIDE.items()} | {
    ROOT / "README.md": DOCS / "index.md"
}

_PIECE = re.compile(r"^```.*?^```$|`[^`\n]*`(?!\])|\[([^\]\n]+)\]\(([^)\s]+)\)", re.MULTILINE | re.DOTALL)


def rewritten(text: str, file: Path, page: Path) -> str:
    """The text of `file` with its links as the page needs them: to other pages, or `source:path#name`."""

    def link(found: re.Match[str]) -> str:
        label, target = found[1], found[2]
        if label is None or re.match(r"[a-z]+:|#", target):
            return found[0]
        path, _, anchor = target.partition("#")
        to = (file.parent / path).resolve()
        to = _PAGES.get(to, to)
        if to.suffix == ".md" and DOCS in to.parents:
            return f"[{label}]({Path(os.path.relpath(to, page.parent)).as_posix()}{'#' + anchor if anchor else ''})"
        if to.exists() and ROOT in (to, *to.parents) and to.suffix not in (".svg", ".png"):
            name = re.fullmatch(r"`([A-Za-z_][\w.]*)`", label)
            return f"[{label}](source:{to.relative_to(ROOT).as_posix()}#{name[1] if name else ''})"
        return found[0]

    return _PIECE.sub(link, text)


def read(app: Sphinx, page: str, source: list[str]) -> None:
    file = ROOT / OUTSIDE[page] if page in OUTSIDE else Path(app.env.doc2path(page))
    if page in OUTSIDE:
        app.env.note_dependency(str(file))
        source[0] = file.read_text(encoding="utf-8")
    if page == "index":
        for name in COMING:
            if not (DOCS / f"{name}.md").exists():
                source[0] = source[0].replace(f"\n{name}\n", "\n")
    source[0] = rewritten(source[0], file, DOCS / f"{page}.md")


def line_of(source: str, name: str) -> int:
    """Where the last part of a dotted name is defined, in Python, Cython or C; 0 if nowhere."""
    n = re.escape(name.rpartition(".")[2])
    for pattern in (
        rf"^\s*(?:async def|def|class|cdef|cpdef)\b[^=\n]*\b{n}\b\s*(?:[(:]|$)",
        rf"^[A-Za-z_][^;={{}}\n]*\b\*?{n}\([^;]*$",
        rf"^}}\s*{n}\s*;|^\s*#define\s+{n}\b|^\s*\"?{n}\"?\s*(?::[^=\n]*)?=",
    ):
        if found := re.search(pattern, source, re.MULTILINE):
            return source.count("\n", 0, found.start() + len(found[0]) - len(found[0].lstrip())) + 1
    return 0


def resolve(app: Sphinx, doctree: nodes.document, page: str) -> None:
    for reference in doctree.findall(nodes.reference):
        target = reference.get("refuri", "")
        if target.startswith("source:"):
            path, _, name = target.removeprefix("source:").partition("#")
            file = ROOT / path
            line = line_of(file.read_text(encoding="utf-8"), name) if name and file.is_file() else 0
            uri = app.builder.get_relative_uri(page, "source/" + path) if app.builder.format == "html" else path
            reference["refuri"] = f"{uri}#line-{line}" if line else uri


def linked() -> set[Path]:
    """Every file and directory that a page links to."""
    found = set()
    for page in [*DOCS.rglob("*.md"), *(ROOT / file for file in OUTSIDE.values() if (ROOT / file).exists())]:
        text = rewritten(page.read_text(encoding="utf-8"), page, page)
        found |= {ROOT / path for path in re.findall(r"\]\(source:([^#)]*)#", text)}
    return found


def write(app: Sphinx, error: Exception | None) -> None:
    """The pages of sources: plain, without the site's navigation, whose making would cost as much as all other pages."""
    if error is not None or app.builder.format != "html":
        return
    for path in sorted(with_contents(linked())):
        name = path.relative_to(ROOT).as_posix()
        body = listing(path) if path.is_dir() else highlighted(path)
        to = Path(app.outdir) / "source" / f"{name}.html"
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(_PAGE.format(name=name, up="../" * (name.count("/") + 1), body=body), encoding="utf-8")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name}</title>
<link rel="stylesheet" href="{up}_static/pygments.css"><link rel="stylesheet" href="{up}_static/site.css"></head>
<body class="source"><p><a href="{up}index.html">duroxide</a> / <code>{name}</code></p>
{body}</body></html>
"""


def with_contents(paths: set[Path]) -> set[Path]:
    return paths | {file for path in paths if path.is_dir() for file in contents(path)}


def contents(directory: Path) -> list[Path]:
    """Its sources."""
    known = (".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".md", ".txt")
    return sorted(p for p in directory.iterdir() if p.suffix in known and p.is_file() and directory != DOCS / "decisions")


def listing(directory: Path) -> str:
    links = (f'<li><a href="{directory.name}/{p.name}.html"><code>{p.name}</code></a></li>' for p in contents(directory))
    return f"<ul>{''.join(links)}</ul>"


def highlighted(path: Path) -> str:
    try:
        lexer = get_lexer_for_filename(path.name)
    except ClassNotFound:
        lexer = TextLexer()
    text = path.read_text(encoding="utf-8")
    html: str = highlight(text, lexer, HtmlFormatter(lineanchors="line", anchorlinenos=True, cssclass="highlight source"))
    return html


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", read)
    app.connect("doctree-resolved", resolve)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The documentation as a site: it builds without a warning, its links lead somewhere, its search knows its words, nothing is fetched."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

import duroxide

ROOT = Path(__file__).resolve().parent.parent
sphinx = pytest.importorskip("sphinx", reason="the site is built with the extra `docs`")
pytest.importorskip("furo", reason="the site is built with the extra `docs`")
pytest.importorskip("myst_parser", reason="the site is built with the extra `docs`")


class Page(HTMLParser):
    """The anchors of a page, its links, and what a browser would load for it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := given.get(name))}
        target = given.get("href" if tag in ("a", "link") else "src")
        if target and tag == "a":
            self.links.add(target)
        elif target:
            self.loads.add(target)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(out / "trees"), "docs", str(out / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-4_000:]
    return out / "html"


@pytest.fixture(scope="module")
def html(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_every_link_leads_to_a_page_and_a_place_in_it(site: Path, html: dict[Path, Page]) -> None:
    wrong = []
    for path, page in html.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto"):
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            if not to.exists() or (place and to in html and place not in html[to].anchors):
                wrong.append(f"{path.relative_to(site)}: {link}")
    assert not wrong, "\n".join(sorted(wrong)[:40])


def test_nothing_is_loaded_from_elsewhere(site: Path, html: dict[Path, Page]) -> None:
    for path, page in html.items():
        for target in page.loads:
            parts = urlsplit(target)
            assert not parts.scheme and not parts.netloc, f"{path.name} loads {target}"
            assert (path.parent / unquote(parts.path)).exists(), f"{path.name} loads {target}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_every_page_can_be_reached_from_the_first(site: Path, html: dict[Path, Page]) -> None:
    seen, todo = set(), [site / "index.html"]
    while todo:
        path = todo.pop()
        if path in seen or path not in html:
            continue
        seen.add(path)
        todo += [(path.parent / unquote(urlsplit(link).path)).resolve() for link in html[path].links if urlsplit(link).path]
    alone = {path.relative_to(site).as_posix() for path in html if path not in seen}
    assert alone <= {"genindex.html", "search.html", "py-modindex.html"}


def test_the_search_knows_pages_and_names(site: Path) -> None:
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for word in ("nondetermin", "saga", "continue_as_new", "prune_executions"):
        assert word in index, word


def test_every_public_name_is_in_the_reference(site: Path, html: dict[Path, Page]) -> None:
    anchors = {anchor for path, page in html.items() if path.parent == site / "api" for anchor in page.anchors}
    aliases = {name for name in vars(duroxide) if name.startswith("Py")}  # the reference's second names, listed on a page of their own
    missing = [name for name in public() if f"duroxide.{name}" not in anchors and name not in aliases]
    assert not missing
    for kind in (duroxide.Client, duroxide.Runtime, duroxide.OrchestrationContext, duroxide.ActivityContext, duroxide.SqliteProvider):
        for name in vars(kind):
            assert name.startswith("_") or f"duroxide.{kind.__name__}.{name}" in anchors, f"{kind.__name__}.{name}"


def public() -> list[str]:
    """Modules do not count: which of them are there depends on what else was imported."""
    return [name for name, value in vars(duroxide).items() if not name.startswith("_") and not isinstance(value, ModuleType)]

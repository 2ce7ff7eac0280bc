"""A third party's store in C as a provider: `CapsuleProvider(capsule)` goes where `SqliteProvider` goes.

Owns nothing but defaults for what a capsule does not have: no other process, no cold calls but those on one instance's values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from duroxide.errors import ProviderError
from duroxide.storage._capsule import CapsuleStore
from duroxide.storage.base import Loaded, Renewal, Renewed, Request, Taken


class _Load(Protocol):
    def __call__(self, instance: str, execution_id: int | None = None, after: int = 0) -> Loaded | None: ...


class CapsuleProvider:
    """`capsule`: a PyCapsule named "duroxide.store_v1" (docs/c-abi.md); ValueError if it is none, or of another ABI.

    `name` is what `provider.name` says. `admin`: an object with the cold calls that the store's author has in Python (those of
    `duroxide.storage.base.Provider`, such as `instances` or `reclaim`); a call that neither has raises ProviderError.
    """

    holds_nul = True

    def __init__(self, capsule: object, name: str = "capsule", admin: Any = None) -> None:
        store = CapsuleStore(capsule)
        self.exchange: Callable[[Sequence[Request]], list[Taken]] = store.exchange
        self.load: _Load = store.load
        self.renew: Callable[[Renewal], Renewed] = store.renew
        self.close: Callable[[], None] = store.close
        self.name: str = name
        self._admin = admin

    @property
    def _native(self) -> CapsuleProvider:
        return self

    def __getattr__(self, call: str) -> Any:
        """What is not here is the admin's, or missing."""
        if call.startswith("_"):
            raise AttributeError(call)
        found = getattr(self._admin, call, None) or _DEFAULTS.get(call)
        if found is None:
            raise ProviderError(f"the store '{self.name}' has no call '{call}': give CapsuleProvider an admin that has it")
        return found

    def kv_values(self, instance: str) -> dict[str, str]:
        row = self.load(instance, None, 1 << 62)
        if row is None:
            return {}
        stored = {key: value for key, (value, _) in row.kv.items() if key not in row.kv_delta}
        return stored | {key: value for key, (value, _) in row.kv_delta.items() if value is not None}

    def kv_value(self, instance: str, key: str) -> str | None:
        return self.kv_values(instance).get(key)


def _announce(owner: str) -> Callable[[], None]:
    return lambda: None


# Nobody else has the store: nothing changes elsewhere, no owner dies, sessions that ended are found by time.
_DEFAULTS: dict[str, Callable[..., Any]] = {
    "version": lambda: 0, "announce": _announce, "reclaim": lambda now: 0, "sweep_sessions": lambda now: 0,
    "subscribe": lambda heard: False, "reserve_log": lambda: False, "rest": lambda seconds: None,
}  # fmt: skip

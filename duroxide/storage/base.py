"""The contract between the runtime and a store: what goes into an exchange, what comes out.

Owns the row shapes and the two protocols (`Store`: the hot verbs, `Provider`: a store plus everything cold).
Refuses to know any backend, JSON beyond work-item prefixes, threads and clocks: `now` is always an argument, in Unix ms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

# Commit codes of one finished turn or one finished work item (the C ABI uses the same numbers).
OK = 0
LOST = 1  # the lease or the work row is no longer ours: nothing of this item was written
REFUSED = 2  # the store's constraints refuse it (duplicate event id, ...): nothing of this item was written

# A message that waits for its instance to be born (CancelInstance of an unknown id) is parked at this time.
PARKED = 1 << 62
NO_EVENTS = 1 << 62  # as `after` of load

KV_SET, KV_CLEAR, KV_CLEAR_ALL = 0, 1, 2


class Slots:
    """Plain records: positional or keyword construction, readable repr, equality by value."""

    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in self.__slots__)})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, n) == getattr(other, n) for n in self.__slots__)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]


# ── what is handed in ────────────────────────────────────────────────────────────────────────────────────────


class WorkOut(Slots):
    """One activity to run: a new worker_queue row. `lease` not None inserts it already locked by that token."""

    __slots__ = ("activity_id", "execution_id", "input", "instance", "item", "lease", "name", "session_id", "tag", "visible_at")

    def __init__(
        self,
        instance: str,
        execution_id: int,
        activity_id: int,
        name: str,
        input: str,
        item: str,  # the ActivityExecute work item, JSON text
        session_id: str | None = None,
        tag: str | None = None,
        visible_at: int = 0,
        lease: str | None = None,
    ) -> None:
        self.instance: str = instance
        self.execution_id: int = execution_id
        self.activity_id: int = activity_id
        self.name: str = name
        self.input: str = input
        self.item: str = item
        self.session_id: str | None = session_id
        self.tag: str | None = tag
        self.visible_at: int = visible_at
        self.lease: str | None = lease


class TurnDone(Slots):
    """One finished turn; committed whole or not at all, and only while `lease` is live on `instance`."""

    __slots__ = (
        "acks",  # [(work row id, work token)]: results consumed straight from local workers; each must still be ours
        "cancelled",  # [(instance, execution_id, activity_id)]: worker rows to delete (after `work` is inserted)
        "consumed",  # [orchestrator_queue row id] to delete, only where tagged by `lease`
        "custom_status",  # None: untouched; (text | None,): set (or cleared), version + 1
        "events",  # [(event_id, type, JSON text)]
        "execution_id",
        "instance",
        "keep",  # keep the lease after the commit (work in flight here)
        "kv",  # [(KV_SET, key, value, at_ms) | (KV_CLEAR, key, None, at_ms) | (KV_CLEAR_ALL, None, None, at_ms)] in order
        "lease",
        "messages",  # [(instance, work item JSON text, visible_at ms; 0 = now)]
        "name",  # first turn of an execution: orchestration name (else None); inserts/updates instance + execution rows
        "output",
        "parent",  # parent instance id or None (with `name`)
        "pinned",  # (major, minor, patch) of the engine stamp, or None (with `name`)
        "status",  # None while running, else "Completed" | "Failed" | "ContinuedAsNew"
        "version",  # resolved orchestration version (with `name`)
        "work",  # [WorkOut]
    )

    def __init__(self, lease: str, instance: str, execution_id: int) -> None:
        self.lease: str = lease
        self.instance: str = instance
        self.execution_id: int = execution_id
        self.consumed: list[int] = []
        self.acks: list[tuple[int, str]] = []
        self.name: str | None = None
        self.version: str | None = None
        self.parent: str | None = None
        self.pinned: tuple[int, int, int] | None = None
        self.status: str | None = None
        self.output: str | None = None
        self.custom_status: tuple[str | None] | None = None
        self.events: list[tuple[int, str, str]] = []
        self.messages: list[tuple[str, str, int]] = []
        self.work: list[WorkOut] = []
        self.cancelled: list[tuple[str, int, int]] = []
        self.kv: list[tuple[int, str | None, str | None, int]] = []
        self.keep: bool = False


class TurnBack(Slots):
    """Give a claimed instance back unprocessed: its tagged messages become visible after `delay_ms`; 0 leaves them at their old
    place (the clock of who gives them back may be ahead). `refund` takes the counted attempt back (never below 0). Also releases
    a kept lease that has no messages. Unknown token: LOST."""

    __slots__ = ("delay_ms", "instance", "lease", "refund")

    def __init__(self, lease: str, instance: str, delay_ms: int = 0, refund: bool = False) -> None:
        self.lease: str = lease
        self.instance: str = instance
        self.delay_ms: int = delay_ms
        self.refund: bool = refund


class WorkDone(Slots):
    """One finished activity whose instance is not leased here: delete the row and enqueue `item` for `instance`,
    both or neither. `item` None deletes silently. Missing row, other token or ended lease: LOST."""

    __slots__ = ("instance", "item", "row_id", "token")

    def __init__(self, row_id: int, token: str, instance: str, item: str | None) -> None:
        self.row_id: int = row_id
        self.token: str = token
        self.instance: str = instance
        self.item: str | None = item


class WorkBack(Slots):
    """Give a claimed work item back: unlocked, visible after `delay_ms`; `refund` takes the attempt back."""

    __slots__ = ("delay_ms", "refund", "row_id", "token")

    def __init__(self, row_id: int, token: str, delay_ms: int = 0, refund: bool = False) -> None:
        self.row_id: int = row_id
        self.token: str = token
        self.delay_ms: int = delay_ms
        self.refund: bool = refund


class Done(Slots):
    """Everything one caller hands in. `messages` are client calls: (instance, work item JSON, visible_at; 0 = now)."""

    __slots__ = ("messages", "turn_backs", "turns", "work", "work_backs")

    def __init__(self) -> None:
        self.turns: list[TurnDone] = []
        self.turn_backs: list[TurnBack] = []
        self.work: list[WorkDone] = []
        self.work_backs: list[WorkBack] = []
        self.messages: list[tuple[str, str, int]] = []


class Appetite(Slots):
    """What one caller would take. Tokens are `lock_{owner}:{n}`: the store makes `n` unique within the owner.

    Tag modes: "default_only" (tag IS NULL), "tags" (tag in `tags`), "default_and" (NULL or in `tags`), "any", "none".
    Sessions: `session_owner` None takes only work without a session. Otherwise a session is eligible if nobody holds it
    live or this owner does; it must be in `sessions` (in flight here already) or fit into `session_room` new ones.
    Versions: an execution pinned outside `versions` (packed major*1e6+minor*1e3+patch, inclusive) is neither locked nor read;
    no pin always fits; None: no filter; an empty tuple: nothing fits.
    """

    __slots__ = (
        "lease_ms", "owner", "session_lock_ms", "session_owner", "session_room", "sessions", "sweep", "tag_mode",
        "tags", "turns", "versions", "work", "work_lease_ms",
    )  # fmt: skip

    def __init__(
        self,
        owner: str,
        turns: int = 0,
        work: int = 0,
        lease_ms: int = 5_000,
        work_lease_ms: int = 30_000,
        tag_mode: str = "default_only",
        tags: tuple[str, ...] = (),
        session_owner: str | None = None,
        session_lock_ms: int = 30_000,
        session_room: int = 0,
        sessions: tuple[str, ...] = (),
        versions: tuple[int, int] | tuple[()] | None = None,
        sweep: bool = True,  # also look for expired leases before fresh messages
    ) -> None:
        self.owner: str = owner
        self.turns: int = turns
        self.work: int = work
        self.lease_ms: int = lease_ms
        self.work_lease_ms: int = work_lease_ms
        self.tag_mode: str = tag_mode
        self.tags: tuple[str, ...] = tags
        self.session_owner: str | None = session_owner
        self.session_lock_ms: int = session_lock_ms
        self.session_room: int = session_room
        self.sessions: tuple[str, ...] = sessions
        self.versions: tuple[int, int] | tuple[()] | None = versions
        self.sweep: bool = sweep


class Request(Slots):
    """One caller's share of a group: `done` is applied first (of all requests), then each `appetite` is served."""

    __slots__ = ("appetite", "done", "now")

    def __init__(self, now: int, done: Done | None = None, appetite: Appetite | None = None) -> None:
        self.now: int = now
        self.done: Done | None = done
        self.appetite: Appetite | None = appetite


# ── what comes out ───────────────────────────────────────────────────────────────────────────────────────────


class ClaimedTurn(Slots):
    """One claimed instance. `messages`: [(row id, work item JSON, attempt count incl. this claim)] by row id.

    If `lease` is a token that this owner already holds on the instance (a kept lease), these are *more* messages for the
    turn in progress. `execution_id` 0 and `name` None: no such instance yet. `status` is that of the current execution
    ("Running", ...). `last_event_id` 0: no history in that execution.
    """

    __slots__ = ("attempt", "execution_id", "instance", "last_event_id", "lease", "messages", "name", "status", "version")

    def __init__(
        self,
        instance: str,
        lease: str,
        messages: list[tuple[int, str, int]],
        attempt: int,
        execution_id: int,
        last_event_id: int,
        name: str | None,
        version: str | None,
        status: str | None,
    ) -> None:
        self.instance: str = instance
        self.lease: str = lease
        self.messages: list[tuple[int, str, int]] = messages
        self.attempt: int = attempt
        self.execution_id: int = execution_id
        self.last_event_id: int = last_event_id
        self.name: str | None = name
        self.version: str | None = version
        self.status: str | None = status


class ClaimedWork(Slots):
    """One claimed activity; `item` is the ActivityExecute JSON. `name`/`version`: of the orchestration, None if gone."""

    __slots__ = ("attempt", "instance", "item", "name", "row_id", "session_id", "tag", "token", "version")

    def __init__(
        self,
        row_id: int,
        token: str,
        item: str,
        attempt: int,
        instance: str | None,
        session_id: str | None,
        tag: str | None,
        name: str | None,
        version: str | None,
    ) -> None:
        self.row_id: int = row_id
        self.token: str = token
        self.item: str = item
        self.attempt: int = attempt
        self.instance: str | None = instance
        self.session_id: str | None = session_id
        self.tag: str | None = tag
        self.name: str | None = name
        self.version: str | None = version


class Taken(Slots):
    """The answer to one Request. Code lists run parallel to the lists of `Done`; `held[i]` has the row ids of those
    `turns[i].work` entries that carried a lease, in order. `next_visible_at`: when the earliest message or work item that
    is not yet visible comes due (ms, never PARKED), or None; only filled when an appetite was given."""

    __slots__ = ("held", "next_visible_at", "turn_back_codes", "turn_codes", "turns", "work", "work_back_codes", "work_codes")

    def __init__(self) -> None:
        self.turn_codes: list[int] = []
        self.turn_back_codes: list[int] = []
        self.work_codes: list[int] = []
        self.work_back_codes: list[int] = []
        self.held: list[list[int]] = []
        self.turns: list[ClaimedTurn] = []
        self.work: list[ClaimedWork] = []
        self.next_visible_at: int | None = None


class Loaded(Slots):
    """One instance as stored, read in one snapshot. `events`: [(event_id, JSON text)] of one execution, in order.
    `kv`: the kv_store snapshot (state at the end of the previous execution): {key: (value, last_updated_at_ms)}.
    `kv_delta`: changes of the current execution: {key: (value | None for a tombstone, ms)}."""

    __slots__ = (
        "custom_status", "custom_status_version", "events", "execution_id", "instance", "kv", "kv_delta", "name", "output",
        "parent", "status", "version",
    )  # fmt: skip

    def __init__(
        self,
        instance: str,
        execution_id: int,
        name: str,
        version: str | None,
        status: str,
        output: str | None,
        parent: str | None,
        custom_status: str | None,
        custom_status_version: int,
        events: list[tuple[int, str]],
        kv: dict[str, tuple[str, int]],
        kv_delta: dict[str, tuple[str | None, int]],
    ) -> None:
        self.instance: str = instance
        self.execution_id: int = execution_id
        self.name: str = name
        self.version: str | None = version
        self.status: str = status
        self.output: str | None = output
        self.parent: str | None = parent
        self.custom_status: str | None = custom_status
        self.custom_status_version: int = custom_status_version
        self.events: list[tuple[int, str]] = events
        self.kv: dict[str, tuple[str, int]] = kv
        self.kv_delta: dict[str, tuple[str | None, int]] = kv_delta


class Renewal(Slots):
    """Leases to extend: instance leases [(instance, token)], work [(row id, token)]. With `lease_ms` or `work_lease_ms` 0 those
    are only checked, nothing written. `session_owner` extends that owner's live sessions used within `session_idle_ms`."""

    __slots__ = ("lease_ms", "leases", "now", "session_idle_ms", "session_lock_ms", "session_owner", "work", "work_lease_ms")

    def __init__(
        self,
        now: int,
        leases: Sequence[tuple[str, str]] = (),
        lease_ms: int = 0,
        work: Sequence[tuple[int, str]] = (),
        work_lease_ms: int = 0,
        session_owner: str | None = None,
        session_lock_ms: int = 0,
        session_idle_ms: int = 0,
    ) -> None:
        self.now: int = now
        self.leases: Sequence[tuple[str, str]] = leases
        self.lease_ms: int = lease_ms
        self.work: Sequence[tuple[int, str]] = work
        self.work_lease_ms: int = work_lease_ms
        self.session_owner: str | None = session_owner
        self.session_lock_ms: int = session_lock_ms
        self.session_idle_ms: int = session_idle_ms


class Renewed(Slots):
    """`lost_leases`: indices into Renewal.leases; `lost_work`: indices into Renewal.work; `sessions`: how many were extended."""

    __slots__ = ("lost_leases", "lost_work", "sessions")

    def __init__(self, lost_leases: list[int], lost_work: list[int], sessions: int = 0) -> None:
        self.lost_leases: list[int] = lost_leases
        self.lost_work: list[int] = lost_work
        self.sessions: int = sessions


class StoreError(RuntimeError):
    """A store could not do what was asked; nothing of the group was written. `retryable`: trying again may help.

    `in_doubt`: nobody knows whether it was written after all: the connection was lost while the database committed, and has not come back
    in time to ask. Starting and cancelling again is harmless; an event or a message may then be there twice.
    """

    def __init__(self, text: str, *, operation: str = "", retryable: bool = False, in_doubt: bool = False) -> None:
        super().__init__(text)
        self.operation = operation
        self.retryable = retryable
        self.in_doubt = in_doubt


class AnswerLost(StoreError):
    """The group *was* written, and what it was answered is lost (there was no memory for it, say): nobody may hand it in again."""

    def __init__(self, text: str) -> None:
        super().__init__(text, operation="exchange")


class Store(Protocol):
    """The hot verbs. Thread-safe; each call is one transaction. A C store reaches these through `duroxide.store_v1`."""

    def exchange(self, requests: Sequence[Request]) -> list[Taken]: ...

    def load(self, instance: str, execution_id: int | None = None, after: int = 0) -> Loaded | None:
        """The instance (None if unknown) with the events of `execution_id` (None: current) whose id is > `after`.

        From NO_EVENTS on it is for the status: no events, and key-value entries only if that is easier.
        """

    def renew(self, renewal: Renewal) -> Renewed: ...

    def close(self) -> None: ...


class Admin(Protocol):
    """The cold calls; values are plain tuples/dicts so that no backend imports the public result classes."""

    def instance_info(self, instance: str) -> dict[str, Any] | None: ...
    def execution_info(self, instance: str, execution_id: int) -> dict[str, Any] | None: ...
    def executions(self, instance: str) -> list[int]: ...
    def instances(self, status: str | None = None) -> list[str]: ...
    def children(self, instance: str) -> list[str]: ...
    def tree(self, instance: str) -> list[str]: ...
    def kv_values(self, instance: str) -> dict[str, str]: ...
    def kv_value(self, instance: str, key: str) -> str | None: ...
    def stats(self, instance: str) -> dict[str, int] | None: ...
    def system_metrics(self) -> dict[str, int]: ...
    def queue_depths(self, now: int) -> dict[str, int]: ...
    def delete(self, ids: Sequence[str], force: bool) -> dict[str, int]: ...
    def delete_bulk(self, ids: Sequence[str] | None, completed_before: int | None, limit: int | None) -> dict[str, int]: ...
    def prune(self, instance: str, keep_last: int | None, completed_before: int | None) -> dict[str, int]: ...
    def prune_bulk(
        self, ids: Sequence[str] | None, before: int | None, limit: int | None, keep_last: int | None, completed_before: int | None
    ) -> dict[str, int]: ...


class Provider(Store, Admin, Protocol):
    """What `Client` and `Runtime` are given. Beside the verbs: liveness of owners and signs of outside change.

    A provider that is told of changes by its database may also have `subscribe(heard) -> bool`: it calls `heard(ready, instances)` from
    a thread of its own whenever others have committed (`ready`: perhaps something to claim; `instances`: whose turns, None: any), or
    returns False where it cannot. Without it, or after False, `version` is asked while somebody sleeps.
    It may have `rest(seconds) -> bool | None`: sleeps until somebody begins to write, which may be we (True), or that long (False);
    None if it cannot. One thread calls it, between two questions for `version`, when all has been quiet for a while.
    It may have `reserve_log() -> bool`, short work that makes later commits faster: a runtime calls it until it returns False.
    One whose columns hold no NUL character says `holds_nul = False`: code that would store one fails its instance with a text that says so.
    """

    name: str  # e.g. "sqlite (C)", "sqlite (Python)", "memory"

    def version(self) -> int:
        """A number that changes when somebody has committed past this store's `exchange` and `renew`. May wait for a verb that runs."""
        ...

    def announce(self, owner: str) -> Callable[[], None]:
        """Make `owner` recognisably alive to other processes until the returned function is called or the process dies."""
        ...

    def reclaim(self, now: int) -> int:
        """Free all leases (instances, work, sessions) whose owner is provably dead, in one transaction; returns how many rows."""
        ...

    def sweep_sessions(self, now: int) -> int:
        """Delete sessions whose lease ended and that have no queued item; returns how many."""
        ...

"""Claims of the SQLite store in Python: which instances and which work items may run next, and what goes with them.

Owns the order of claims and what happens to messages of unborn instances. Reads no payload beyond a work item's kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Protocol

from duroxide.storage.base import PARKED, Appetite, ClaimedTurn, ClaimedWork, Taken

SWEEP_LIMIT = 256
_KIND = re.compile(r'[ \t\r\n]*\{[ \t\r\n]*"(\w+)"')


class Statements(Protocol):
    """What a transaction offers (`sqlite_store.Transaction`)."""

    def rows(self, name: str, *values: Any) -> list[tuple[Any, ...]]: ...
    def each(self, name: str, *values: Any) -> Iterator[tuple[Any, ...]]: ...
    def row(self, name: str, *values: Any) -> tuple[Any, ...] | None: ...
    def run(self, name: str, *values: Any) -> int: ...
    def token(self, owner: str) -> str: ...
    def lease_live(self, instance: str, token: str, now: float) -> bool: ...


def come_due(taken: Taken, at: int | None) -> None:
    if at is not None and at < PARKED and (taken.next_visible_at is None or at < taken.next_visible_at):
        taken.next_visible_at = at


def _is_kind(item: str, *kinds: str) -> bool:
    """Is it the externally tagged JSON of one of these kinds?"""
    match = _KIND.match(item)
    return match is not None and match.group(1) in kinds


def _starts(item: str) -> bool:
    return _is_kind(item, "StartOrchestration", "ContinueAsNew")


# ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────


def claim_turns(tx: Statements, appetite: Appetite, now: int, taken: Taken) -> None:
    if appetite.turns <= 0 or appetite.versions == ():
        return
    if appetite.sweep:
        _sweep(tx, now)
    _claim_routed(tx, appetite, now, taken)
    _claim_ready(tx, appetite, now, taken)
    if not appetite.sweep and len(taken.turns) < appetite.turns and _sweep(tx, now):
        _claim_ready(tx, appetite, now, taken)
    for step in ("message_next", "lease_next") if appetite.sweep else ("message_next",):
        found = tx.row(step, now)
        come_due(taken, found[0] if found else None)


def _sweep(tx: Statements, now: int) -> bool:
    """Free what expired leases held: those rows are ready again, at their old place and with their attempts."""
    freed = False
    for _ in range(SWEEP_LIMIT):
        found = tx.row("lease_expired", now)
        if found is None:
            break
        tx.run("message_untag", found[0])
        tx.run("lease_drop", found[0])
        freed = True
    return tx.run("message_adopt", SWEEP_LIMIT) > 0 or freed


def _claim_routed(tx: Statements, appetite: Appetite, now: int, taken: Taken) -> None:
    """What others met and left to this owner's leases."""
    at, below = f"lock_{appetite.owner}:", f"lock_{appetite.owner};"
    while len(taken.turns) < appetite.turns:
        found = tx.row("message_routed", at, below)
        if found is None:
            return
        instance, token = found
        at = token + "\0"
        if not _owns(appetite.owner, token):
            continue
        if tx.lease_live(instance, token, now):
            _claim_instance(tx, appetite, now, taken, instance, token)
        else:
            tx.run("message_untag", instance)


def _claim_ready(tx: Statements, appetite: Appetite, now: int, taken: Taken) -> None:
    at = (-(1 << 63), -(1 << 63))
    while len(taken.turns) < appetite.turns:
        found = _look(tx, appetite, now, at)
        if found is None:
            return
        row_id, visible_at, instance, token, until = found[:5]
        at = (visible_at, row_id)
        live = token is not None and until > now
        if live and not _owns(appetite.owner, token):
            tx.run("message_route", token, until, row_id)  # left to that lease's holder: nobody passes over it again
            continue
        if token is not None and not live:
            tx.run("message_untag", instance)
        _claim_instance(tx, appetite, now, taken, instance, token if live else None)


def _look(tx: Statements, appetite: Appetite, now: int, at: tuple[int, int]) -> tuple[Any, ...] | None:
    """The next ready row after `at` that asks for something to be done."""
    rows = tx.each("message_ready", at[0], now, at[1])
    try:
        for row in rows:
            token, until, pin = row[3:6]
            if token is not None and until > now:
                if ":" in token:
                    return row
            elif _fits(appetite, pin):
                return row
        return None
    finally:
        rows.close()  # type: ignore[attr-defined]


def _owns(owner: str, token: str) -> bool:
    """Only digits follow the colon, or "a" would own the leases of "a:1"."""
    head = f"lock_{owner}:"
    return token.startswith(head) and token[len(head) :].isdecimal()


def _fits(appetite: Appetite, pin: int | None) -> bool:
    versions = appetite.versions
    return not versions or pin is None or versions[0] <= pin <= versions[1]


def _batch(tx: Statements, instance: str, now: int, token: str) -> list[tuple[int, str, int]]:
    rows = tx.rows("message_batch", instance, now, token)
    return sorted((row_id, item, attempts + 1) for row_id, item, attempts in rows)


def _claim_instance(tx: Statements, appetite: Appetite, now: int, taken: Taken, instance: str, kept: str | None) -> None:
    token = kept or tx.token(appetite.owner)
    batch = _batch(tx, instance, now, token)
    if not batch:
        return
    found = tx.row("turn_get", instance)
    if kept is None and found is None:
        if not any(_starts(item) for _, item, _ in batch):
            _settle_orphans(tx, instance, now, batch)
            return
        if tx.row("message_parked", instance, PARKED) and tx.run("message_unpark", now, instance, PARKED):
            batch = _batch(tx, instance, now, token)
    if kept is None and found is not None and found[3] == "ContinuedAsNew" and _between(tx, instance, now, batch):
        return
    if kept is None:
        tx.run("lease_put", instance, token, now + appetite.lease_ms, now)
    for row_id, _, _ in batch:
        tx.run("message_tag", token, row_id)
    name, version, execution_id, status, last_event_id = found or (None, None, 0, None, None)
    attempt = max(attempt for _, _, attempt in batch)
    taken.turns.append(ClaimedTurn(instance, token, batch, attempt, execution_id, last_event_id or 0, name, version, status))


def _between(tx: Statements, instance: str, now: int, batch: list[tuple[int, str, int]]) -> bool:
    """Between two executions: what comes before the start of the next one is visible waits for it, so that nothing overtakes it."""
    if any(_is_kind(item, "ContinueAsNew") for _, item, _ in batch):
        return False
    later = tx.rows("message_later", instance, now)
    due = next((at for at, item in later if at < PARKED and _is_kind(item, "ContinueAsNew")), 0)
    for row_id, _, _ in batch if due else ():
        tx.run("message_defer", due, row_id)
    return due > 0


def _settle_orphans(tx: Statements, instance: str, now: int, batch: list[tuple[int, str, int]]) -> None:
    """Messages without an instance wait for a delayed start; else a cancellation is parked until the id is born, the rest dropped."""
    later = tx.rows("message_later", instance, now)
    due = next((at for at, item in later if at < PARKED and _starts(item)), 0)
    for row_id, item, _ in batch:
        if due or _is_kind(item, "CancelInstance"):
            tx.run("message_defer", due or PARKED, row_id)
        else:
            tx.run("message_delete", row_id)


# ── work ─────────────────────────────────────────────────────────────────────────────────────────────────────


def claim_work(tx: Statements, appetite: Appetite, now: int, taken: Taken) -> None:
    if appetite.work <= 0 or appetite.tag_mode == "none":
        return
    if appetite.sweep:
        tx.run("work_expire", now, SWEEP_LIMIT)
    opened: set[str] = set()
    _hunt(tx, appetite, now, taken, opened)
    if not appetite.sweep and len(taken.work) < appetite.work and tx.run("work_expire", now, SWEEP_LIMIT):
        _hunt(tx, appetite, now, taken, opened)
    if appetite.sweep:
        found = tx.row("work_lease_next", now)
        come_due(taken, found[0] if found else None)


def _hunt(tx: Statements, appetite: Appetite, now: int, taken: Taken, opened: set[str]) -> None:
    found: list[tuple[int, int, str | None]] = []
    for tag in _tags(tx, appetite):
        found += [(at, row_id, None) for row_id, at in tx.rows("work_ready", tag, now, appetite.work)]
        coming = tx.row("work_next", tag, now)
        come_due(taken, coming[0] if coming else None)
    if appetite.session_owner is not None:
        found += _of_sessions(tx, appetite, now, taken)
    for _, row_id, session in sorted(found, key=lambda c: c[:2]):
        if len(taken.work) >= appetite.work:
            return
        if session is None or _open_session(tx, appetite, now, session, opened):
            _take(tx, appetite, now, taken, row_id)


def _tags(tx: Statements, appetite: Appetite) -> list[str | None]:
    tags: list[str | None] = [] if appetite.tag_mode == "tags" else [None]
    if appetite.tag_mode in ("tags", "default_and"):
        tags += appetite.tags
    elif appetite.tag_mode == "any":
        tags += _each(tx, "work_tag")
    return tags


def _each(tx: Statements, step: str) -> list[str]:
    """Every tag or session that has ready rows, by leaps through the index."""
    texts: list[str] = []
    at = ""
    while (found := tx.row(step, at)) is not None:
        texts.append(found[0])
        at = found[0] + "\0"
    return texts


def _serves(appetite: Appetite, tag: str | None) -> bool:
    if appetite.tag_mode == "any":
        return True
    if tag is None:
        return appetite.tag_mode != "tags"
    return appetite.tag_mode != "default_only" and tag in appetite.tags


def _of_sessions(tx: Statements, appetite: Appetite, now: int, taken: Taken) -> list[tuple[int, int, str | None]]:
    found: list[tuple[int, int, str | None]] = []
    for session in _each(tx, "work_session"):
        if appetite.session_room <= 0 and session not in appetite.sessions:
            continue
        holder = tx.row("session_get", session)
        if holder is not None and holder[1] > now and holder[0] != appetite.session_owner:
            continue
        count = 0
        for row_id, visible_at, tag in tx.rows("work_of_session", session):
            if count >= appetite.work:
                break
            if not _serves(appetite, tag):
                continue
            if visible_at > now:
                come_due(taken, visible_at)
                break
            found.append((visible_at, row_id, session))
            count += 1
    return found


def _open_session(tx: Statements, appetite: Appetite, now: int, session: str, opened: set[str]) -> bool:
    """Claim or refresh the session; False if there is no room for one more."""
    if session in opened:
        return True
    if session not in appetite.sessions and len(opened - set(appetite.sessions)) >= appetite.session_room:
        return False
    opened.add(session)
    tx.run("session_put", session, appetite.session_owner, now + appetite.session_lock_ms, now)
    return True


def _take(tx: Statements, appetite: Appetite, now: int, taken: Taken, row_id: int) -> None:
    found = tx.row("work_row", row_id)
    assert found is not None
    item, attempts, instance, session, tag, name, version = found
    token = tx.token(appetite.owner)
    tx.run("work_lock", token, now + appetite.work_lease_ms, row_id)
    taken.work.append(ClaimedWork(row_id, token, item, attempts + 1, instance, session, tag, name, version))

"""What the doctor can find: each rule once, with what it means for the user and what to do about it.

Owns the words. Refuses to know stores and how a rule is checked.
"""

from __future__ import annotations

from typing import Any, NamedTuple

DAMAGE = "damage"  # something is lost, stuck or untrue
NOTICE = "notice"  # odd, and harmless as it is

_RESTORE = "restore a backup; or read what is left with another tool and start anew"
_END_IT = "end it: client.delete_instance(id, force=True) and start it again, or restore a backup"
_LOOK = "compare it with a backup; if its code goes on as it should, nothing has to be done"


class Rule(NamedTuple):
    level: str
    means: str
    do: str


RULES: dict[str, Rule] = {
    # ── the file and its rows ──
    "file-damaged": Rule(DAMAGE, "pages of the file are broken: rows may be missing or wrong", _RESTORE),
    "row-type": Rule(DAMAGE, "the row cannot be read: what stands in it does not happen", "correct or delete the row by hand, with everybody stopped"),
    # ── instances and executions ──
    "execution-orphan": Rule(DAMAGE, "rows of an instance that does not exist: nobody can reach or delete them", "delete the rows by hand, with everybody stopped"),
    "execution-current": Rule(DAMAGE, "it is not clear which execution is the current one: the instance does not go on", _END_IT),
    "execution-status": Rule(DAMAGE, "lists, waits and deletions do not see the instance as it is", _END_IT),
    "execution-name": Rule(DAMAGE, "the instance may be resumed with the wrong code", _END_IT),
    "parent-missing": Rule(NOTICE, "a child whose parent was removed by hand: nobody waits for it", "delete it when it has ended"),
    "pin-newer": Rule(NOTICE, "a newer version of the engine began it: this one leaves it alone", "run the newer version"),
    # ── histories ──
    "event-ids": Rule(DAMAGE, "events are missing: the instance cannot be replayed as it was", _END_IT),
    "event-unreadable": Rule(DAMAGE, "the instance cannot be replayed; it will fail as poisoned at its next message", _END_IT),
    "event-envelope": Rule(DAMAGE, "the event is of another place: this history was changed by hand", _END_IT),
    "event-first": Rule(DAMAGE, "without its one start event at the beginning a history cannot be replayed", _END_IT),
    "event-source": Rule(DAMAGE, "a result without its question, or a second one: replay may differ from what was", _END_IT),
    "event-end": Rule(DAMAGE, "history and status do not tell the same end: waits and replays may differ", _END_IT),
    "output": Rule(DAMAGE, "get_status and the history give different results", _LOOK),
    "custom-status": Rule(DAMAGE, "get_status shows another custom status than the code set", _LOOK),
    # ── values ──
    "value-orphan": Rule(NOTICE, "values of an instance that does not exist", "delete the rows by hand"),
    "value-change": Rule(DAMAGE, "values read from outside are not those that the code set", _LOOK),
    # ── messages ──
    "message-unreadable": Rule(DAMAGE, "it will be dropped with a warning, or poison its instance", "find out who wrote it; raise the event again if it was one"),
    "message-address": Rule(DAMAGE, "it is queued for one instance and names another", "delete the row by hand and send it again"),
    "message-orphan": Rule(NOTICE, "for an instance that does not exist: a runtime will drop it, or park a cancellation until the id is born", "nothing; was the id right?"),
    "message-held": Rule(DAMAGE, "tagged by a lease that is over and that nobody will free: it is never delivered, and its instance may wait for ever", "clear its lock_token and locked_until by hand, with everybody stopped"),
    "message-never": Rule(DAMAGE, "it has no time at which it becomes visible: it is never delivered", "set its visible_at to 0 by hand"),
    # ── work ──
    "work-unreadable": Rule(DAMAGE, "no worker can run it: its instance may wait for ever", _END_IT),
    "work-address": Rule(DAMAGE, "its columns and its item name different activities: its result reaches the wrong place", _END_IT),
    "work-orphan": Rule(DAMAGE, "nobody waits for it: it will run for nothing", "delete the row by hand, with everybody stopped"),
    "work-double": Rule(DAMAGE, "one activity is queued twice: it will run twice", "delete one of the rows by hand, with everybody stopped"),
    "work-held": Rule(DAMAGE, "leased without an end: it never runs, and its instance waits for ever", "clear its lock_token by hand, with everybody stopped"),
    "work-session": Rule(DAMAGE, "leased in a session that nobody holds: another worker may run the session's next activity beside it", "nothing; it heals when the row is finished"),
    # ── leases and sessions ──
    "lease-idle": Rule(NOTICE, "a lease on an id that has neither instance nor messages", "nothing; it ends by itself"),
    "lease-far": Rule(DAMAGE, "it ends more than a day from now: a clock was wrong, and what it holds waits that long if its holder is gone", "stop everybody and delete the lease by hand"),
    "lease-double": Rule(DAMAGE, "one token on two leases: whoever has it may commit what is not theirs", "stop everybody and delete both leases"),
    # ── what should wake it ──
    "activity-lost": Rule(DAMAGE, "the activity is in history, neither queued nor answered: the instance waits for it for ever", _END_IT),
    "timer-lost": Rule(DAMAGE, "the timer is in history and nothing will fire it: the instance waits for ever, if it waits for it", _END_IT),
    "child-lost": Rule(DAMAGE, "the child is in history, neither started, running nor answered: the instance waits for it for ever", _END_IT),
    "successor-lost": Rule(DAMAGE, "it continued as new and the start of the next execution is gone: it looks as if it ran, for ever", _END_IT),
    "nothing-wakes": Rule(DAMAGE, "it runs, has no message, and waits for nothing that could come", _END_IT),
}  # fmt: skip


class Finding(NamedTuple):
    """One thing that is not as it should be. `instance` and `row` are "" where there is none; `row` is a key in `table`."""

    rule: str
    instance: str
    table: str
    row: str
    found: str

    @property
    def level(self) -> str:
        return RULES[self.rule].level

    def as_dict(self) -> dict[str, Any]:
        rule = RULES[self.rule]
        return {**self._asdict(), "level": rule.level, "means": rule.means, "do": rule.do}

    def text(self) -> str:
        rule = RULES[self.rule]
        where = " ".join(part for part in (self.table, self.row) if part)
        whose = f"instance '{self.instance}', " if self.instance else ""
        return f"{rule.level} {self.rule}: {whose}{where}: {self.found}\n  means: {rule.means}\n  do: {rule.do}"

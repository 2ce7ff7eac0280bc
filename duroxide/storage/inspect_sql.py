"""What `python -m duroxide inspect` asks of a store, once, by name; the tables of both databases are the same.

Cold: some of it reads whole tables. `rendered` fills in where the tables are and how a time becomes Unix ms.
"""

from collections.abc import Callable

QUESTIONS: dict[str, str] = {
    "instances": "SELECT e.status, COUNT(*) FROM {s}instances i JOIN {s}executions e ON e.instance_id = i.instance_id"
    " AND e.execution_id = i.current_execution_id GROUP BY e.status ORDER BY e.status",
    "executions": "SELECT status, COUNT(*) FROM {s}executions GROUP BY status ORDER BY status",
    # By the version that pins its semantics; NULL: any.
    "pins": "SELECT duroxide_version_major, duroxide_version_minor, duroxide_version_patch, COUNT(*) FROM {s}executions"
    " WHERE status = 'Running' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    # The first characters of an item name its kind, however its JSON was written.
    "messages": "SELECT substr(work_item, 1, 24), COUNT(*), SUM(CASE WHEN {visible_at} > {now} THEN 1 ELSE 0 END),"
    " SUM(CASE WHEN lock_token IS NULL THEN 0 ELSE 1 END), MAX(attempt_count), MIN({visible_at})"
    " FROM {s}orchestrator_queue GROUP BY 1 ORDER BY 1",
    "work": "SELECT CASE WHEN locked_until > {now} THEN 'leased' WHEN lock_token IS NOT NULL THEN 'lease ended'"
    " WHEN {visible_at} > {now} THEN 'later' ELSE 'free' END, COUNT(*), MAX(attempt_count)"
    " FROM {s}worker_queue GROUP BY 1 ORDER BY 1",
    "leases": "SELECT 'instance', instance_id, lock_token, locked_until FROM {s}instance_locks"
    " UNION ALL SELECT 'activity', instance_id, lock_token, locked_until FROM {s}worker_queue"
    " WHERE lock_token IS NOT NULL AND locked_until IS NOT NULL ORDER BY 4, 2",
    "sessions": "SELECT COUNT(*), SUM(CASE WHEN locked_until > {now} THEN 1 ELSE 0 END) FROM {s}sessions",
    "events": "SELECT {event_type}, COUNT(*) FROM {s}history GROUP BY 1 ORDER BY 1",
}


def rendered(name: str, schema: str, ms: Callable[[str], str], event_type: str, now: int) -> str:
    """The statement; `schema` is "" or ends with its dot, `event_type` is the expression for a history row's kind."""
    return QUESTIONS[name].format(s=schema, now=now, event_type=event_type, visible_at=ms("visible_at"))

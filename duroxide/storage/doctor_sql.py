"""What `python -m duroxide doctor` reads, once, by name: every table in the order of its instances, so that one pass can lay them side by side.

Cold: whole tables are read, as a stream. `{s}` is the schema with its dot or nothing, `{c}` the collation that orders by bytes, `{t:x}` a
text column as it is stored, `{m:x}` a time in Unix ms, `{w}` what keeps rows whose instance is no text out of the stream.
"""

import re
from collections.abc import Callable

# Rows begin with the instance id.
STREAMS: dict[str, str] = {
    "instances": "SELECT {t:instance_id}, {t:orchestration_name}, current_execution_id, {t:parent_instance_id}, {t:custom_status},"
    " (SELECT 1 FROM {s}instances p WHERE p.instance_id = i.parent_instance_id)"
    " FROM {s}instances i WHERE {w} ORDER BY instance_id{c}",
    "executions": "SELECT {t:instance_id}, execution_id, {t:status}, {t:output}, duroxide_version_major, duroxide_version_minor,"
    " duroxide_version_patch FROM {s}executions WHERE {w} ORDER BY instance_id{c}, execution_id",
    "events": "SELECT {t:instance_id}, execution_id, event_id, {t:event_type}, {t:event_data} FROM {s}history WHERE {w}"
    " ORDER BY instance_id{c}, execution_id, event_id",
    "messages": "SELECT {t:instance_id}, id, {t:work_item}, {m:visible_at}, {t:lock_token}, locked_until, attempt_count"
    " FROM {s}orchestrator_queue WHERE {w} ORDER BY instance_id{c}, id",
    "work": "SELECT {t:instance_id}, id, {t:work_item}, {m:visible_at}, {t:lock_token}, locked_until, attempt_count, execution_id,"
    " activity_id, {t:session_id}, {t:tag}, (SELECT 1 FROM {s}sessions s WHERE s.session_id = w.session_id)"
    " FROM {s}worker_queue w WHERE {w} ORDER BY instance_id{c}, id",
    "leases": "SELECT {t:instance_id}, {t:lock_token}, locked_until FROM {s}instance_locks WHERE {w} ORDER BY instance_id{c}",
    "values": "SELECT {t:instance_id}, {t:key}, {t:value} FROM {s}kv_store WHERE {w} ORDER BY instance_id{c}, key{c}",
    "changes": "SELECT {t:instance_id}, {t:key}, {t:value} FROM {s}kv_delta WHERE {w} ORDER BY instance_id{c}, key{c}",
}
# What the stream of work leaves out: rows from before these columns were filled. Their item says whose they are.
UNADDRESSED = (
    "SELECT NULL, id, {t:work_item}, {m:visible_at}, {t:lock_token}, locked_until, attempt_count, execution_id, activity_id,"
    " {t:session_id}, {t:tag}, (SELECT 1 FROM {s}sessions s WHERE s.session_id = w.session_id)"
    " FROM {s}worker_queue w WHERE instance_id IS NULL"
)
SESSIONS = "SELECT {t:session_id}, {t:worker_id}, locked_until, last_activity_at FROM {s}sessions"
# Where children are: id, its parent, the status of its current execution, whether a start of it is queued.
WHEREABOUTS = (
    "SELECT {t:asked.id}, {t:i.parent_instance_id}, {t:e.status}, (SELECT 1 FROM {s}orchestrator_queue q"
    " WHERE q.instance_id = asked.id AND (q.work_item LIKE '%StartOrchestration%' OR q.work_item LIKE '%ContinueAsNew%') LIMIT 1)"
    " FROM {asked} asked LEFT JOIN {s}instances i ON i.instance_id = asked.id"
    " LEFT JOIN {s}executions e ON e.instance_id = i.instance_id AND e.execution_id = i.current_execution_id"
)
# SQLite only: an id that is no text stands in no order.
MISTYPED = "SELECT rowid, typeof(instance_id) FROM {table} WHERE typeof(instance_id) NOT IN ('text', 'null') LIMIT 100"
TABLES = ("instances", "executions", "history", "orchestrator_queue", "worker_queue", "instance_locks", "kv_store", "kv_delta")

_FIELD = re.compile(r"\{([tm]):([\w.]+)\}")


def rendered(sql: str, *, text: Callable[[str], str], ms: Callable[[str], str], **names: str) -> str:
    """The statement: `text` and `ms` turn a column into an expression, `names` fill in the rest."""
    return _FIELD.sub(lambda found: (text if found[1] == "t" else ms)(found[2]), sql).format(**names)

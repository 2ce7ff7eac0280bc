"""Every cold PostgreSQL statement once, by name. `{s}` stands for the quoted schema; parameters by name, times in Unix ms.

Knows only tables: no connections, no rules about when a statement runs.
"""

from __future__ import annotations


def _ms(column: str) -> str:
    return f"round(extract(epoch FROM {column}) * 1000)::bigint"


# The year 1 to the year 9999: what timestamptz and every driver can hold. Callers cut to it.
EARLIEST, LATEST = -62_135_596_800_000, 253_402_300_799_000
_TIME = "to_timestamp(%({0})s / 1000.0)"

# The reference leaves completed_at empty where an execution continues as new: it ended when the next one began.
_ENDED_AT = (
    "COALESCE(e.completed_at, CASE WHEN e.status = 'ContinuedAsNew' THEN (SELECT n.started_at FROM {s}.executions n"
    " WHERE n.instance_id = e.instance_id AND n.execution_id = e.execution_id + 1) END)"
)
_CURRENT = "{s}.instances i JOIN {s}.executions e ON e.instance_id = i.instance_id AND e.execution_id = i.current_execution_id"
# Who has lost the parent is a root, so that it can be deleted.
_PARENT = "(SELECT p.instance_id FROM {s}.instances p WHERE p.instance_id = i.parent_instance_id)"
# Ids that the engine makes count up within one parent: by length first, ::sub::10 comes after ::sub::9.
_BIRTH = "{0}.created_at, length({0}.instance_id), {0}.instance_id"

# ── one instance ──

INSTANCE = (
    "SELECT i.instance_id, i.orchestration_name, i.orchestration_version, i.current_execution_id, e.status, e.output, "
    + _ms("i.created_at") + ", " + _ms("GREATEST(i.updated_at, e.started_at, e.completed_at)") + f", {_PARENT}"
    " FROM {s}.instances i LEFT JOIN {s}.executions e ON e.instance_id = i.instance_id AND e.execution_id = i.current_execution_id"
    " WHERE i.instance_id = %(instance)s"
)  # fmt: skip
EXECUTION = (
    "SELECT e.execution_id, e.status, e.output, " + _ms("e.started_at") + ", " + _ms(_ENDED_AT) + ","
    " (SELECT count(*) FROM {s}.history h WHERE h.instance_id = e.instance_id AND h.execution_id = e.execution_id)"
    " FROM {s}.executions e WHERE e.instance_id = %(instance)s AND e.execution_id = %(execution)s"
)  # fmt: skip
EXECUTIONS = "SELECT execution_id FROM {s}.executions WHERE instance_id = %(instance)s ORDER BY 1"
CHILDREN = (
    "SELECT i.instance_id FROM {s}.instances i WHERE i.parent_instance_id = %(instance)s ORDER BY " + _BIRTH.format("i")
)
# -> (root, id, parent) of the roots and all that descends from them; UNION, so that a ring ends
TREES = (
    "WITH RECURSIVE tree (root, instance_id, parent, created_at) AS (SELECT r, r, NULL::text, NULL::timestamptz"
    " FROM unnest(%(ids)s::text[]) r UNION SELECT t.root, i.instance_id, i.parent_instance_id, i.created_at FROM tree t"
    " JOIN {s}.instances i ON i.parent_instance_id = t.instance_id) SELECT t.root, t.instance_id, t.parent FROM tree t"
    " ORDER BY " + _BIRTH.format("t")
)
VALUES = (
    "SELECT key, value FROM {s}.kv_delta WHERE instance_id = %(instance)s AND value IS NOT NULL UNION ALL"
    " SELECT k.key, k.value FROM {s}.kv_store k WHERE k.instance_id = %(instance)s AND NOT EXISTS"
    " (SELECT 1 FROM {s}.kv_delta d WHERE d.instance_id = k.instance_id AND d.key = k.key)"
)
VALUE = f"SELECT v.value FROM ({VALUES}) v WHERE v.key = %(key)s"
# Of the current execution; the first event tells what was carried into it.
STATS = (
    "SELECT h.events, h.bytes, f.event_data, v.keys, v.bytes FROM {s}.instances i"
    " CROSS JOIN LATERAL (SELECT count(*) AS events, COALESCE(sum(octet_length(event_data)), 0)::bigint AS bytes FROM {s}.history"
    " WHERE instance_id = i.instance_id AND execution_id = i.current_execution_id) h"
    " LEFT JOIN {s}.history f ON f.instance_id = i.instance_id AND f.execution_id = i.current_execution_id AND f.event_id = 1"
    " CROSS JOIN LATERAL (SELECT count(*) AS keys, COALESCE(sum(octet_length(value)), 0)::bigint AS bytes FROM (" + VALUES + ") x) v"
    " WHERE i.instance_id = %(instance)s"
)

# ── all ──

INSTANCES = "SELECT instance_id FROM {s}.instances ORDER BY created_at DESC, instance_id DESC"
INSTANCES_OF = (
    f"SELECT i.instance_id FROM {_CURRENT} WHERE e.status = %(status)s ORDER BY i.created_at DESC, i.instance_id DESC"
)
# All but the current execution have continued as new: no join tells which ones these are (10^6 instances: 640 ms with it, 130 without).
BY_STATUS = "SELECT status, count(*) FROM {s}.executions GROUP BY status"
TOTALS = "SELECT (SELECT count(*) FROM {s}.instances), (SELECT count(*) FROM {s}.history)"
# What may be claimed at once. The sum of two counts, so that each has an index.
DEPTHS = (
    "SELECT (SELECT count(*) FROM {s}.orchestrator_queue WHERE (lock_token IS NULL OR locked_until <= %(now)s) AND visible_at <= "
    + _TIME.format("now") + "), (SELECT count(*) FROM {s}.worker_queue WHERE (lock_token IS NULL OR locked_until <= %(now)s)"
    " AND visible_at <= " + _TIME.format("now") + ")"
)  # fmt: skip

# ── which ones: FIRST + what was asked + LAST ──

ROOTS_ENDED = f"SELECT i.instance_id FROM {_CURRENT} WHERE e.status IN ('Completed', 'Failed', 'ContinuedAsNew') AND {_PARENT} IS NULL"
ANY = f"SELECT i.instance_id FROM {_CURRENT} WHERE true"
AND_BEFORE = " AND e.completed_at < " + _TIME.format("before")
AND_IDS = " AND i.instance_id = ANY(%(ids)s)"
OLDEST_FIRST = " ORDER BY i.created_at, i.instance_id LIMIT %(limit)s"

# ── removal; each of many instances at once ──

# Waits for turns that are being committed; those that come later find their lease gone.
DROP_LEASES = "DELETE FROM {s}.instance_locks WHERE instance_id = ANY(%(ids)s)"
HOLD = "SELECT 1 FROM {s}.instances WHERE instance_id = ANY(%(ids)s) ORDER BY instance_id FOR UPDATE"
RUNNING = f"SELECT i.instance_id FROM {_CURRENT} WHERE i.instance_id = ANY(%(ids)s) AND e.status = 'Running'"
# -> (parent, child) where the child is not among them
LEFT_BEHIND = (
    "SELECT parent_instance_id, instance_id FROM {s}.instances WHERE parent_instance_id = ANY(%(ids)s)"
    " AND NOT instance_id = ANY(%(ids)s) LIMIT 1"
)
DROP_WORK = "DELETE FROM {s}.worker_queue WHERE instance_id = ANY(%(ids)s) RETURNING session_id"
DROP_SESSIONS = (
    "DELETE FROM {s}.sessions x WHERE x.session_id = ANY(%(sessions)s)"
    " AND NOT EXISTS (SELECT 1 FROM {s}.worker_queue w WHERE w.session_id = x.session_id)"
)
DROP_MESSAGES = "DELETE FROM {s}.orchestrator_queue WHERE instance_id = ANY(%(ids)s)"
DROP_EVENTS = "DELETE FROM {s}.history WHERE instance_id = ANY(%(ids)s)"
DROP_EXECUTIONS = "DELETE FROM {s}.executions WHERE instance_id = ANY(%(ids)s)"
DROP_VALUES = "DELETE FROM {s}.kv_store WHERE instance_id = ANY(%(ids)s)"
DROP_CHANGES = "DELETE FROM {s}.kv_delta WHERE instance_id = ANY(%(ids)s)"
DROP_INSTANCES = "DELETE FROM {s}.instances WHERE instance_id = ANY(%(ids)s)"

# Old executions with their events -> (executions, events). `keep` and `before` may be NULL.
PRUNE = (
    "WITH old AS MATERIALIZED (SELECT x.instance_id, x.execution_id FROM (SELECT e.instance_id, e.execution_id, e.status,"
    " i.current_execution_id, " + _ENDED_AT + " AS ended_at,"
    " row_number() OVER (PARTITION BY e.instance_id ORDER BY e.execution_id DESC) AS place"
    " FROM {s}.executions e JOIN {s}.instances i ON i.instance_id = e.instance_id WHERE e.instance_id = ANY(%(ids)s)) x"
    " WHERE x.execution_id <> x.current_execution_id AND x.status <> 'Running'"
    " AND (%(keep)s::bigint IS NULL OR x.place > %(keep)s) AND (%(before)s::bigint IS NULL OR x.ended_at < "
    + _TIME.format("before") + ")),"
    " events AS (DELETE FROM {s}.history h USING old WHERE h.instance_id = old.instance_id AND h.execution_id = old.execution_id"
    " RETURNING 1), executions AS (DELETE FROM {s}.executions e USING old WHERE e.instance_id = old.instance_id"
    " AND e.execution_id = old.execution_id RETURNING 1)"
    " SELECT (SELECT count(*) FROM executions), (SELECT count(*) FROM events)"
)  # fmt: skip

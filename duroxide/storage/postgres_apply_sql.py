"""What an exchange hands in, in SQL: one statement a name, each for all rows of the group at once.

Owns these statements and the parameters in which a group is laid out (`PARAMETERS`; arrays of one kind run parallel). `{s}` is the
quoted schema, `v_` are variables of the function that runs them (`postgres_exchange_sql`). A turn's rows carry its number (from 1);
`v_clean` says that no turn was lost, `v_ok` which were not.
"""

from __future__ import annotations

N, T = "bigint[]", "text[]"

PARAMETERS: dict[str, str] = {
    "p_peer": "text",  # who hands in: the row in dx_peers that is marked
    "p_mark": N,  # its epoch, the number of this exchange (0: nothing is written), now, how many turns
    # leases that must be ours: of the turns in order, then of those given back (whose end does not matter: now is -2^63)
    "p_lease_instance": T, "p_lease_token": T, "p_lease_now": N,
    "p_back_at": N, "p_back_refund": N,  # of those given back
    # worker rows that must be ours. turn > 0: consumed by it; 0: finished; -1: given back
    "p_work_row": N, "p_work_token": T, "p_work_now": N, "p_work_turn": N, "p_work_instance": T, "p_work_item": T, "p_work_at": N,
    "p_work_refund": N,
    "p_consumed_turn": N, "p_consumed_row": N, "p_consumed_token": T,
    # first turns of executions; pin is packed; custom is 1 where custom_text counts
    "p_first_turn": N, "p_first_instance": T, "p_first_execution": N, "p_first_name": T, "p_first_version": T, "p_first_parent": T,
    "p_first_pin": N, "p_first_custom": N, "p_first_custom_text": T,
    "p_later_turn": N, "p_later_instance": T, "p_later_custom": N, "p_later_custom_text": T,
    "p_event_turn": N, "p_event_instance": T, "p_event_execution": N, "p_event_id": N, "p_event_text": T,
    "p_end_turn": N, "p_end_instance": T, "p_end_execution": N, "p_end_status": T, "p_end_output": T,
    "p_clear_turn": N, "p_clear_instance": T, "p_clear_at": N,
    "p_kv_turn": N, "p_kv_instance": T, "p_kv_key": T, "p_kv_value": T, "p_kv_at": N,
    "p_out_turn": N, "p_out_instance": T, "p_out_execution": N, "p_out_activity": N, "p_out_item": T, "p_out_token": T, "p_out_at": N,
    "p_out_until": N, "p_out_session": T, "p_out_tag": T,
    "p_cancel_turn": N, "p_cancel_instance": T, "p_cancel_execution": N, "p_cancel_activity": N,
    "p_message_turn": N, "p_message_instance": T, "p_message_item": T, "p_message_at": N,
    "p_free_turn": N, "p_free_instance": T,  # whose lease ends with this
    "p_appetites": "jsonb",
}  # fmt: skip

VARIABLES: dict[str, str] = {
    "v_at": "timestamptz", "v_now": "bigint", "v_turns": "bigint", "v_leased": N, "v_worked": N, "v_ok": "boolean[]", "v_clean": "boolean",
    "v_row": N, "v_session": T, "v_instance": T, "v_held": N, "v_slot": "integer", "v_asked": "jsonb", "v_lost": N, "v_any": "boolean",
}  # fmt: skip

_OK = "(v_clean OR v_ok[{0}.turn])"
_TIME = "to_timestamp({0}::float8 / 1000)"


def _rows(alias: str, *columns: str) -> str:
    """The parallel arrays of one kind as rows with those columns."""
    return f"unnest({', '.join(f'p_{alias}_{c}' for c in columns)}) AS {alias}({', '.join(columns)})"


APPLY: dict[str, str] = {
    # The row is locked until the end: who wants to know what became of an exchange waits for it, and ends its epoch.
    "mark": "UPDATE {s}.dx_peers SET seq = p_mark[2] WHERE peer = p_peer AND epoch = p_mark[1]",
    "mark_seen": "PERFORM FROM {s}.dx_peers WHERE peer = p_peer AND epoch = p_mark[1]",
    # Locked in one order by everybody, so that groups do not deadlock.
    "lease_check": """
SELECT array_agg(h.n) FROM (
  SELECT t.n FROM unnest(p_lease_instance, p_lease_token, p_lease_now) WITH ORDINALITY AS t(instance, token, now, n)
  JOIN {s}.instance_locks l ON l.instance_id = t.instance AND l.lock_token = t.token AND l.locked_until > t.now
  ORDER BY l.instance_id FOR UPDATE OF l) AS h""",
    "work_check": """
SELECT array_agg(h.n) FROM (
  SELECT t.n FROM unnest(p_work_row, p_work_token, p_work_now) WITH ORDINALITY AS t(id, token, now, n)
  JOIN {s}.worker_queue w ON w.id = t.id AND w.lock_token = t.token AND w.locked_until > t.now
  ORDER BY w.id FOR UPDATE OF w) AS h""",
    # With cancellations: their rows are locked in the same order as those that must be ours.
    "work_lock": """
PERFORM FROM {s}.worker_queue w WHERE w.id = ANY (ARRAY(
  SELECT unnest(p_work_row) UNION ALL
  SELECT x.id FROM """ + _rows("cancel", "instance", "execution", "activity") + """ JOIN {s}.worker_queue x
  ON x.instance_id = cancel.instance AND x.execution_id = cancel.execution AND x.activity_id = cancel.activity))
ORDER BY w.id FOR UPDATE""",
    "work_drop": """
WITH gone AS (DELETE FROM {s}.worker_queue w WHERE w.id = ANY (v_row) RETURNING w.session_id)
SELECT array_agg(DISTINCT session_id) FILTER (WHERE session_id IS NOT NULL) FROM gone""",
    "session_touch": """
UPDATE {s}.sessions s SET last_activity_at = v_now WHERE s.session_id = ANY (v_session) AND s.locked_until > v_now""",
    "message_drop": """
DELETE FROM {s}.orchestrator_queue q USING """ + _rows("consumed", "turn", "row", "token") + """
WHERE q.id = consumed.row AND q.lock_token = consumed.token AND """ + _OK.format("consumed"),
    "instance_put": """
INSERT INTO {s}.instances (instance_id, orchestration_name, orchestration_version, current_execution_id, created_at, updated_at,
  parent_instance_id, custom_status, custom_status_version)
SELECT first.instance, first.name, first.version, first.execution, v_at, v_at, first.parent,
  CASE first.custom WHEN 1 THEN first.custom_text END, first.custom
FROM """ + _rows("first", "turn", "instance", "execution", "name", "version", "parent", "custom", "custom_text") + """
WHERE """ + _OK.format("first") + """
ON CONFLICT (instance_id) DO UPDATE SET orchestration_name = excluded.orchestration_name,
  orchestration_version = excluded.orchestration_version, updated_at = excluded.updated_at,
  current_execution_id = GREATEST(instances.current_execution_id, excluded.current_execution_id),
  custom_status = CASE excluded.custom_status_version WHEN 1 THEN excluded.custom_status ELSE instances.custom_status END,
  custom_status_version = instances.custom_status_version + excluded.custom_status_version""",
    "execution_put": """
INSERT INTO {s}.executions (instance_id, execution_id, status, started_at, duroxide_version_major, duroxide_version_minor,
  duroxide_version_patch)
SELECT first.instance, first.execution, 'Running', v_at, first.pin / 1000000, first.pin / 1000 % 1000, first.pin % 1000
FROM """ + _rows("first", "turn", "instance", "execution", "pin") + """ WHERE """ + _OK.format("first") + """
ON CONFLICT (instance_id, execution_id) DO UPDATE SET
  duroxide_version_major = COALESCE(excluded.duroxide_version_major, executions.duroxide_version_major),
  duroxide_version_minor = COALESCE(excluded.duroxide_version_minor, executions.duroxide_version_minor),
  duroxide_version_patch = COALESCE(excluded.duroxide_version_patch, executions.duroxide_version_patch)""",
    "instance_touch": """
UPDATE {s}.instances i SET updated_at = v_at,
  custom_status = CASE later.custom WHEN 1 THEN later.custom_text ELSE i.custom_status END,
  custom_status_version = i.custom_status_version + later.custom
FROM """ + _rows("later", "turn", "instance", "custom", "custom_text") + """
WHERE i.instance_id = later.instance AND """ + _OK.format("later"),
    # The reference writes no kind of event either.
    "event_put": """
INSERT INTO {s}.history (instance_id, execution_id, event_id, event_type, event_data, created_at)
SELECT event.instance, event.execution, event.id, 'Event', event.text, v_at
FROM """ + _rows("event", "turn", "instance", "execution", "id", "text") + " WHERE " + _OK.format("event"),
    "execution_end": """
UPDATE {s}.executions e SET status = "end".status, output = "end".output, completed_at = v_at
FROM unnest(p_end_turn, p_end_instance, p_end_execution, p_end_status, p_end_output)
  AS "end"(turn, instance, execution, status, output)
WHERE e.instance_id = "end".instance AND e.execution_id = "end".execution AND """ + _OK.format('"end"'),
    # Clear all: first what this execution set, then a tombstone for every older key.
    "kv_clear_delta": """
UPDATE {s}.kv_delta d SET value = NULL, last_updated_at_ms = clear.at FROM """ + _rows("clear", "turn", "instance", "at") + """
WHERE d.instance_id = clear.instance AND """ + _OK.format("clear"),
    "kv_clear_store": """
INSERT INTO {s}.kv_delta (instance_id, key, value, last_updated_at_ms)
SELECT k.instance_id, k.key, NULL, clear.at FROM """ + _rows("clear", "turn", "instance", "at") + """
JOIN {s}.kv_store k ON k.instance_id = clear.instance WHERE """ + _OK.format("clear") + """
ON CONFLICT (instance_id, key) DO UPDATE SET value = NULL, last_updated_at_ms = excluded.last_updated_at_ms""",
    "kv_put": """
INSERT INTO {s}.kv_delta (instance_id, key, value, last_updated_at_ms)
SELECT kv.instance, kv.key, kv.value, kv.at FROM """ + _rows("kv", "turn", "instance", "key", "value", "at") + """
WHERE """ + _OK.format("kv") + """
ON CONFLICT (instance_id, key) DO UPDATE SET value = excluded.value, last_updated_at_ms = excluded.last_updated_at_ms""",
    # The end of an execution: is there anything to merge?
    "kv_any": """
SELECT EXISTS (SELECT FROM {s}.kv_delta d WHERE d.instance_id = ANY (p_end_instance))""",
    "kv_merge_put": """
INSERT INTO {s}.kv_store (instance_id, key, value, execution_id, last_updated_at_ms)
SELECT d.instance_id, d.key, d.value, "end".execution, d.last_updated_at_ms
FROM unnest(p_end_turn, p_end_instance, p_end_execution) AS "end"(turn, instance, execution)
JOIN {s}.kv_delta d ON d.instance_id = "end".instance WHERE d.value IS NOT NULL AND """ + _OK.format('"end"') + """
ON CONFLICT (instance_id, key) DO UPDATE SET value = excluded.value, execution_id = excluded.execution_id,
  last_updated_at_ms = excluded.last_updated_at_ms""",
    "kv_merge_drop": """
DELETE FROM {s}.kv_store k USING unnest(p_end_turn, p_end_instance) AS "end"(turn, instance), {s}.kv_delta d
WHERE d.instance_id = "end".instance AND d.value IS NULL AND k.instance_id = d.instance_id AND k.key = d.key
  AND """ + _OK.format('"end"'),
    "kv_merge_end": """
DELETE FROM {s}.kv_delta d USING unnest(p_end_turn, p_end_instance) AS "end"(turn, instance)
WHERE d.instance_id = "end".instance AND """ + _OK.format('"end"'),
    # In order: their ids are the order in which they run. Who holds them already wants to know the ids.
    "work_put": """
WITH put AS (
  INSERT INTO {s}.worker_queue (work_item, visible_at, lock_token, locked_until, created_at, attempt_count, instance_id, execution_id,
    activity_id, session_id, tag)
  SELECT "out".item, """ + _TIME.format('"out".at') + """, "out".token, "out".until, v_at, ("out".token IS NOT NULL)::integer,
    "out".instance, "out".execution, "out".activity, "out".session, "out".tag
  FROM unnest(p_out_turn, p_out_instance, p_out_execution, p_out_activity, p_out_item, p_out_token, p_out_at, p_out_until,
    p_out_session, p_out_tag) AS "out"(turn, instance, execution, activity, item, token, at, until, session, tag)
  WHERE """ + _OK.format('"out"') + """ RETURNING id, lock_token
)
SELECT array_agg(id ORDER BY id) FILTER (WHERE lock_token IS NOT NULL) FROM put""",
    "work_cancel": """
DELETE FROM {s}.worker_queue w USING """ + _rows("cancel", "turn", "instance", "execution", "activity") + """
WHERE w.instance_id = cancel.instance AND w.execution_id = cancel.execution AND w.activity_id = cancel.activity
  AND """ + _OK.format("cancel"),
    "message_put": """
INSERT INTO {s}.orchestrator_queue (instance_id, work_item, visible_at, created_at)
SELECT message.instance, message.item, """ + _TIME.format("message.at") + """, v_at
FROM """ + _rows("message", "turn", "instance", "item", "at") + """
WHERE message.turn = 0 OR """ + _OK.format("message"),
    "lease_drop": """
WITH gone AS (
  DELETE FROM {s}.instance_locks l USING """ + _rows("free", "turn", "instance") + """
  WHERE l.instance_id = free.instance AND """ + _OK.format("free") + """ RETURNING l.instance_id
)
SELECT array_agg(instance_id) FROM gone""",
    # After the end of a lease no tag on its instance means anything.
    "message_free": """
UPDATE {s}.orchestrator_queue q SET lock_token = NULL, locked_until = NULL
WHERE q.instance_id = ANY (v_instance) AND q.lock_token IS NOT NULL""",
    # What was handed out comes again, not before a time (0: at its old place); what was only routed is neither delayed nor refunded.
    "message_back": """
UPDATE {s}.orchestrator_queue q SET lock_token = NULL, locked_until = NULL,
  visible_at = CASE WHEN q.lock_token = b.token THEN GREATEST(q.visible_at, """ + _TIME.format("b.at") + """) ELSE q.visible_at END,
  attempt_count = CASE WHEN q.lock_token = b.token THEN GREATEST(q.attempt_count - b.refund::integer, 0) ELSE q.attempt_count END
FROM unnest(p_lease_instance[v_turns + 1:], p_lease_token[v_turns + 1:], p_back_at, p_back_refund)
  WITH ORDINALITY AS b(instance, token, at, refund, n)
WHERE q.instance_id = b.instance AND q.lock_token IS NOT NULL AND b.n + v_turns = ANY (v_leased)""",
    "lease_back": """
DELETE FROM {s}.instance_locks l USING unnest(p_lease_instance[v_turns + 1:]) WITH ORDINALITY AS b(instance, n)
WHERE l.instance_id = b.instance AND b.n + v_turns = ANY (v_leased)""",
    "work_result": """
INSERT INTO {s}.orchestrator_queue (instance_id, work_item, visible_at, created_at)
SELECT t.instance, t.item, """ + _TIME.format("v_now") + """, v_at
FROM unnest(p_work_turn, p_work_instance, p_work_item) WITH ORDINALITY AS t(turn, instance, item, n)
WHERE t.turn = 0 AND t.item IS NOT NULL AND (v_any OR t.n = ANY (v_worked))""",
    "work_back": """
UPDATE {s}.worker_queue w SET lock_token = NULL, locked_until = NULL, visible_at = """ + _TIME.format("t.at") + """,
  attempt_count = GREATEST(w.attempt_count - t.refund::integer, 0)
FROM unnest(p_work_turn, p_work_row, p_work_at, p_work_refund) WITH ORDINALITY AS t(turn, id, at, refund, n)
WHERE w.id = t.id AND t.turn < 0 AND (v_any OR t.n = ANY (v_worked))""",
    # Does anybody else listen, and is there anything that this exchange did not take?
    "others": "SELECT EXISTS (SELECT FROM {s}.dx_owners o WHERE o.peer <> p_peer)",
    "ready_left": """
SELECT COALESCE((SELECT q.visible_at FROM {s}.orchestrator_queue q WHERE q.lock_token IS NULL ORDER BY q.visible_at LIMIT 1) <= v_at, false)
  OR COALESCE((SELECT w.visible_at FROM {s}.worker_queue w WHERE w.lock_token IS NULL ORDER BY w.visible_at LIMIT 1) <= v_at, false)""",
}  # fmt: skip

"""The claims of an exchange in SQL: which instances and which work items may run next, and what goes with them.

Owns their statements, one a name, and the two functions on the server that run them. `{s}` is the quoted schema, `p_` and `v_` are the
functions' parameters and variables (`TYPES`). Reads no payload beyond a work item's kind.

Rows of orchestrator_queue are in one of these states:
  ready   lock_token IS NULL                  anyone may claim it once visible
  held    lock_token = T, its lease's token   handed to the holder of lease T, until the lease ends (then any tag on its instance is void)
  routed  lock_token = 'to:OWNER'             met while its instance was leased by OWNER: waits for it, nobody passes over it again
The reference takes tagged rows whose locked_until has passed and whose instance nobody leases; that is why ours carry it.
"""

from __future__ import annotations

SWEEP_LIMIT = 256
AHEAD = 16  # rows looked at beyond what is wanted: several messages may be of one instance

_STARTS = r"""'^\s*\{\s*"(StartOrchestration|ContinueAsNew)"'"""
_CONTINUES = r"""'^\s*\{\s*"ContinueAsNew"'"""
_CANCELS = r"""'^\s*\{\s*"CancelInstance"'"""
_TAKEN = (
    "UPDATE {s}.worker_queue w SET lock_token = v_prefix || (p_base + c.n), locked_until = p_now + p_lease_ms,"
    " attempt_count = w.attempt_count + 1"
)

# variable -> type, in the order of the functions' parameters
TURN_TYPES = {
    "p_slot": "integer", "p_now": "bigint", "p_owner": "text", "p_turns": "integer", "p_base": "bigint", "p_lease_ms": "bigint",
    "p_low": "bigint", "p_high": "bigint",
    "v_now": "timestamptz", "v_until": "bigint", "v_prefix": "text", "v_route": "text", "v_left": "integer", "v_window": "integer",
    "v_after": "timestamptz", "v_after_id": "bigint", "v_rows": "integer", "v_free": "text[]", "v_own": "text[]", "v_own_token": "text[]",
    "v_foreign": "text[]", "v_expired": "text[]", "v_instance": "text[]", "v_token": "text[]", "v_orphan": "text[]",
    "v_at": "timestamptz", "v_soon": "bigint", "v_swept": "boolean", "v_found": "boolean",
}  # fmt: skip
WORK_TYPES = {
    "p_slot": "integer", "p_now": "bigint", "p_owner": "text", "p_work": "integer", "p_base": "bigint", "p_lease_ms": "bigint",
    "p_mode": "text", "p_tags": "text[]", "p_session_owner": "text", "p_session_ms": "bigint", "p_room": "integer",
    "p_sessions": "text[]",
    "v_now": "timestamptz", "v_prefix": "text", "v_id": "bigint[]", "v_visible": "timestamptz[]", "v_more": "bigint[]",
    "v_more_visible": "timestamptz[]", "v_sessioned": "boolean", "v_session": "text[]", "v_at": "timestamptz", "v_soon": "bigint", "v_swept": "boolean", "v_found": "boolean",
}  # fmt: skip

TURNS = {
    # Expired leases end, the longest expired first; those that their owner is just committing under are left.
    "lease_sweep": """
WITH ended AS (
  DELETE FROM {s}.instance_locks l WHERE l.instance_id = ANY (ARRAY(
    SELECT f.instance_id FROM {s}.instance_locks f WHERE f.locked_until <= p_now{theirs}
    ORDER BY f.locked_until LIMIT 256 FOR UPDATE SKIP LOCKED)) RETURNING l.instance_id)
SELECT array_agg(instance_id) FROM ended""",
    "lease_sweep_of": """
WITH ended AS (
  DELETE FROM {s}.instance_locks l WHERE l.instance_id = ANY (ARRAY(
    SELECT f.instance_id FROM {s}.instance_locks f WHERE f.instance_id = ANY (v_expired) AND f.locked_until <= p_now{theirs}
    FOR UPDATE SKIP LOCKED)) RETURNING l.instance_id)
SELECT array_agg(instance_id) FROM ended""",
    # After a lease ended no tag on its instance means anything.
    "message_untag": """
UPDATE {s}.orchestrator_queue q SET lock_token = NULL, locked_until = NULL
WHERE q.instance_id = ANY (v_expired) AND q.lock_token IS NOT NULL""",
    # The next ready rows and what was routed to this owner, by instance: free, leased by this owner, by another, by nobody any more.
    "window": """
WITH ready AS MATERIALIZED (
  SELECT q.id, q.visible_at, q.instance_id FROM {s}.orchestrator_queue q
  WHERE q.lock_token IS NULL AND q.visible_at <= v_now AND (q.visible_at, q.id) > (v_after, v_after_id)
  ORDER BY q.visible_at, q.id LIMIT v_window
), met AS (
  SELECT instance_id, min(n) AS n FROM (
    SELECT r.instance_id, row_number() OVER () AS n FROM ready r
    UNION ALL (SELECT q.instance_id, 0 FROM {s}.orchestrator_queue q WHERE q.lock_token = v_route LIMIT v_left)
  ) AS both_kinds GROUP BY instance_id
), seen AS (
  SELECT m.instance_id, m.n, l.lock_token AS token, l.locked_until > p_now AS live,
    p_low IS NULL OR e.duroxide_version_major IS NULL OR (e.duroxide_version_major::bigint * 1000000
      + e.duroxide_version_minor * 1000 + e.duroxide_version_patch) BETWEEN p_low AND p_high AS fits,
    starts_with(l.lock_token, v_prefix) AND substr(l.lock_token, length(v_prefix) + 1) ~ '^[0-9]+$' AS own
  FROM met m LEFT JOIN {s}.instance_locks l ON l.instance_id = m.instance_id
  LEFT JOIN {s}.instances i ON i.instance_id = m.instance_id
  LEFT JOIN {s}.executions e ON e.instance_id = i.instance_id AND e.execution_id = i.current_execution_id
)
SELECT (SELECT count(*) FROM ready), (SELECT visible_at FROM ready ORDER BY visible_at DESC, id DESC LIMIT 1),
  (SELECT id FROM ready ORDER BY visible_at DESC, id DESC LIMIT 1),
  array_agg(instance_id ORDER BY n) FILTER (WHERE token IS NULL AND fits),
  array_agg(instance_id ORDER BY n) FILTER (WHERE live AND own),
  array_agg(token ORDER BY n) FILTER (WHERE live AND own),
  array_agg(instance_id) FILTER (WHERE live AND NOT own AND n > 0 AND token ~ '^lock_.*:[0-9]+$'),
  array_agg(instance_id) FILTER (WHERE NOT live AND fits)
FROM seen""",
    # Left to the holder of the lease. The share lock keeps the lease from ending meanwhile: its end frees what was routed.
    "message_route": """
WITH held AS (
  SELECT l.instance_id, l.lock_token, l.locked_until FROM {s}.instance_locks l
  WHERE l.instance_id = ANY (v_foreign) AND l.locked_until > p_now ORDER BY l.instance_id FOR KEY SHARE SKIP LOCKED
), met AS (
  SELECT q.id, h.lock_token, h.locked_until FROM held h JOIN {s}.orchestrator_queue q ON q.instance_id = h.instance_id
  WHERE q.lock_token IS NULL AND q.visible_at <= v_now FOR UPDATE OF q SKIP LOCKED
)
UPDATE {s}.orchestrator_queue q
SET lock_token = regexp_replace(m.lock_token, '^lock_(.*):[0-9]+$', 'to:\\1'), locked_until = m.locked_until
FROM met m WHERE q.id = m.id""",
    # The try keeps others of ours from waiting for this insert, and so from deadlocks. In a schema of the reference its own lock is
    # tried too ({theirs}): it takes that one first of all when it fetches, and locks the rows in another order than we do.
    "lease_put": """
WITH mine AS (
  SELECT u.instance_id, row_number() OVER () AS n FROM (
    SELECT f.instance_id FROM unnest(v_free) AS f(instance_id)
    WHERE pg_try_advisory_xact_lock(hashtextextended(f.instance_id, {seed})){theirs} LIMIT v_left) AS u
), put AS (
  INSERT INTO {s}.instance_locks (instance_id, lock_token, locked_until, locked_at)
  SELECT m.instance_id, v_prefix || (p_base + m.n), v_until, p_now FROM mine m
  ON CONFLICT (instance_id) DO NOTHING RETURNING instance_id, lock_token
)
SELECT array_agg(instance_id), array_agg(lock_token) FROM put""",
    # Newly leased, and yet nothing to run: somebody else was faster, there is no such instance and no start among the messages, or
    # it is between two executions and the start of the next one is not visible yet.
    "turn_orphans": """
SELECT array_agg(c.instance_id) FROM unnest(v_instance) AS c(instance_id)
LEFT JOIN {s}.instances i ON i.instance_id = c.instance_id
LEFT JOIN {s}.executions e ON e.instance_id = i.instance_id AND e.execution_id = i.current_execution_id
WHERE NOT EXISTS (SELECT FROM {s}.orchestrator_queue q WHERE q.instance_id = c.instance_id AND q.visible_at <= v_now
    AND (i.instance_id IS NOT NULL OR q.work_item ~ """ + _STARTS + """))
  OR (e.status = 'ContinuedAsNew' AND EXISTS (SELECT FROM {s}.orchestrator_queue q WHERE q.instance_id = c.instance_id
    AND q.visible_at < 'infinity' AND q.work_item ~ """ + _CONTINUES + """
    HAVING min(q.visible_at) > v_now))""",
    # Messages of an instance that is not, or that is between two executions: they wait for a start that comes later; without one a
    # cancellation waits for the birth, others are dropped.
    "orphan_settle": """
WITH due AS (
  SELECT o.instance_id, i.instance_id IS NOT NULL AS born, (SELECT min(q.visible_at) FROM {s}.orchestrator_queue q
    WHERE q.instance_id = o.instance_id AND q.visible_at > v_now AND q.visible_at < 'infinity'
    AND q.work_item ~ CASE WHEN i.instance_id IS NULL THEN """ + _STARTS + """ ELSE """ + _CONTINUES + """ END) AS at
  FROM unnest(v_orphan) AS o(instance_id) LEFT JOIN {s}.instances i ON i.instance_id = o.instance_id
), dropped AS (
  DELETE FROM {s}.orchestrator_queue q USING due d WHERE q.instance_id = d.instance_id AND q.visible_at <= v_now
  AND NOT d.born AND d.at IS NULL AND q.work_item !~ """ + _CANCELS + """
)
UPDATE {s}.orchestrator_queue q SET visible_at = COALESCE(d.at, 'infinity'), lock_token = NULL, locked_until = NULL
FROM due d WHERE q.instance_id = d.instance_id AND q.visible_at <= v_now
  AND (d.at IS NOT NULL OR (NOT d.born AND q.work_item ~ """ + _CANCELS + "))",
    "orphan_end": "DELETE FROM {s}.instance_locks WHERE instance_id = ANY (v_orphan)",
    # Whatever this lease was not handed yet; a parked cancellation comes along with the start that it waited for.
    "message_tag": """
WITH tagged AS (
  UPDATE {s}.orchestrator_queue q SET lock_token = c.token, locked_until = v_until, attempt_count = q.attempt_count + 1
  FROM unnest(v_instance, v_token) AS c(instance_id, token)
  WHERE q.instance_id = c.instance_id AND (q.visible_at <= v_now OR q.visible_at = 'infinity') AND q.lock_token IS DISTINCT FROM c.token
  RETURNING q.id, q.attempt_count, q.instance_id, q.work_item
)
SELECT 2, p_slot, id, attempt_count::bigint, instance_id, work_item, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text
FROM tagged ORDER BY id""",
    "turn_get": """
SELECT 1, p_slot, i.current_execution_id, (SELECT h.event_id FROM {s}.history h WHERE h.instance_id = i.instance_id
    AND h.execution_id = i.current_execution_id ORDER BY h.event_id DESC LIMIT 1),
  c.instance_id, c.token, i.orchestration_name, i.orchestration_version, e.status, NULL::text, NULL::text
FROM unnest(v_instance, v_token) WITH ORDINALITY AS c(instance_id, token, n)
LEFT JOIN {s}.instances i ON i.instance_id = c.instance_id
LEFT JOIN {s}.executions e ON e.instance_id = i.instance_id AND e.execution_id = i.current_execution_id
ORDER BY c.n""",
    "message_next": """
SELECT q.visible_at FROM {s}.orchestrator_queue q WHERE q.lock_token IS NULL AND q.visible_at > v_now AND q.visible_at < 'infinity'
ORDER BY q.visible_at LIMIT 1""",
    # Mostly there is nothing of a kind, and one look at the first row of an index says so.
    "message_first": """
SELECT q.visible_at FROM {s}.orchestrator_queue q WHERE q.lock_token IS NULL AND q.visible_at < 'infinity'
ORDER BY q.visible_at LIMIT 1""",
    "message_routed": "SELECT EXISTS (SELECT FROM {s}.orchestrator_queue q WHERE q.lock_token = v_route)",
    "lease_first": "SELECT l.locked_until FROM {s}.instance_locks l ORDER BY l.locked_until LIMIT 1",
    "lease_next": "SELECT l.locked_until FROM {s}.instance_locks l WHERE l.locked_until > p_now ORDER BY l.locked_until LIMIT 1",
}  # fmt: skip

WORK = {
    # Expired leases become ready rows again, at their old place in the order.
    "work_expire": """
UPDATE {s}.worker_queue w SET lock_token = NULL, locked_until = NULL WHERE w.id = ANY (ARRAY(
  SELECT x.id FROM {s}.worker_queue x WHERE x.lock_token IS NOT NULL AND x.locked_until <= p_now
  ORDER BY x.locked_until LIMIT 256 FOR UPDATE SKIP LOCKED))""",
    "work_ready": """
SELECT array_agg(r.id), array_agg(r.visible_at) FROM (
  SELECT w.id, w.visible_at FROM {s}.worker_queue w
  WHERE w.lock_token IS NULL AND w.session_id IS NULL AND w.tag IS NULL AND w.visible_at <= v_now
  ORDER BY w.visible_at, w.id LIMIT p_work FOR UPDATE SKIP LOCKED) AS r""",
    "work_ready_tagged": """
SELECT array_agg(r.id), array_agg(r.visible_at) FROM unnest(p_tags) AS t(tag) CROSS JOIN LATERAL (
  SELECT w.id, w.visible_at FROM {s}.worker_queue w
  WHERE w.lock_token IS NULL AND w.session_id IS NULL AND w.tag = t.tag AND w.visible_at <= v_now
  ORDER BY w.visible_at, w.id LIMIT p_work FOR UPDATE SKIP LOCKED) AS r""",
    "work_ready_any": """
SELECT array_agg(r.id), array_agg(r.visible_at) FROM (
  SELECT w.id, w.visible_at FROM {s}.worker_queue w
  WHERE w.lock_token IS NULL AND w.session_id IS NULL AND w.visible_at <= v_now
  ORDER BY w.visible_at, w.id LIMIT p_work FOR UPDATE SKIP LOCKED) AS r""",
    "session_any": """
SELECT (SELECT w.session_id FROM {s}.worker_queue w WHERE w.lock_token IS NULL AND w.session_id IS NOT NULL
  ORDER BY w.session_id LIMIT 1) IS NOT NULL""",
    # Every session that has ready rows, by leaps through the index; of those that may come here the first rows in order.
    "session_ready": """
WITH RECURSIVE leap AS (
  (SELECT w.session_id FROM {s}.worker_queue w WHERE w.lock_token IS NULL AND w.session_id IS NOT NULL
   ORDER BY w.session_id LIMIT 1)
  UNION ALL
  SELECT (SELECT w.session_id FROM {s}.worker_queue w WHERE w.lock_token IS NULL AND w.session_id > l.session_id
    ORDER BY w.session_id LIMIT 1) FROM leap l WHERE l.session_id IS NOT NULL
), open AS (
  SELECT l.session_id, l.session_id = ANY (p_sessions) AS here FROM leap l LEFT JOIN {s}.sessions s ON s.session_id = l.session_id
  WHERE l.session_id IS NOT NULL AND (s.session_id IS NULL OR s.locked_until <= p_now OR s.worker_id = p_session_owner)
), found AS (
  SELECT o.session_id, o.here, r.id, r.visible_at, row_number() OVER (PARTITION BY o.session_id ORDER BY r.visible_at, r.id) AS nth
  FROM open o CROSS JOIN LATERAL (
    SELECT w.id, w.visible_at FROM {s}.worker_queue w WHERE w.lock_token IS NULL AND w.session_id = o.session_id
      AND w.visible_at <= v_now AND CASE p_mode WHEN 'any' THEN true WHEN 'default_only' THEN w.tag IS NULL
        WHEN 'tags' THEN w.tag = ANY (p_tags) ELSE w.tag IS NULL OR w.tag = ANY (p_tags) END
    ORDER BY w.visible_at, w.id LIMIT p_work FOR UPDATE SKIP LOCKED) AS r
), roomy AS (
  SELECT f.session_id FROM found f WHERE f.nth = 1 AND f.here
  UNION ALL (SELECT f.session_id FROM found f WHERE f.nth = 1 AND NOT f.here ORDER BY f.visible_at, f.id LIMIT p_room)
)
SELECT array_agg(f.id), array_agg(f.visible_at) FROM found f JOIN roomy r ON r.session_id = f.session_id""",
    # The sessions of what is about to be taken, as far as another owner does not take them at this moment.
    "session_put": """
WITH wanted AS (
  SELECT DISTINCT w.session_id FROM (
    SELECT c.id FROM unnest(v_id, v_visible) AS c(id, visible_at) ORDER BY c.visible_at, c.id LIMIT p_work) AS t
  JOIN {s}.worker_queue w ON w.id = t.id WHERE w.session_id IS NOT NULL
), put AS (
  INSERT INTO {s}.sessions (session_id, worker_id, locked_until, last_activity_at)
  SELECT d.session_id, p_session_owner, p_now + p_session_ms, p_now FROM wanted d
  WHERE pg_try_advisory_xact_lock(hashtextextended(d.session_id, {seed} + 1)) ORDER BY d.session_id
  ON CONFLICT (session_id) DO UPDATE SET worker_id = excluded.worker_id, locked_until = excluded.locked_until,
    last_activity_at = excluded.last_activity_at
  WHERE sessions.worker_id = excluded.worker_id OR sessions.locked_until <= p_now RETURNING session_id
)
SELECT array_agg(session_id) FROM put""",
    "work_take": """
WITH taken AS (
""" + _TAKEN + """
  FROM (SELECT t.id, row_number() OVER (ORDER BY t.visible_at, t.id) AS n FROM unnest(v_id, v_visible) AS t(id, visible_at)
    ORDER BY t.visible_at, t.id LIMIT p_work) AS c
  WHERE w.id = c.id RETURNING w.id, w.attempt_count, w.lock_token, w.work_item, w.instance_id, w.session_id, w.tag, c.n
)
SELECT 3, p_slot, t.id, t.attempt_count::bigint, t.lock_token, t.work_item, t.instance_id, t.session_id, t.tag,
  i.orchestration_name, i.orchestration_version
FROM taken t LEFT JOIN {s}.instances i ON i.instance_id = t.instance_id ORDER BY t.n""",
    # The same where sessions are among it: only those that are ours now.
    "work_take_sessions": """
WITH taken AS (
""" + _TAKEN + """
  FROM (SELECT t.id, row_number() OVER (ORDER BY t.visible_at, t.id) AS n FROM unnest(v_id, v_visible) AS t(id, visible_at)
    ORDER BY t.visible_at, t.id LIMIT p_work) AS c
  WHERE w.id = c.id AND (w.session_id IS NULL OR w.session_id = ANY (v_session))
  RETURNING w.id, w.attempt_count, w.lock_token, w.work_item, w.instance_id, w.session_id, w.tag, c.n
)
SELECT 3, p_slot, t.id, t.attempt_count::bigint, t.lock_token, t.work_item, t.instance_id, t.session_id, t.tag,
  i.orchestration_name, i.orchestration_version
FROM taken t LEFT JOIN {s}.instances i ON i.instance_id = t.instance_id ORDER BY t.n""",
    # Whoever could take it: too early does no harm.
    "work_next": """
SELECT w.visible_at FROM {s}.worker_queue w WHERE w.lock_token IS NULL AND w.visible_at > v_now ORDER BY w.visible_at LIMIT 1""",
    "work_first": """
SELECT w.visible_at FROM {s}.worker_queue w WHERE w.lock_token IS NULL ORDER BY w.visible_at LIMIT 1""",
    "work_lease_first": """
SELECT w.locked_until FROM {s}.worker_queue w WHERE w.lock_token IS NOT NULL ORDER BY w.locked_until LIMIT 1""",
    "work_lease_next": """
SELECT w.locked_until FROM {s}.worker_queue w WHERE w.lock_token IS NOT NULL AND w.locked_until > p_now
ORDER BY w.locked_until LIMIT 1""",
}  # fmt: skip

_NEXT = """
  v_soon := LEAST(v_soon, (extract(epoch FROM v_at) * 1000)::bigint);
  IF v_soon IS NOT NULL THEN
    RETURN QUERY SELECT 4, p_slot, v_soon, NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text;
  END IF;"""

# After the statements are put in (`<name>`).
CLAIM_TURNS = """
BEGIN
  v_now := to_timestamp(p_now::float8 / 1000);
  v_until := p_now + p_lease_ms;
  v_prefix := 'lock_' || p_owner || ':';
  v_route := 'to:' || p_owner;
  v_left := p_turns;
  v_after := '-infinity';
  v_after_id := 0;
  <lease_first> INTO v_soon;
  v_swept := v_soon <= p_now;
  IF v_swept THEN
    <lease_sweep> INTO v_expired;
    IF v_expired IS NOT NULL THEN
      <message_untag>;
    END IF;
  END IF;
  <message_first> INTO v_at;
  IF COALESCE(v_at > v_now, true) AND NOT (<message_routed>) THEN
    v_left := 0;
  END IF;
  v_found := v_left > 0;
  WHILE v_left > 0 LOOP
    v_window := v_left + """ + str(AHEAD) + """;
    <window> INTO v_rows, v_after, v_after_id, v_free, v_own, v_own_token, v_foreign, v_expired;
    IF v_foreign IS NOT NULL THEN
      <message_route>;
    END IF;
    IF v_expired IS NOT NULL THEN
      <lease_sweep_of> INTO v_expired;
      IF v_expired IS NOT NULL THEN
        <message_untag>;
        v_free := v_free || v_expired;
      END IF;
    END IF;
    v_instance := NULL;
    v_token := NULL;
    v_own := v_own[1:v_left];
    v_own_token := v_own_token[1:v_left];
    IF v_own IS NOT NULL THEN
      v_left := v_left - cardinality(v_own);
    END IF;
    IF v_free IS NOT NULL AND v_left > 0 THEN
      <lease_put> INTO v_instance, v_token;
      IF v_instance IS NOT NULL THEN
        <turn_orphans> INTO v_orphan;
        IF v_orphan IS NOT NULL THEN
          <orphan_settle>;
          <orphan_end>;
          SELECT array_agg(c.instance_id), array_agg(c.token) INTO v_instance, v_token
          FROM unnest(v_instance, v_token) AS c(instance_id, token) WHERE c.instance_id <> ALL (v_orphan);
        END IF;
        v_left := v_left - COALESCE(cardinality(v_instance), 0);
        p_base := p_base + p_turns;
      END IF;
    END IF;
    IF v_own IS NOT NULL THEN
      v_instance := v_own || v_instance;
      v_token := v_own_token || v_token;
    END IF;
    IF v_instance IS NOT NULL THEN
      RETURN QUERY <message_tag>;
      RETURN QUERY <turn_get>;
    END IF;
    EXIT WHEN v_rows < v_window;
  END LOOP;
  IF v_found THEN
    <message_next> INTO v_at;
  END IF;
  IF v_found OR v_swept THEN
    <lease_next> INTO v_soon;
  END IF;""" + _NEXT + """
END"""

CLAIM_WORK = """
BEGIN
  v_now := to_timestamp(p_now::float8 / 1000);
  v_prefix := 'lock_' || p_owner || ':';
  v_sessioned := false;
  <work_lease_first> INTO v_soon;
  v_swept := v_soon <= p_now;
  IF v_swept THEN
    <work_expire>;
  END IF;
  <work_first> INTO v_at;
  v_found := COALESCE(v_at <= v_now, false);
  IF NOT v_found THEN
    p_session_owner := NULL;
  ELSIF p_mode = 'any' THEN
    <work_ready_any> INTO v_id, v_visible;
  ELSIF p_mode <> 'tags' THEN
    <work_ready> INTO v_id, v_visible;
  END IF;
  IF v_found AND p_mode IN ('tags', 'default_and') THEN
    <work_ready_tagged> INTO v_more, v_more_visible;
    v_id := v_id || v_more;
    v_visible := v_visible || v_more_visible;
  END IF;
  IF p_session_owner IS NOT NULL THEN
    <session_any> INTO v_sessioned;
    IF v_sessioned THEN
      <session_ready> INTO v_more, v_more_visible;
      v_id := v_id || v_more;
      v_visible := v_visible || v_more_visible;
      IF v_more IS NULL THEN
        v_sessioned := false;
      ELSE
        <session_put> INTO v_session;
      END IF;
    END IF;
  END IF;
  IF v_sessioned THEN
    RETURN QUERY <work_take_sessions>;
  ELSIF v_id IS NOT NULL THEN
    RETURN QUERY <work_take>;
  END IF;
  IF v_found THEN
    <work_next> INTO v_at;
  END IF;
  IF v_found OR v_swept THEN
    <work_lease_next> INTO v_soon;
  END IF;""" + _NEXT + """
END"""

# The changes of the current execution beside the values as they were at the end of the previous one.
LOAD = """
SELECT COALESCE(NULLIF(p_execution, 0), i.current_execution_id), i.orchestration_name, i.orchestration_version, e.status, e.output,
  i.parent_instance_id, i.custom_status, i.custom_status_version, h.ids, h.texts, k.keys, k.texts, k.times, d.keys, d.texts, d.times
FROM {s}.instances i
LEFT JOIN {s}.executions e ON e.instance_id = i.instance_id
  AND e.execution_id = COALESCE(NULLIF(p_execution, 0), i.current_execution_id)
CROSS JOIN LATERAL (SELECT array_agg(x.event_id) AS ids, array_agg(x.event_data) AS texts FROM (
  SELECT y.event_id, y.event_data FROM {s}.history y WHERE y.instance_id = i.instance_id
    AND y.execution_id = COALESCE(NULLIF(p_execution, 0), i.current_execution_id) AND y.event_id > p_after ORDER BY y.event_id) AS x) AS h
CROSS JOIN LATERAL (SELECT array_agg(v.key) AS keys, array_agg(v.value) AS texts, array_agg(v.last_updated_at_ms) AS times
  FROM {s}.kv_store v WHERE v.instance_id = i.instance_id) AS k
CROSS JOIN LATERAL (SELECT array_agg(v.key) AS keys, array_agg(v.value) AS texts, array_agg(v.last_updated_at_ms) AS times
  FROM {s}.kv_delta v WHERE v.instance_id = i.instance_id) AS d
WHERE i.instance_id = p_instance"""

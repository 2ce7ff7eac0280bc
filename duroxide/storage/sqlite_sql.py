"""Every hot SQLite statement once, by name; the C store and the Python store prepare the same texts.

Owns `HOT` (statements of exchange, load and renew) and `INDEXES` (what their plans stand on; made when a file is opened).
Knows only tables: no connections, no cold calls, no rules about when a statement runs. `?n` stand for the parameters in order.
"""

# Our own indexes beside the reference's. Rows of orchestrator_queue are in one of these states:
#   ready     lock_token IS NULL                        anyone may claim it once visible (dx_orch_ready)
#   held      lock_token = T, locked_until IS NULL      handed to the holder of lease T
#   routed    lock_token = T, locked_until IS NOT NULL  met while its instance was leased by T: waits for T's owner
#             (dx_orch_routed), so that nobody else passes over it again. The reference never sets or reads that locked_until.
# idx_orch_lock has the reference's name: in a file of the reference it is there already, over all rows.
INDEXES: tuple[str, ...] = (
    "CREATE INDEX IF NOT EXISTS idx_orch_lock ON orchestrator_queue(lock_token) WHERE lock_token IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS dx_orch_ready ON orchestrator_queue(visible_at) WHERE lock_token IS NULL",
    "CREATE INDEX IF NOT EXISTS dx_orch_batch ON orchestrator_queue(instance_id, visible_at)",
    "CREATE INDEX IF NOT EXISTS dx_orch_routed ON orchestrator_queue(lock_token) WHERE locked_until IS NOT NULL",
    # The reference's tokens have no colon. It abandons a batch by dropping the lock row and leaving the tags: found here.
    "CREATE INDEX IF NOT EXISTS dx_orch_foreign ON orchestrator_queue(instance_id)"
    " WHERE lock_token IS NOT NULL AND instr(lock_token, ':') = 0",
    "CREATE INDEX IF NOT EXISTS dx_lock_expiry ON instance_locks(locked_until)",
    "CREATE INDEX IF NOT EXISTS dx_work_ready ON worker_queue(tag, visible_at) WHERE lock_token IS NULL AND session_id IS NULL",
    "CREATE INDEX IF NOT EXISTS dx_work_session ON worker_queue(session_id, visible_at)"
    " WHERE lock_token IS NULL AND session_id IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS dx_work_expiry ON worker_queue(locked_until) WHERE lock_token IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS dx_session_owner ON sessions(worker_id)",
)

HOT: dict[str, str] = {
    # Rows are stamped by what `stamp` says once a transaction: as a default the clock is read and written out for each row.
    # ── transactions ──
    "begin": "BEGIN IMMEDIATE",
    "begin_read": "BEGIN",
    "commit": "COMMIT",
    "rollback": "ROLLBACK",
    "stamp": "SELECT CURRENT_TIMESTAMP",
    # ── instance leases ──
    "lease_get": "SELECT lock_token, locked_until FROM instance_locks WHERE instance_id = ?1",
    # instance, token, until, now
    "lease_put": "INSERT INTO instance_locks (instance_id, lock_token, locked_until, locked_at) VALUES (?1, ?2, ?3, ?4)"
    " ON CONFLICT (instance_id) DO UPDATE SET lock_token = excluded.lock_token, locked_until = excluded.locked_until,"
    " locked_at = excluded.locked_at",
    "lease_drop": "DELETE FROM instance_locks WHERE instance_id = ?1",
    # instance, token, now: check and deletion in one
    "lease_end": "DELETE FROM instance_locks WHERE instance_id = ?1 AND lock_token = ?2 AND locked_until > ?3",
    # until, instance, token, now
    "lease_renew": "UPDATE instance_locks SET locked_until = ?1 WHERE instance_id = ?2 AND lock_token = ?3 AND locked_until > ?4",
    # now -> the longest expired lease
    "lease_expired": "SELECT instance_id FROM instance_locks INDEXED BY dx_lock_expiry WHERE locked_until <= ?1"
    " ORDER BY locked_until LIMIT 1",
    "lease_next": "SELECT locked_until FROM instance_locks INDEXED BY dx_lock_expiry WHERE locked_until > ?1"
    " ORDER BY locked_until LIMIT 1",
    # ── orchestrator queue: what is handed in ──
    # instance, item, visible_at, stamp
    "message_put": "INSERT INTO orchestrator_queue (instance_id, work_item, visible_at, created_at) VALUES (?1, ?2, ?3, ?4)",
    # row id, token: a consumed message
    "message_drop": "DELETE FROM orchestrator_queue WHERE id = ?1 AND lock_token = ?2",
    # token: does anything still carry it? Nearly never, and asking costs a fifth of an update that finds nothing
    "message_carries": "SELECT 1 FROM orchestrator_queue INDEXED BY idx_orch_lock WHERE lock_token = ?1 LIMIT 1",
    # token: everything that still carries an ended lease becomes ready
    "message_free": "UPDATE orchestrator_queue SET lock_token = NULL, locked_until = NULL WHERE lock_token = ?1",
    # token: only what was routed to the lease, never handed out
    "message_unroute": "UPDATE orchestrator_queue INDEXED BY dx_orch_routed SET lock_token = NULL, locked_until = NULL"
    " WHERE lock_token = ?1 AND locked_until IS NOT NULL",
    # token, not before (0: at its old place), refund (0 or 1)
    "message_back": "UPDATE orchestrator_queue SET lock_token = NULL, visible_at = MAX(visible_at, ?2),"
    " attempt_count = MAX(attempt_count - ?3, 0)"
    " WHERE lock_token = ?1",
    # ── orchestrator queue: claims ──
    # from visible_at, now, after id (within that ms) -> ready rows in order, with the lease on their instance, its version pin and its
    # current execution (NULL: it is not born)
    "message_ready": "SELECT q.id, q.visible_at, q.instance_id, l.lock_token, l.locked_until,"
    " e.duroxide_version_major * 1000000 + e.duroxide_version_minor * 1000 + e.duroxide_version_patch,"
    " i.current_execution_id"
    " FROM orchestrator_queue q INDEXED BY dx_orch_ready"
    " LEFT JOIN instance_locks l ON l.instance_id = q.instance_id"
    " LEFT JOIN instances i ON i.instance_id = q.instance_id"
    " LEFT JOIN executions e ON e.instance_id = i.instance_id AND e.execution_id = i.current_execution_id"
    " WHERE q.lock_token IS NULL AND (q.visible_at, q.id) > (?1, ?3) AND q.visible_at <= ?2"
    " ORDER BY q.visible_at, q.id",
    # now -> the next ready row that is not yet visible
    "message_next": "SELECT visible_at FROM orchestrator_queue INDEXED BY dx_orch_ready"
    " WHERE lock_token IS NULL AND visible_at > ?1 ORDER BY visible_at LIMIT 1",
    # token from, token below -> rows routed to one owner
    "message_routed": "SELECT instance_id, lock_token FROM orchestrator_queue INDEXED BY dx_orch_routed"
    " WHERE lock_token >= ?1 AND lock_token < ?2 AND locked_until IS NOT NULL ORDER BY lock_token LIMIT 1",
    # token, until, row id: leave it to the holder of that lease
    "message_route": "UPDATE orchestrator_queue SET lock_token = ?1, locked_until = ?2 WHERE id = ?3",
    # instance, now, token -> what that lease has not been handed yet (sort by id yourself)
    "message_batch": "SELECT id, work_item, attempt_count FROM orchestrator_queue INDEXED BY dx_orch_batch"
    " WHERE instance_id = ?1 AND visible_at <= ?2 AND (lock_token IS NULL OR lock_token <> ?3 OR locked_until IS NOT NULL)",
    # token, row id
    "message_tag": "UPDATE orchestrator_queue SET lock_token = ?1, locked_until = NULL, attempt_count = attempt_count + 1"
    " WHERE id = ?2",
    # instance: every tag on it, after its lease ended
    "message_untag": "UPDATE orchestrator_queue INDEXED BY dx_orch_batch SET lock_token = NULL, locked_until = NULL"
    " WHERE instance_id = ?1 AND lock_token IS NOT NULL",
    # limit: rows that the reference abandoned
    "message_adopt": "UPDATE orchestrator_queue SET lock_token = NULL, locked_until = NULL WHERE id IN ("
    "SELECT q.id FROM orchestrator_queue q INDEXED BY dx_orch_foreign"
    " WHERE q.instance_id >= '' AND q.lock_token IS NOT NULL AND instr(q.lock_token, ':') = 0 AND NOT EXISTS"
    " (SELECT 1 FROM instance_locks l WHERE l.instance_id = q.instance_id AND l.lock_token = q.lock_token) LIMIT ?1)",
    # ── orchestrator queue: messages of an instance that does not exist ──
    # instance, now -> its messages that are not yet visible (parked ones included)
    "message_later": "SELECT visible_at, work_item FROM orchestrator_queue INDEXED BY dx_orch_batch"
    " WHERE instance_id = ?1 AND visible_at > ?2",
    "message_delete": "DELETE FROM orchestrator_queue WHERE id = ?1",
    # visible_at, row id
    "message_defer": "UPDATE orchestrator_queue SET visible_at = ?1, lock_token = NULL, locked_until = NULL WHERE id = ?2",
    # instance, PARKED: is there anything to unpark?
    "message_parked": "SELECT 1 FROM orchestrator_queue INDEXED BY dx_orch_batch WHERE instance_id = ?1 AND visible_at = ?2 LIMIT 1",
    # visible_at, instance, PARKED
    "message_unpark": "UPDATE orchestrator_queue INDEXED BY dx_orch_batch SET visible_at = ?1"
    " WHERE instance_id = ?2 AND visible_at = ?3",
    # ── turns ──
    # instance -> name, version, current execution, its status, its last event id (no row: no such instance)
    "turn_get": "SELECT i.orchestration_name, i.orchestration_version, i.current_execution_id, e.status,"
    " (SELECT MAX(h.event_id) FROM history h WHERE h.instance_id = i.instance_id AND h.execution_id = i.current_execution_id)"
    " FROM instances i LEFT JOIN executions e ON e.instance_id = i.instance_id AND e.execution_id = i.current_execution_id"
    " WHERE i.instance_id = ?1",
    # instance, name, version, execution, parent (NULL if that row is missing: the column is a foreign key), stamp
    "instance_put": "INSERT INTO instances"
    " (instance_id, orchestration_name, orchestration_version, current_execution_id, parent_instance_id, created_at, updated_at)"
    " VALUES (?1, ?2, ?3, ?4, (SELECT p.instance_id FROM instances p WHERE p.instance_id = ?5), ?6, ?6)"
    " ON CONFLICT (instance_id) DO UPDATE SET orchestration_name = excluded.orchestration_name,"
    " orchestration_version = excluded.orchestration_version,"
    " current_execution_id = MAX(current_execution_id, excluded.current_execution_id)",
    # instance, execution, major, minor, patch, stamp
    "execution_put": "INSERT INTO executions"
    " (instance_id, execution_id, duroxide_version_major, duroxide_version_minor, duroxide_version_patch, started_at)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (instance_id, execution_id) DO UPDATE SET"
    " duroxide_version_major = COALESCE(excluded.duroxide_version_major, duroxide_version_major),"
    " duroxide_version_minor = COALESCE(excluded.duroxide_version_minor, duroxide_version_minor),"
    " duroxide_version_patch = COALESCE(excluded.duroxide_version_patch, duroxide_version_patch)",
    # instance, execution, status, output, completed_at
    "execution_end": "UPDATE executions SET status = ?3, output = ?4, completed_at = ?5"
    " WHERE instance_id = ?1 AND execution_id = ?2",
    # instance, execution, event id, type, JSON text, stamp
    "event_put": "INSERT INTO history (instance_id, execution_id, event_id, event_type, event_data, created_at)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    # instance, text
    "custom_status_put": "UPDATE instances SET custom_status = ?2, custom_status_version = custom_status_version + 1"
    " WHERE instance_id = ?1",
    # instance, key, value (NULL: a tombstone), at ms
    "kv_put": "INSERT INTO kv_delta (instance_id, key, value, last_updated_at_ms) VALUES (?1, ?2, ?3, ?4)"
    " ON CONFLICT (instance_id, key) DO UPDATE SET value = excluded.value, last_updated_at_ms = excluded.last_updated_at_ms",
    # instance, at ms: clear all, first what this execution set ...
    "kv_clear_delta": "UPDATE kv_delta SET value = NULL, last_updated_at_ms = ?2 WHERE instance_id = ?1",
    # ... then a tombstone for every older key
    "kv_clear_store": "INSERT INTO kv_delta (instance_id, key, value, last_updated_at_ms)"
    " SELECT instance_id, key, NULL, ?2 FROM kv_store WHERE instance_id = ?1"
    " ON CONFLICT (instance_id, key) DO UPDATE SET value = NULL, last_updated_at_ms = excluded.last_updated_at_ms",
    # instance: is there anything to merge at the end of an execution?
    "kv_any": "SELECT 1 FROM kv_delta WHERE instance_id = ?1 LIMIT 1",
    "kv_merge_put": "INSERT INTO kv_store (instance_id, key, value, last_updated_at_ms)"
    " SELECT instance_id, key, value, last_updated_at_ms FROM kv_delta WHERE instance_id = ?1 AND value IS NOT NULL"
    " ON CONFLICT (instance_id, key) DO UPDATE SET value = excluded.value, last_updated_at_ms = excluded.last_updated_at_ms",
    "kv_merge_drop": "DELETE FROM kv_store WHERE instance_id = ?1"
    " AND key IN (SELECT d.key FROM kv_delta d WHERE d.instance_id = ?1 AND d.value IS NULL)",
    "kv_merge_end": "DELETE FROM kv_delta WHERE instance_id = ?1",
    # ── worker queue ──
    # item, token, until, attempts, visible_at, instance, execution, activity, session, tag, stamp
    "work_put": "INSERT INTO worker_queue (work_item, lock_token, locked_until, attempt_count, visible_at,"
    " instance_id, execution_id, activity_id, session_id, tag, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    # row id -> the lease on it
    "work_get": "SELECT lock_token, locked_until, session_id FROM worker_queue WHERE id = ?1",
    "work_drop": "DELETE FROM worker_queue WHERE id = ?1",
    # row id, token, now: check and deletion in one, where no session is to be touched
    "work_end": "DELETE FROM worker_queue WHERE id = ?1 AND lock_token = ?2 AND locked_until > ?3 AND session_id IS NULL",
    # instance, execution, activity
    "work_cancel": "DELETE FROM worker_queue WHERE instance_id = ?1 AND execution_id = ?2 AND activity_id = ?3",
    # visible_at, refund, row id, token
    "work_back": "UPDATE worker_queue SET lock_token = NULL, locked_until = NULL, visible_at = ?1,"
    " attempt_count = MAX(attempt_count - ?2, 0) WHERE id = ?3 AND lock_token = ?4",
    # until, row id, token, now
    "work_renew": "UPDATE worker_queue SET locked_until = ?1 WHERE id = ?2 AND lock_token = ?3 AND locked_until > ?4",
    # now, limit: expired leases become ready rows again, at their old place in the order
    "work_expire": "UPDATE worker_queue SET lock_token = NULL, locked_until = NULL WHERE id IN ("
    "SELECT w.id FROM worker_queue w INDEXED BY dx_work_expiry WHERE w.lock_token IS NOT NULL AND w.locked_until <= ?1 LIMIT ?2)",
    # tag (NULL: untagged), now, limit -> ready rows without a session
    "work_ready": "SELECT id, visible_at FROM worker_queue INDEXED BY dx_work_ready"
    " WHERE lock_token IS NULL AND session_id IS NULL AND tag IS ?1 AND visible_at <= ?2 ORDER BY visible_at, id LIMIT ?3",
    # tag, now -> when the next one comes due
    "work_next": "SELECT visible_at FROM worker_queue INDEXED BY dx_work_ready"
    " WHERE lock_token IS NULL AND session_id IS NULL AND tag IS ?1 AND visible_at > ?2 ORDER BY visible_at LIMIT 1",
    # from -> the next tag that has ready rows (go on with it + NUL)
    "work_tag": "SELECT tag FROM worker_queue INDEXED BY dx_work_ready"
    " WHERE lock_token IS NULL AND session_id IS NULL AND tag >= ?1 AND tag < x'' ORDER BY tag LIMIT 1",
    # from -> the next session that has ready rows (go on with it + NUL). Below x'': a BLOB, which can only be damage, is after
    # every text, and would be the next for ever.
    "work_session": "SELECT session_id FROM worker_queue INDEXED BY dx_work_session"
    " WHERE lock_token IS NULL AND session_id >= ?1 AND session_id < x'' ORDER BY session_id LIMIT 1",
    # session -> its ready rows in order, the not yet visible ones last
    "work_of_session": "SELECT id, visible_at, tag FROM worker_queue INDEXED BY dx_work_session"
    " WHERE lock_token IS NULL AND session_id = ?1 ORDER BY visible_at, id",
    # row id -> what the worker needs
    "work_row": "SELECT w.work_item, w.attempt_count, w.instance_id, w.session_id, w.tag, i.orchestration_name,"
    " i.orchestration_version FROM worker_queue w LEFT JOIN instances i ON i.instance_id = w.instance_id WHERE w.id = ?1",
    # token, until, row id
    "work_lock": "UPDATE worker_queue SET lock_token = ?1, locked_until = ?2, attempt_count = attempt_count + 1 WHERE id = ?3",
    # now -> the soonest end of a work lease
    "work_lease_next": "SELECT locked_until FROM worker_queue INDEXED BY dx_work_expiry"
    " WHERE lock_token IS NOT NULL AND locked_until > ?1 ORDER BY locked_until LIMIT 1",
    # ── sessions ──
    "session_get": "SELECT worker_id, locked_until FROM sessions WHERE session_id = ?1",
    # session, owner, until, now
    "session_put": "INSERT INTO sessions (session_id, worker_id, locked_until, last_activity_at) VALUES (?1, ?2, ?3, ?4)"
    " ON CONFLICT (session_id) DO UPDATE SET worker_id = excluded.worker_id, locked_until = excluded.locked_until,"
    " last_activity_at = excluded.last_activity_at",
    # now, session
    "session_touch": "UPDATE sessions SET last_activity_at = ?1 WHERE session_id = ?2 AND locked_until > ?1",
    # until, owner, now, idle since
    "session_renew": "UPDATE sessions INDEXED BY dx_session_owner SET locked_until = ?1"
    " WHERE worker_id = ?2 AND locked_until > ?3 AND last_activity_at >= ?4",
    # ── load ──
    # instance, execution or 0: the current one
    "load_instance": "SELECT COALESCE(NULLIF(?2, 0), current_execution_id), orchestration_name, orchestration_version,"
    " parent_instance_id, custom_status, custom_status_version, COALESCE(e.status, 'Running'), e.output FROM instances i"
    " LEFT JOIN executions e ON e.instance_id = i.instance_id AND e.execution_id = COALESCE(NULLIF(?2, 0), current_execution_id)"
    " WHERE i.instance_id = ?1",
    # instance, execution, after
    "load_events": "SELECT event_id, event_data FROM history WHERE instance_id = ?1 AND execution_id = ?2 AND event_id > ?3"
    " ORDER BY event_id",
    "load_kv": "SELECT key, value, last_updated_at_ms FROM kv_store WHERE instance_id = ?1",
    "load_kv_delta": "SELECT key, value, last_updated_at_ms FROM kv_delta WHERE instance_id = ?1",
}

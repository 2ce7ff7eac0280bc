"""Every statement of the PostgreSQL store that is not part of the exchange, once, by name; `{s}` is the quoted schema.

Owns renewals, liveness, and what is asked when nobody knows how an exchange ended. Knows only tables.
"""

from __future__ import annotations

_LEASES = (
    "unnest(%(instances)s::text[], %(tokens)s::text[]) WITH ORDINALITY AS t(instance, token, n) JOIN {s}.instance_locks l"
    " ON l.instance_id = t.instance AND l.lock_token = t.token AND l.locked_until > %(now)s"
)
_WORK = (
    "unnest(%(rows)s::bigint[], %(tokens)s::text[]) WITH ORDINALITY AS t(id, token, n) JOIN {s}.worker_queue w"
    " ON w.id = t.id AND w.lock_token = t.token AND w.locked_until > %(now)s"
)
_MINE = "starts_with(lock_token, 'lock_' || o.owner || ':')"

COLD: dict[str, str] = {
    # ── renewal ──
    "lease_live": f"SELECT t.n FROM {_LEASES}",
    # Locked in the order in which everybody locks them.
    "lease_renew": f"WITH held AS (SELECT t.n, l.instance_id FROM {_LEASES} ORDER BY l.instance_id FOR NO KEY UPDATE OF l), put AS"
    " (UPDATE {s}.instance_locks l SET locked_until = %(until)s FROM held h WHERE l.instance_id = h.instance_id) SELECT n FROM held",
    "work_live": f"SELECT t.n FROM {_WORK}",
    "work_renew": f"WITH held AS (SELECT t.n, w.id, w.session_id FROM {_WORK} ORDER BY w.id FOR NO KEY UPDATE OF w), put AS"
    " (UPDATE {s}.worker_queue w SET locked_until = %(until)s FROM held h WHERE w.id = h.id), used AS"
    " (UPDATE {s}.sessions s SET last_activity_at = %(now)s WHERE s.locked_until > %(now)s"
    " AND s.session_id IN (SELECT h.session_id FROM held h)) SELECT n FROM held",
    "session_renew": "UPDATE {s}.sessions SET locked_until = %(until)s WHERE worker_id = %(owner)s AND locked_until > %(now)s"
    " AND last_activity_at >= %(since)s",
    "session_sweep": "DELETE FROM {s}.sessions s WHERE s.locked_until <= %(now)s AND NOT EXISTS"
    " (SELECT FROM {s}.worker_queue w WHERE w.session_id = s.session_id)",
    # ── peers: who hands in ──
    # A new epoch; waits until an exchange of the old one has ended, and no other one of it can begin.
    "peer_enter": "INSERT INTO {s}.dx_peers (peer, epoch, seq) VALUES (%(peer)s, 1, 0) ON CONFLICT (peer) DO UPDATE"
    " SET epoch = dx_peers.epoch + 1 RETURNING epoch, seq",
    "peer_leave": "DELETE FROM {s}.dx_peers WHERE peer = %(peer)s",
    # Those that nobody heard of for a day and that do not listen: processes that were killed.
    "peer_sweep": "DELETE FROM {s}.dx_peers p WHERE p.made_at < now() - interval '1 day' AND p.peer <> %(peer)s"
    " AND NOT EXISTS (SELECT FROM {s}.dx_owners o WHERE o.peer = p.peer)",
    # What an exchange took, of which the answer was lost, becomes free again.
    "lost_leases": "WITH gone AS (DELETE FROM {s}.instance_locks l WHERE l.lock_token ~ ANY (%(patterns)s::text[])"
    " OR EXISTS (SELECT FROM unnest(%(instances)s::text[], %(tokens)s::text[]) AS t(instance, token)"
    " WHERE t.instance = l.instance_id AND t.token = l.lock_token) RETURNING l.instance_id)"
    " UPDATE {s}.orchestrator_queue q SET lock_token = NULL, locked_until = NULL FROM gone g"
    " WHERE q.instance_id = g.instance_id AND q.lock_token IS NOT NULL",
    "lost_work": "UPDATE {s}.worker_queue w SET lock_token = NULL, locked_until = NULL, attempt_count = GREATEST(w.attempt_count - 1, 0)"
    " WHERE w.lock_token IS NOT NULL AND (w.lock_token = ANY (%(work)s::text[]) OR w.lock_token ~ ANY (%(patterns)s::text[]))",
    # ── owners: who is alive ──
    "owner_lock": "SELECT pg_try_advisory_lock(%(key)s)",
    "owner_unlock": "SELECT pg_advisory_unlock(%(key)s)",
    "owner_put": "INSERT INTO {s}.dx_owners (owner, peer, key) VALUES (%(owner)s, %(peer)s, %(key)s) ON CONFLICT DO NOTHING",
    "owner_drop": "DELETE FROM {s}.dx_owners WHERE owner = %(owner)s",
    # Owners of others whose lock nobody holds. It is ours until the end of this transaction.
    "owners_dead": "SELECT o.owner FROM {s}.dx_owners o WHERE o.peer <> %(peer)s AND pg_try_advisory_xact_lock(o.key)",
    "server_age": "SELECT extract(epoch FROM now() - pg_postmaster_start_time())::float8",
    "free_leases": f"WITH gone AS (DELETE FROM {{s}}.instance_locks l USING unnest(%(owners)s::text[]) AS o(owner) WHERE {_MINE}"
    " RETURNING l.instance_id), freed AS (UPDATE {s}.orchestrator_queue q SET lock_token = NULL, locked_until = NULL FROM gone g"
    " WHERE q.instance_id = g.instance_id AND q.lock_token IS NOT NULL RETURNING 1)"
    " SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM freed)",
    "free_routed": "UPDATE {s}.orchestrator_queue SET lock_token = NULL, locked_until = NULL"
    " WHERE lock_token IN (SELECT 'to:' || o FROM unnest(%(owners)s::text[]) AS o)",
    "free_work": "UPDATE {s}.worker_queue w SET lock_token = NULL, locked_until = NULL FROM unnest(%(owners)s::text[]) AS o(owner)"
    f" WHERE w.lock_token IS NOT NULL AND {_MINE}",
    "free_sessions": "DELETE FROM {s}.sessions WHERE worker_id = ANY (%(owners)s::text[])",
    "owners_drop": "DELETE FROM {s}.dx_owners WHERE owner = ANY (%(owners)s::text[])",
    # ── signs of change ──
    "tell": "SELECT pg_notify(%(channel)s, %(payload)s)",
    "backend": "SELECT pg_backend_pid()",
    # Where nobody can listen: moves with what others of ours commit, and with what the reference enqueues.
    "moved": "SELECT (SELECT COALESCE(sum(seq), 0) FROM {s}.dx_peers WHERE peer <> %(peer)s)::text || '/' ||"
    " (SELECT last_value FROM {s}.orchestrator_queue_id_seq) || '/' || (SELECT last_value FROM {s}.worker_queue_id_seq)",
}

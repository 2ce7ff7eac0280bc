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
    # Together with a word to the others: whoever was alone has somebody to watch now.
    "owner_put": "WITH put AS (INSERT INTO {s}.dx_owners (owner, peer, key) VALUES (%(owner)s, %(peer)s, %(key)s) ON CONFLICT (owner)"
    " DO UPDATE SET peer = excluded.peer, key = excluded.key, announced_at = now() RETURNING peer)"
    " SELECT pg_notify(%(channel)s, peer || ' here') FROM put",
    "owner_drop": "DELETE FROM {s}.dx_owners WHERE owner = %(owner)s",
    # Everybody with a runtime watches the next four that have one, in a circle: however many there are, a look costs as much. Shared,
    # so that two who watch the same do not take each other for its owner. While the server has just come up, those of before have yet to come back.
    "owners_watched": "WITH next AS MATERIALIZED (SELECT DISTINCT o.peer, o.peer < %(peer)s AS behind FROM {s}.dx_owners o"
    " WHERE o.peer <> %(peer)s AND o.owner <> o.peer ORDER BY behind, o.peer LIMIT 4),"
    " watched AS MATERIALIZED (SELECT o.owner, o.key, o.announced_at > pg_postmaster_start_time()"
    " OR now() > pg_postmaster_start_time() + make_interval(secs => %(after_start)s) AS settled"
    " FROM {s}.dx_owners o JOIN next n ON n.peer = o.peer)"
    " SELECT w.owner, w.settled AND pg_try_advisory_xact_lock_shared(w.key) FROM watched w",
    # Of these, the ones whose lock nobody holds even now.
    "owners_dead": "SELECT o.owner FROM {s}.dx_owners o WHERE o.owner = ANY (%(owners)s) AND pg_try_advisory_xact_lock(o.key)",
    # Providers without a runtime that nobody watches: their rows do no harm but to let others be told of things for nothing.
    "owners_sweep": "WITH idle AS MATERIALIZED (SELECT o.owner, o.key FROM {s}.dx_owners o WHERE o.peer <> %(peer)s AND o.owner = o.peer)"
    " DELETE FROM {s}.dx_owners o USING idle i WHERE o.owner = i.owner AND pg_try_advisory_xact_lock(i.key)",
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
    "beat": "SELECT 1",
    "keepalives": "SELECT set_config('tcp_keepalives_idle', '15', false), set_config('tcp_keepalives_interval', '5', false),"
    " set_config('tcp_keepalives_count', '3', false)",
    # Where nobody can listen: moves with what others of ours commit, and with what the reference enqueues.
    "moved": "SELECT (SELECT COALESCE(sum(seq), 0) FROM {s}.dx_peers WHERE peer <> %(peer)s)::text || '/' ||"
    " (SELECT last_value FROM {s}.orchestrator_queue_id_seq) || '/' || (SELECT last_value FROM {s}.worker_queue_id_seq)",
}

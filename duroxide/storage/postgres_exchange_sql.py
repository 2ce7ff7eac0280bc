"""The exchange as one function on the server: one call is one transaction and one round trip (docs/decisions/0020).

Owns the order in which the statements of `postgres_apply_sql` and `postgres_claims_sql` run, and the functions' names: a part of the name
is made from the text, so that different versions of this package share a schema. Knows no connection.
"""

from __future__ import annotations

import re
import zlib

from duroxide.storage import postgres_apply_sql as apply, postgres_claims_sql as claims

FENCED = "DX001"  # SQLSTATE: the epoch of this peer has ended

# What the functions stand on beside the reference's tables.
TABLES: tuple[str, ...] = (
    # One row a provider. seq: the last exchange of its current epoch that was committed.
    "CREATE TABLE IF NOT EXISTS {s}.dx_peers (peer text PRIMARY KEY, epoch bigint NOT NULL, seq bigint NOT NULL,"
    " made_at timestamptz NOT NULL DEFAULT now())",
    # One row a runtime, and one a provider that listens; alive as long as somebody holds the advisory lock `key`.
    "CREATE TABLE IF NOT EXISTS {s}.dx_owners (owner text PRIMARY KEY, peer text NOT NULL, key bigint NOT NULL)",
    "ALTER TABLE {s}.dx_owners ADD COLUMN IF NOT EXISTS announced_at timestamptz NOT NULL DEFAULT now()",
)
INDEXES: tuple[str, ...] = (
    "CREATE INDEX IF NOT EXISTS dx_orch_ready ON {s}.orchestrator_queue (visible_at, id) WHERE lock_token IS NULL",
    # Two, because to the planner a null tag is no value by which an index on the tag is in order.
    "CREATE INDEX IF NOT EXISTS dx_work_ready ON {s}.worker_queue (visible_at, id)"
    " WHERE lock_token IS NULL AND session_id IS NULL AND tag IS NULL",
    "CREATE INDEX IF NOT EXISTS dx_work_tagged ON {s}.worker_queue (tag, visible_at, id)"
    " WHERE lock_token IS NULL AND session_id IS NULL AND tag IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS dx_work_visible ON {s}.worker_queue (visible_at, id) WHERE lock_token IS NULL",
    "CREATE INDEX IF NOT EXISTS dx_work_session ON {s}.worker_queue (session_id, visible_at, id)"
    " WHERE lock_token IS NULL AND session_id IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS dx_work_expiry ON {s}.worker_queue (locked_until) WHERE lock_token IS NOT NULL",
)

# Plans that a table's growth cannot make bad: they are kept for the life of a connection, and queues are empty when it begins.
SETTINGS = (
    "search_path = pg_catalog, pg_temp", "enable_seqscan = off", "enable_hashjoin = off", "enable_mergejoin = off", "jit = off",
    "plan_cache_mode = force_generic_plan",
)  # fmt: skip
_ROW = (
    "kind integer, slot integer, n1 bigint, n2 bigint, t1 text, t2 text, t3 text, t4 text, t5 text, t6 text, t7 text"
)

EXCHANGE = """
BEGIN
  IF p_mark[2] > 0 THEN
    <mark>;
  ELSE
    <mark_seen>;
  END IF;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'this peer has begun a new epoch' USING ERRCODE = '""" + FENCED + """';
  END IF;
  v_now := p_mark[3];
  v_at := to_timestamp(v_now::float8 / 1000);
  v_turns := p_mark[4];
  v_clean := true;
  v_any := true;
  IF p_lease_instance IS NOT NULL THEN
    <lease_check> INTO v_leased;
    v_leased := COALESCE(v_leased, '{}');
    IF cardinality(v_leased) < cardinality(p_lease_instance) THEN
      v_clean := false;
    END IF;
  END IF;
  IF p_cancel_turn IS NOT NULL THEN
    <work_lock>;
  END IF;
  IF p_work_row IS NOT NULL THEN
    <work_check> INTO v_worked;
    v_worked := COALESCE(v_worked, '{}');
    IF cardinality(v_worked) < cardinality(p_work_row) THEN
      v_any := false;
      SELECT array_agg(t.turn) INTO v_lost FROM unnest(p_work_turn) WITH ORDINALITY AS t(turn, n)
      WHERE t.turn > 0 AND t.n <> ALL (v_worked);
    END IF;
  END IF;
  IF NOT v_clean OR v_lost IS NOT NULL THEN
    v_clean := false;
    v_ok := ARRAY(SELECT n = ANY (v_leased) AND n <> ALL (COALESCE(v_lost, '{}')) FROM generate_series(1, v_turns) AS n);
  END IF;
  IF p_work_row IS NOT NULL THEN
    v_row := ARRAY(SELECT t.id FROM unnest(p_work_row, p_work_turn) WITH ORDINALITY AS t(id, turn, n)
      WHERE t.turn >= 0 AND (v_any OR t.n = ANY (v_worked)) AND (t.turn = 0 OR v_clean OR v_ok[t.turn]));
    <work_drop> INTO v_session;
    IF v_session IS NOT NULL THEN
      <session_touch>;
    END IF;
  END IF;
  IF p_consumed_turn IS NOT NULL THEN
    <message_drop>;
  END IF;
  IF p_first_turn IS NOT NULL THEN
    <instance_put>;
    <execution_put>;
  END IF;
  IF p_later_turn IS NOT NULL THEN
    <instance_touch>;
  END IF;
  IF p_event_turn IS NOT NULL THEN
    <event_put>;
  END IF;
  IF p_clear_turn IS NOT NULL THEN
    <kv_clear_delta>;
    <kv_clear_store>;
  END IF;
  IF p_kv_turn IS NOT NULL THEN
    <kv_put>;
  END IF;
  IF p_end_turn IS NOT NULL THEN
    <execution_end>;
    IF (<kv_any>) THEN
      <kv_merge_put>;
      <kv_merge_drop>;
      <kv_merge_end>;
    END IF;
  END IF;
  IF p_out_turn IS NOT NULL THEN
    <work_put> INTO v_held;
  END IF;
  IF p_cancel_turn IS NOT NULL THEN
    <work_cancel>;
  END IF;
  IF p_message_turn IS NOT NULL THEN
    <message_put>;
  END IF;
  IF p_free_turn IS NOT NULL THEN
    <lease_drop> INTO v_instance;
    <message_free>;
  END IF;
  IF p_back_at IS NOT NULL THEN
    <message_back>;
    <lease_back>;
  END IF;
  IF p_work_row IS NOT NULL THEN
    <work_result>;
    <work_back>;
  END IF;
  RETURN QUERY SELECT 0, 0, 0::bigint, 0::bigint,
    CASE WHEN NOT v_clean THEN array_to_string(v_ok, ',') END,
    CASE WHEN v_turns < cardinality(p_lease_instance) THEN array_to_string(v_leased, ',') END,
    CASE WHEN NOT v_any THEN array_to_string(v_worked, ',') END, array_to_string(v_held, ','), NULL::text, NULL::text, NULL::text;
  FOR v_slot IN 0 .. COALESCE(jsonb_array_length(p_appetites), 0) - 1 LOOP
    v_asked := p_appetites -> v_slot;
    IF v_asked ? 'turns' THEN
      RETURN QUERY SELECT * FROM {s}.<turns>((v_asked ->> 'slot')::integer, (v_asked ->> 'now')::bigint, v_asked ->> 'owner',
        (v_asked ->> 'turns')::integer, (v_asked ->> 'base')::bigint, (v_asked ->> 'lease_ms')::bigint,
        (v_asked ->> 'low')::bigint, (v_asked ->> 'high')::bigint);
    END IF;
    IF v_asked ? 'work' THEN
      RETURN QUERY SELECT * FROM {s}.<work>((v_asked ->> 'slot')::integer, (v_asked ->> 'now')::bigint, v_asked ->> 'owner',
        (v_asked ->> 'work')::integer, (v_asked ->> 'base')::bigint + 500000, (v_asked ->> 'work_lease_ms')::bigint,
        v_asked ->> 'mode', ARRAY(SELECT jsonb_array_elements_text(v_asked -> 'tags')), v_asked ->> 'session_owner',
        (v_asked ->> 'session_ms')::bigint, (v_asked ->> 'room')::integer,
        ARRAY(SELECT jsonb_array_elements_text(v_asked -> 'sessions')));
    END IF;
  END LOOP;
  IF p_mark[2] > 0 AND (<others>) THEN
    v_any := (<ready_left>);
    IF v_any AND p_message_turn IS NOT NULL AND 0 = ANY (p_message_turn) THEN
      PERFORM pg_notify('{channel}', p_peer || ' ready');
      v_any := false;
    END IF;
    RETURN QUERY SELECT 5, 0, v_any::integer::bigint, 0::bigint, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text;
  END IF;
END"""


def _filled(body: str, statements: dict[str, str], **others: str) -> str:
    texts = {**statements, **others}
    return re.sub("<([a-z_]+)>", lambda found: texts[found[1]].strip(), body)


def _split(types: dict[str, str]) -> tuple[str, str]:
    parameters = ", ".join(f"{name} {kind}" for name, kind in types.items() if name.startswith("p_"))
    variables = "".join(f"  {name} {kind};\n" for name, kind in types.items() if name.startswith("v_"))
    return parameters, variables


def _function(name: str, types: dict[str, str], body: str, settings: tuple[str, ...] = ()) -> tuple[str, str]:
    """(its name, the statement that makes it)."""
    parameters, variables = _split(types)
    text = (
        f"({parameters}) RETURNS TABLE ({_ROW}) LANGUAGE plpgsql VOLATILE {' '.join(f'SET {s}' for s in settings)}"
        f" AS $duroxide$\n#variable_conflict use_column\nDECLARE\n{variables}{body}\n$duroxide$"
    )
    full = f"{name}_{zlib.crc32(text.encode()):08x}"
    return full, f"CREATE OR REPLACE FUNCTION {{s}}.{full} {text}"


def _load() -> tuple[str, str]:
    """One instance as stored; one statement sees one moment."""
    text = (
        "(p_instance text, p_execution bigint, p_after bigint) RETURNS TABLE (execution bigint, name text, version text, status text,"
        " output text, parent text, custom text, custom_version integer, ids bigint[], events text[], keys text[], texts text[],"
        " times bigint[], changed text[], changed_texts text[], changed_times bigint[]) LANGUAGE plpgsql STABLE"
        f" {' '.join(f'SET {s}' for s in SETTINGS)} AS $duroxide$\n#variable_conflict use_column\nBEGIN RETURN QUERY"
        f" {claims.LOAD.strip()}; END\n$duroxide$"
    )
    full = f"dx_load_{zlib.crc32(text.encode()):08x}"
    return full, f"CREATE OR REPLACE FUNCTION {{s}}.{full} {text}"


TURNS_NAME, _TURNS = _function("dx_claim_turns", claims.TURN_TYPES, _filled(claims.CLAIM_TURNS, claims.TURNS))
WORK_NAME, _WORK = _function("dx_claim_work", claims.WORK_TYPES, _filled(claims.CLAIM_WORK, claims.WORK))
NAME, _EXCHANGE = _function(
    "dx_exchange",
    {**apply.PARAMETERS, **apply.VARIABLES},
    _filled(EXCHANGE, apply.APPLY, turns=TURNS_NAME, work=WORK_NAME),
    SETTINGS,
)
LOAD_NAME, _LOAD = _load()
NAMES = (TURNS_NAME, WORK_NAME, NAME, LOAD_NAME)
FUNCTIONS: tuple[str, ...] = (_TURNS, _WORK, _EXCHANGE, _LOAD)

CALL = f"SELECT * FROM {{s}}.{NAME}({', '.join(f'${n}::{kind}' for n, kind in enumerate(apply.PARAMETERS.values(), 1))})"
LOAD_CALL = f"SELECT * FROM {{s}}.{LOAD_NAME}($1::text, $2::bigint, $3::bigint)"


def channel(schema: str) -> str:
    """Where peers of one schema tell each other that something changed."""
    return f"dx_{zlib.crc32(schema.encode()):08x}"


def filled(text: str, schema: str, shared: bool = False) -> str:
    """`text` for that (folded) schema. The seed keeps the advisory locks of one schema's instances apart from another's; the lock of the
    reference, which does not, is taken only where the schema is `shared` with it."""
    text = text.replace("{theirs}", " AND pg_try_advisory_xact_lock(hashtext(f.instance_id))" if shared else "")
    text = text.replace("{s}", f'"{schema}"').replace("{channel}", channel(schema))
    return text.replace("{seed}", str(zlib.crc32(schema.encode())))

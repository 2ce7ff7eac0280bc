# cython: language_level=3
"""The records of base.py as structs of duroxide_store.h, and back.

Owns the memory of what goes in (an arena per verb); what comes out belongs to the store. Refuses to know verbs and the GIL.
"""

from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t

from duroxide.storage._abi cimport *
from duroxide.storage.base import ClaimedTurn, ClaimedWork, Loaded, StoreError, Taken


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL


# ── Python to C: texts are borrowed from the records, which the caller keeps unchanged during the verb ──────────


cdef int put(dx_str *out, object value) except -1:
    cdef Py_ssize_t n = -1
    if value is None:
        out.p, out.n = NULL, -1
        return 0
    try:
        out.p = PyUnicode_AsUTF8AndSize(value, &n)
    except UnicodeEncodeError as error:
        bad = ord(value[error.start])
        raise StoreError(
            f"text {value[:40]!r} holds the lone surrogate U+{bad:04X} at {error.start}: it has no UTF-8 form",
            operation="encode",
        ) from None
    out.n = n
    return 0


cdef void *room(dx_arena *arena, Py_ssize_t n, size_t size) except? NULL:
    if n == 0:
        return NULL
    cdef void *p = dx_alloc_zeroed(arena, n * size)
    if p == NULL:
        raise MemoryError
    return p


cdef const dx_message *put_messages(dx_arena *arena, list rows) except? NULL:
    cdef dx_message *out = <dx_message *> room(arena, len(rows), sizeof(dx_message))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        instance, item, visible_at = rows[i]
        put(&out[i].instance, instance)
        put(&out[i].item, item)
        out[i].visible_at = visible_at
    return out


cdef const dx_work_key *put_work_keys(dx_arena *arena, list rows) except? NULL:
    cdef dx_work_key *out = <dx_work_key *> room(arena, len(rows), sizeof(dx_work_key))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        row_id, token = rows[i]
        out[i].row_id = row_id
        put(&out[i].token, token)
    return out


cdef const dx_str *put_texts(dx_arena *arena, list rows) except? NULL:
    cdef dx_str *out = <dx_str *> room(arena, len(rows), sizeof(dx_str))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        put(&out[i], rows[i])
    return out


cdef const int64_t *put_ids(dx_arena *arena, list rows) except? NULL:
    cdef int64_t *out = <int64_t *> room(arena, len(rows), sizeof(int64_t))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        out[i] = rows[i]
    return out


cdef const dx_event *put_events(dx_arena *arena, list rows) except? NULL:
    cdef dx_event *out = <dx_event *> room(arena, len(rows), sizeof(dx_event))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        event_id, kind, text = rows[i]
        out[i].event_id = event_id
        put(&out[i].type, kind)
        put(&out[i].text, text)
    return out


cdef const dx_work_out *put_work(dx_arena *arena, list rows) except? NULL:
    cdef dx_work_out *out = <dx_work_out *> room(arena, len(rows), sizeof(dx_work_out))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        row = rows[i]
        put(&out[i].instance, row.instance)
        out[i].execution_id = row.execution_id
        out[i].activity_id = row.activity_id
        put(&out[i].name, row.name)
        put(&out[i].input, row.input)
        put(&out[i].item, row.item)
        put(&out[i].session_id, row.session_id)
        put(&out[i].tag, row.tag)
        out[i].visible_at = row.visible_at
        put(&out[i].lease, row.lease)
    return out


cdef const dx_activity_key *put_cancelled(dx_arena *arena, list rows) except? NULL:
    cdef dx_activity_key *out = <dx_activity_key *> room(arena, len(rows), sizeof(dx_activity_key))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        instance, execution_id, activity_id = rows[i]
        put(&out[i].instance, instance)
        out[i].execution_id = execution_id
        out[i].activity_id = activity_id
    return out


cdef const dx_kv_change *put_kv(dx_arena *arena, list rows) except? NULL:
    cdef dx_kv_change *out = <dx_kv_change *> room(arena, len(rows), sizeof(dx_kv_change))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        op, key, value, at_ms = rows[i]
        out[i].op = op
        put(&out[i].key, key)
        put(&out[i].value, value)
        out[i].at_ms = at_ms
    return out


cdef int put_turn(dx_arena *arena, dx_turn_done *out, object turn) except -1:
    cdef list rows
    put(&out.lease, turn.lease)
    put(&out.instance, turn.instance)
    out.execution_id = turn.execution_id
    rows = turn.consumed
    out.consumed, out.n_consumed = put_ids(arena, rows), len(rows)
    rows = turn.acks
    out.acks, out.n_acks = put_work_keys(arena, rows), len(rows)
    rows = turn.events
    out.events, out.n_events = put_events(arena, rows), len(rows)
    rows = turn.work
    out.work, out.n_work = put_work(arena, rows), len(rows)
    rows = turn.cancelled
    out.cancelled, out.n_cancelled = put_cancelled(arena, rows), len(rows)
    rows = turn.messages
    out.messages, out.n_messages = put_messages(arena, rows), len(rows)
    rows = turn.kv
    out.kv, out.n_kv = put_kv(arena, rows), len(rows)
    put(&out.name, turn.name)
    put(&out.version, turn.version)
    put(&out.parent, turn.parent)
    pinned = turn.pinned
    out.pinned[0], out.pinned[1], out.pinned[2] = (-1, -1, -1) if pinned is None else pinned
    put(&out.status, turn.status)
    put(&out.output, turn.output)
    custom_status = turn.custom_status
    out.set_custom_status = custom_status is not None
    put(&out.custom_status, None if custom_status is None else custom_status[0])
    out.keep = bool(turn.keep)
    return 0


cdef const dx_turn_done *put_turns(dx_arena *arena, list rows) except? NULL:
    cdef dx_turn_done *out = <dx_turn_done *> room(arena, len(rows), sizeof(dx_turn_done))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        put_turn(arena, &out[i], rows[i])
    return out


cdef const dx_turn_back *put_turn_backs(dx_arena *arena, list rows) except? NULL:
    cdef dx_turn_back *out = <dx_turn_back *> room(arena, len(rows), sizeof(dx_turn_back))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        put(&out[i].lease, rows[i].lease)
        put(&out[i].instance, rows[i].instance)
        out[i].delay_ms = rows[i].delay_ms
        out[i].refund = bool(rows[i].refund)
    return out


cdef const dx_work_done *put_work_done(dx_arena *arena, list rows) except? NULL:
    cdef dx_work_done *out = <dx_work_done *> room(arena, len(rows), sizeof(dx_work_done))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        out[i].row_id = rows[i].row_id
        put(&out[i].token, rows[i].token)
        put(&out[i].instance, rows[i].instance)
        put(&out[i].item, rows[i].item)
    return out


cdef const dx_work_back *put_work_backs(dx_arena *arena, list rows) except? NULL:
    cdef dx_work_back *out = <dx_work_back *> room(arena, len(rows), sizeof(dx_work_back))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        out[i].row_id = rows[i].row_id
        put(&out[i].token, rows[i].token)
        out[i].delay_ms = rows[i].delay_ms
        out[i].refund = bool(rows[i].refund)
    return out


cdef const dx_done *put_done(dx_arena *arena, object done) except? NULL:
    cdef dx_done *out
    if done is None:
        return NULL
    out = <dx_done *> room(arena, 1, sizeof(dx_done))
    cdef list turns = done.turns, turn_backs = done.turn_backs, work = done.work, work_backs = done.work_backs
    cdef list messages = done.messages
    out.turns, out.n_turns = put_turns(arena, turns), len(turns)
    out.turn_backs, out.n_turn_backs = put_turn_backs(arena, turn_backs), len(turn_backs)
    out.work, out.n_work = put_work_done(arena, work), len(work)
    out.work_backs, out.n_work_backs = put_work_backs(arena, work_backs), len(work_backs)
    out.messages, out.n_messages = put_messages(arena, messages), len(messages)
    return out


cdef dict TAG_MODES = {
    "default_only": DX_TAGS_DEFAULT, "tags": DX_TAGS_ONLY, "default_and": DX_TAGS_AND_DEFAULT, "any": DX_TAGS_ANY,
    "none": DX_TAGS_NONE,
}


cdef const dx_appetite *put_appetite(dx_arena *arena, object appetite) except? NULL:
    cdef dx_appetite *out
    if appetite is None:
        return NULL
    out = <dx_appetite *> room(arena, 1, sizeof(dx_appetite))
    put(&out.owner, appetite.owner)
    out.turns, out.work = appetite.turns, appetite.work
    out.lease_ms, out.work_lease_ms = appetite.lease_ms, appetite.work_lease_ms
    out.tag_mode = TAG_MODES[appetite.tag_mode]
    tags, sessions, versions = list(appetite.tags), list(appetite.sessions), appetite.versions
    out.tags, out.n_tags = put_texts(arena, tags), len(tags)
    put(&out.session_owner, appetite.session_owner)
    out.session_lock_ms, out.session_room = appetite.session_lock_ms, appetite.session_room
    out.sessions, out.n_sessions = put_texts(arena, sessions), len(sessions)
    out.sweep = bool(appetite.sweep)
    if versions is None:
        out.version_mode = DX_VERSIONS_ALL
    elif len(versions) == 0:
        out.version_mode = DX_VERSIONS_NOTHING
    else:
        out.version_mode = DX_VERSIONS_RANGE
        out.versions[0], out.versions[1] = versions
    return out


cdef const dx_lease_key *put_lease_keys(dx_arena *arena, list rows) except? NULL:
    cdef dx_lease_key *out = <dx_lease_key *> room(arena, len(rows), sizeof(dx_lease_key))
    cdef Py_ssize_t i
    for i in range(len(rows)):
        instance, token = rows[i]
        put(&out[i].instance, instance)
        put(&out[i].token, token)
    return out


# ── C to Python ─────────────────────────────────────────────────────────────────────────────────────────────────


cdef object get(dx_str text):
    # "replace": bytes that are no UTF-8 can only be damage; the reader of the text reports it with the instance at hand.
    return None if text.n < 0 else PyUnicode_DecodeUTF8(text.p, text.n, "replace")


cdef object get_turn(const dx_claimed_turn *turn):
    cdef int64_t i
    messages = [(turn.messages[i].row_id, get(turn.messages[i].item), turn.messages[i].attempt) for i in range(turn.n_messages)]
    return ClaimedTurn(
        get(turn.instance), get(turn.lease), messages, turn.attempt, turn.execution_id, turn.last_event_id,
        get(turn.name), get(turn.version), get(turn.status),
    )


cdef object get_work(const dx_claimed_work *work):
    return ClaimedWork(
        work.row_id, get(work.token), get(work.item), work.attempt, get(work.instance), get(work.session_id), get(work.tag),
        get(work.name), get(work.version),
    )


cdef list get_codes(const int32_t *codes, int64_t n):
    cdef int64_t i
    return [codes[i] for i in range(n)]


cdef list get_ids(const int64_t *ids, int64_t n):
    cdef int64_t i
    return [ids[i] for i in range(n)]


cdef object get_taken(const dx_taken *taken, const dx_done *done):
    cdef int64_t i
    out = Taken()
    if done != NULL:
        out.turn_codes = get_codes(taken.turn_codes, done.n_turns)
        out.turn_back_codes = get_codes(taken.turn_back_codes, done.n_turn_backs)
        out.work_codes = get_codes(taken.work_codes, done.n_work)
        out.work_back_codes = get_codes(taken.work_back_codes, done.n_work_backs)
        out.held = [get_ids(taken.held[i].ids, taken.held[i].n) for i in range(done.n_turns)]
    out.turns = [get_turn(&taken.turns[i]) for i in range(taken.n_turns)]
    out.work = [get_work(&taken.work[i]) for i in range(taken.n_work)]
    out.next_visible_at = None if taken.next_visible_at < 0 else taken.next_visible_at
    return out


cdef dict get_kv(const dx_kv *kv, int64_t n):
    cdef int64_t i
    return {get(kv[i].key): (get(kv[i].value), kv[i].at_ms) for i in range(n)}


cdef object get_loaded(str instance, const dx_loaded *l):
    cdef int64_t i
    events = [(l.events[i].event_id, get(l.events[i].text)) for i in range(l.n_events)]
    return Loaded(
        instance, l.execution_id, get(l.name), get(l.version), get(l.status), get(l.output), get(l.parent), get(l.custom_status),
        l.custom_status_version, events, get_kv(l.kv, l.n_kv), get_kv(l.kv_delta, l.n_kv_delta),
    )

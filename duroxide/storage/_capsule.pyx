"""Any store behind the C ABI as a Python `Store`: `CapsuleStore(capsule)`.

Owns the marshalling between the records of base.py and the structs of duroxide_store.h, and the GIL: one nogil section a verb.
Refuses to know which store it is, and what the rows mean.
"""

import threading

from cpython.exc cimport PyErr_Occurred
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memset

from duroxide.storage.base import ClaimedTurn, ClaimedWork, Loaded, Renewed, StoreError, Taken


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL

cdef extern from "duroxide_arena.h" nogil:
    ctypedef struct dx_block:
        pass
    ctypedef struct dx_arena:
        dx_block *last
    void *dx_alloc_zeroed(dx_arena *, size_t)
    void dx_arena_free(dx_block *)

cdef extern from "duroxide_store.h" nogil:
    const char *DX_CAPSULE
    uint32_t DX_ABI
    int DX_OK
    enum:
        DX_TAGS_DEFAULT, DX_TAGS_ONLY, DX_TAGS_AND_DEFAULT, DX_TAGS_ANY, DX_TAGS_NONE
        DX_VERSIONS_ALL, DX_VERSIONS_RANGE, DX_VERSIONS_NOTHING
    ctypedef struct dx_str:
        const char *p
        int64_t n
    ctypedef struct dx_error:
        int32_t code
        int32_t retryable
        char operation[32]
        char message[472]
    ctypedef struct dx_work_out:
        dx_str instance, name, input, item, session_id, tag, lease
        int64_t execution_id, activity_id, visible_at
    ctypedef struct dx_work_key:
        int64_t row_id
        dx_str token
    ctypedef struct dx_activity_key:
        dx_str instance
        int64_t execution_id, activity_id
    ctypedef struct dx_event:
        int64_t event_id
        dx_str type, text
    ctypedef struct dx_message:
        dx_str instance, item
        int64_t visible_at
    ctypedef struct dx_kv_change:
        int64_t op, at_ms
        dx_str key, value
    ctypedef struct dx_turn_done:
        dx_str lease, instance
        int64_t execution_id
        const int64_t *consumed
        const dx_work_key *acks
        const dx_event *events
        const dx_work_out *work
        const dx_activity_key *cancelled
        const dx_message *messages
        const dx_kv_change *kv
        int64_t n_consumed, n_acks, n_events, n_work, n_cancelled, n_messages, n_kv
        dx_str name, version, parent, status, output, custom_status
        int64_t pinned[3]
        int32_t set_custom_status, keep
    ctypedef struct dx_turn_back:
        dx_str lease, instance
        int64_t delay_ms, refund
    ctypedef struct dx_work_done:
        int64_t row_id
        dx_str token, instance, item
    ctypedef struct dx_work_back:
        int64_t row_id, delay_ms, refund
        dx_str token
    ctypedef struct dx_done:
        const dx_turn_done *turns
        const dx_turn_back *turn_backs
        const dx_work_done *work
        const dx_work_back *work_backs
        const dx_message *messages
        int64_t n_turns, n_turn_backs, n_work, n_work_backs, n_messages
    ctypedef struct dx_appetite:
        dx_str owner, session_owner
        int64_t turns, work, lease_ms, work_lease_ms, session_lock_ms, session_room
        const dx_str *tags
        const dx_str *sessions
        int64_t n_tags, n_sessions
        int64_t versions[2]
        int32_t version_mode, tag_mode, sweep
    ctypedef struct dx_request:
        int64_t now
        const dx_done *done
        const dx_appetite *appetite
    ctypedef struct dx_claimed_message:
        int64_t row_id, attempt
        dx_str item
    ctypedef struct dx_claimed_turn:
        dx_str instance, lease, name, version, status
        const dx_claimed_message *messages
        int64_t n_messages, attempt, execution_id, last_event_id
    ctypedef struct dx_claimed_work:
        int64_t row_id, attempt
        dx_str token, item, instance, session_id, tag, name, version
    ctypedef struct dx_ids:
        const int64_t *ids
        int64_t n
    ctypedef struct dx_taken:
        const int32_t *turn_codes
        const int32_t *turn_back_codes
        const int32_t *work_codes
        const int32_t *work_back_codes
        const dx_ids *held
        const dx_claimed_turn *turns
        const dx_claimed_work *work
        int64_t n_turns, n_work, next_visible_at
    ctypedef struct dx_exchanged:
        const dx_taken *taken
        int64_t n
        void *memory
    ctypedef struct dx_kv:
        dx_str key, value
        int64_t at_ms
    ctypedef struct dx_loaded:
        int64_t found, execution_id, custom_status_version
        dx_str name, version, status, output, parent, custom_status
        const dx_event *events
        const dx_kv *kv
        const dx_kv *kv_delta
        int64_t n_events, n_kv, n_kv_delta
        void *memory
    ctypedef struct dx_lease_key:
        dx_str instance, token
    ctypedef struct dx_renewal:
        int64_t now, lease_ms, work_lease_ms, session_lock_ms, session_idle_ms
        const dx_lease_key *leases
        const dx_work_key *work
        int64_t n_leases, n_work
        dx_str session_owner
    ctypedef struct dx_renewed:
        const int64_t *lost_leases
        const int64_t *lost_work
        int64_t n_lost_leases, n_lost_work, sessions
        void *memory
    ctypedef struct dx_store_v1:
        uint32_t abi, size
        void *self
        int (*exchange)(void *, const dx_request *, int64_t, dx_exchanged *, dx_error *) noexcept nogil
        int (*load)(void *, dx_str, int64_t, int64_t, dx_loaded *, dx_error *) noexcept nogil
        int (*renew)(void *, const dx_renewal *, dx_renewed *, dx_error *) noexcept nogil
        void (*release)(void *, void *) noexcept nogil
        void (*close)(void *) noexcept nogil


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


# ── the verbs ───────────────────────────────────────────────────────────────────────────────────────────────────


cdef class CapsuleStore:
    """The hot verbs of the store in a capsule `duroxide.store_v1`; ValueError if it is none, or of another ABI.

    Thread-safe. close() waits for running verbs; verbs after it raise StoreError.
    """

    cdef object __weakref__
    cdef object capsule, idle
    cdef const dx_store_v1 *store
    cdef Py_ssize_t running
    cdef bint closed

    def __cinit__(self, capsule):
        if not PyCapsule_IsValid(capsule, DX_CAPSULE):
            raise ValueError(f"not a store: expected a capsule named {DX_CAPSULE.decode()!r}, got {capsule!r}")
        cdef const dx_store_v1 *store = <const dx_store_v1 *> PyCapsule_GetPointer(capsule, DX_CAPSULE)
        if store.abi != DX_ABI or store.size != sizeof(dx_store_v1):
            raise ValueError(
                f"store ABI {store.abi} with {store.size} bytes, expected ABI {DX_ABI} with {sizeof(dx_store_v1)}:"
                " build the store against this version's duroxide_store.h"
            )
        if not (store.exchange and store.load and store.renew and store.release and store.close):
            raise ValueError("store ABI: every function of dx_store_v1 must be there")
        self.capsule, self.store, self.idle = capsule, store, threading.Event()

    cdef int enter(self) except -1:
        if self.closed:
            raise StoreError("the store is closed", operation="use a store")
        self.running += 1
        return 0

    cdef int leave(self, dx_arena *arena, void *memory) except -1:
        if memory != NULL:
            self.store.release(self.store.self, memory)
        dx_arena_free(arena.last)
        self.running -= 1
        if self.closed and self.running == 0:
            self.idle.set()
        return 0

    cdef int check(self, int code, dx_error *error) except -1:
        if PyErr_Occurred() != NULL:  # a hook that the store called into raised
            return -1
        if code != DX_OK:
            raise StoreError(
                error.message.decode("utf-8", "replace"),
                operation=error.operation.decode("utf-8", "replace"), retryable=bool(error.retryable),
            )
        return 0

    def exchange(self, requests):
        cdef list group = list(requests)
        cdef Py_ssize_t i, n = len(group)
        cdef dx_arena arena
        cdef dx_request *rows
        cdef dx_exchanged out
        cdef dx_error error
        cdef int code
        arena.last = NULL
        memset(&out, 0, sizeof(out))
        error.message[0] = error.operation[0] = 0
        self.enter()
        try:
            rows = <dx_request *> room(&arena, n, sizeof(dx_request))
            for i in range(n):
                rows[i].now = group[i].now
                rows[i].done = put_done(&arena, group[i].done)
                rows[i].appetite = put_appetite(&arena, group[i].appetite)
            with nogil:
                code = self.store.exchange(self.store.self, rows, n, &out, &error)
            if code != DX_OK:
                out.memory = NULL  # a verb that failed left nothing to release
            self.check(code, &error)
            return [get_taken(&out.taken[i], rows[i].done) for i in range(n)]
        finally:
            self.leave(&arena, out.memory)

    def load(self, str instance not None, execution_id=None, int64_t after=0):
        cdef dx_arena arena
        cdef dx_str key
        cdef int64_t execution = 0 if execution_id is None else execution_id
        cdef dx_loaded out
        cdef dx_error error
        cdef int code
        arena.last = NULL
        memset(&out, 0, sizeof(out))
        error.message[0] = error.operation[0] = 0
        put(&key, instance)
        self.enter()
        try:
            with nogil:
                code = self.store.load(self.store.self, key, execution, after, &out, &error)
            if code != DX_OK:
                out.memory = NULL  # a verb that failed left nothing to release
            self.check(code, &error)
            return get_loaded(instance, &out) if out.found else None
        finally:
            self.leave(&arena, out.memory)

    def renew(self, renewal):
        cdef list leases = list(renewal.leases), work = list(renewal.work)
        cdef dx_arena arena
        cdef dx_renewal row
        cdef dx_renewed out
        cdef dx_error error
        cdef int code
        arena.last = NULL
        memset(&out, 0, sizeof(out))
        error.message[0] = error.operation[0] = 0
        self.enter()
        try:
            row.now = renewal.now
            row.leases, row.n_leases, row.lease_ms = put_lease_keys(&arena, leases), len(leases), renewal.lease_ms
            row.work, row.n_work, row.work_lease_ms = put_work_keys(&arena, work), len(work), renewal.work_lease_ms
            put(&row.session_owner, renewal.session_owner)
            row.session_lock_ms, row.session_idle_ms = renewal.session_lock_ms, renewal.session_idle_ms
            with nogil:
                code = self.store.renew(self.store.self, &row, &out, &error)
            if code != DX_OK:
                out.memory = NULL  # a verb that failed left nothing to release
            self.check(code, &error)
            return Renewed(get_ids(out.lost_leases, out.n_lost_leases), get_ids(out.lost_work, out.n_lost_work), out.sessions)
        finally:
            self.leave(&arena, out.memory)

    def close(self):
        if self.closed:
            return
        self.closed = True
        if self.running == 0:
            self.idle.set()
        self.idle.wait()
        cdef dx_error error
        with nogil:
            self.store.close(self.store.self)
        self.check(DX_OK, &error)

# cython: language_level=3
# The structs and functions of csrc/duroxide_store.h and csrc/duroxide_arena.h, for the modules that speak to stores in C.
from libc.stdint cimport int32_t, int64_t, uint32_t


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

# cython: language_level=3
from libc.stdint cimport int32_t, int64_t


cdef extern from "event_text.h":
    # The kinds of events, in the order of `events.KINDS`.
    enum:
        STARTED "DX_ORCHESTRATION_STARTED"
        ACTIVITY_SCHEDULED "DX_ACTIVITY_SCHEDULED"
        ACTIVITY_COMPLETED "DX_ACTIVITY_COMPLETED"
        ACTIVITY_FAILED "DX_ACTIVITY_FAILED"
        ACTIVITY_CANCEL "DX_ACTIVITY_CANCEL_REQUESTED"
        TIMER_CREATED "DX_TIMER_CREATED"
        TIMER_FIRED "DX_TIMER_FIRED"
        EVENT_SUBSCRIBED "DX_EXTERNAL_SUBSCRIBED"
        EVENT_ARRIVED "DX_EXTERNAL_EVENT"
        EVENT_CANCELLED "DX_EXTERNAL_SUBSCRIBED_CANCELLED"
        QUEUE_SUBSCRIBED "DX_QUEUE_SUBSCRIBED"
        QUEUE_ARRIVED "DX_QUEUE_EVENT"
        QUEUE_CANCELLED "DX_QUEUE_SUBSCRIBED_CANCELLED"
        CHILD_SCHEDULED "DX_CHILD_SCHEDULED"
        CHILD_COMPLETED "DX_CHILD_COMPLETED"
        CHILD_FAILED "DX_CHILD_FAILED"
        CHILD_CANCEL "DX_CHILD_CANCEL_REQUESTED"
        CHAINED "DX_CHAINED"
        CANCEL_REQUESTED "DX_CANCEL_REQUESTED"
        STATUS_UPDATED "DX_STATUS_UPDATED"
        KV_UPDATED "DX_KV_SET"
        KV_REMOVED "DX_KV_CLEARED"
        KV_EMPTIED "DX_KV_ALL_CLEARED"
        KINDS_COUNT "DX_KINDS"

    enum:
        NAME "DX_NAME"
        PAYLOAD "DX_PAYLOAD"
        WHERE "DX_WHERE"
        TAG "DX_TAG"

    ctypedef struct dx_span:
        int32_t at, size, escaped

    ctypedef struct dx_event:
        const char *text
        int64_t id, source, number
        dx_span slots[4]
        int32_t kind, other

    ctypedef struct dx_scanner:
        pass

    int dx_scan_event(dx_scanner *scanner, const char *text, int64_t size, dx_event *out) noexcept
    int dx_span_equals(const dx_event *event, int slot, const char *plain, int64_t size) noexcept
    int64_t dx_unescape(const char *source, int64_t size, char *to) noexcept


cdef class History:
    cdef list texts             # what the events' spans point into
    cdef list others            # decoded, those that are not of the shape in which we write
    cdef dx_event *events
    cdef readonly Py_ssize_t count
    cdef Py_ssize_t room
    cdef dx_scanner scanner

    cdef int add(self, id, str text) except -1
    cdef int grow(self, Py_ssize_t room) except -1
    cdef int add_other(self, id, str text) except -1
    cdef int check(self, id, dx_event *event) except -1
    cdef int resolve(self, dx_event *event) except -1
    cdef dict fields(self, dx_event *event)
    cdef object need(self, dx_event *event, int slot, str key)
    cdef object maybe(self, dx_event *event, int slot, str key)
    cdef bint same(self, dx_event *event, int slot, str key, str value) except -1
    cdef bint same_or_none(self, dx_event *event, int slot, str key, str value) except -1
    cdef object value(self, dx_event *event)


cdef History read_history(list events)

# cython: language_level=3
from duroxide.engine._tasks cimport Leaf, Node, Scope


cpdef enum State:
    RUNNING, COMPLETED, FAILED, CONTINUED


cdef class Execution(Scope):
    # what it is
    cdef readonly str instance, name, version, input, status
    cdef readonly long long execution_id, last_event_id
    cdef tuple parent           # (instance, schedule event id, execution) or None
    cdef bint legacy
    cdef object env
    # the code
    cdef object function, generator, ctx
    cdef Node root
    cdef int state
    cdef str outcome            # COMPLETED: the output; FAILED: the details JSON
    cdef Leaf successor         # CONTINUED: the continue-as-new command
    cdef bint active, first_step
    cdef int flag               # poll the code before the next event: 0 no, 1 after a stored event, 2 after a new one
    cdef readonly bint is_replaying
    # commands and what waits for them
    cdef object commands        # emitted, not yet in history
    cdef long long tokens
    cdef bytearray kinds        # by event id: kind of schedule, CLOSED, CANCELLED
    cdef dict open              # event id -> Leaf: activities, timers, children without a completion
    cdef dict targets           # event id -> full instance id of an unresolved child
    cdef dict events, queues    # name -> Channel
    cdef long long arrival
    cdef bint stale             # older policy: a bound dequeue was dropped and still has its place
    cdef list drops             # leaves dropped and without a cancel event
    # values that code sets and reads
    cdef dict kv                # key -> (value, ms)
    cdef list set_times         # times of the KeyValueSet events in history, in order
    cdef Py_ssize_t sets
    cdef str custom_status
    cdef str cancel_reason      # not None: cancellation was requested
    # this turn
    cdef long long now
    cdef str head
    cdef list written           # [(event id, type, JSON)]
    cdef list recorded          # leaves that got their event in this turn
    cdef tuple status_delta
    cdef list kv_delta
    cdef list violations        # [(rank, text)]
    cdef list warnings

    cdef int open_turn(self, long long now_ms) except -1
    cdef long long write(self, str type, object source, str fields) except -1
    cdef int mark(self, long long id, int kind) except -1
    cdef int kind_at(self, long long id) noexcept
    cdef list waiting(self)
    cdef int close_schedule(self, long long id) except -1
    cdef int complete(self, long long id, object value, bint failed) except -1
    cdef int arrive(self, bint queue, str name, str data) except -1
    cdef int poll(self) except -1
    cdef object step(self)
    cdef int fail(self, str details) except -1
    cdef int cancel_dropped(self) except -1
    cdef list due(self)
    cdef int deliver(self) except -1
    cdef int bind(self, Leaf leaf, long long id, str target) except -1


cdef str full_child_id(str parent, str instance)


cdef enum:
    CLOSED = 16
    CANCELLED = 32
    KIND = 15
    IS_ACTIVITY = 1
    IS_TIMER = 2
    IS_CHILD = 3
    IS_WAIT = 4
    IS_DEQUEUE = 5

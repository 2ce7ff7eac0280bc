# cython: language_level=3
"""What a yielded descriptor becomes: leaves (commands) and nodes (all, race, retry) that finish by themselves."""

cpdef enum Kind:
    ACTIVITY, TIMER, CHILD, WAIT, DEQUEUE, DETACHED, STATUS, KV_SET, KV_CLEAR, KV_CLEAR_ALL, CONTINUE


cdef class Scope:
    cdef int emit(self, Leaf leaf) except -1
    cdef int dropped(self, Leaf leaf) except -1
    cdef str child_error(self, Leaf leaf)


cdef class Node:
    cdef Node parent
    cdef Py_ssize_t slot
    cdef bint started
    cdef bint done
    cdef bint failed
    cdef object value  # result, or the exception to raise

    cdef int start(self, Scope scope) except -1
    cdef int child(self, Scope scope, Node child) except -1
    cdef int drop(self, Scope scope) except -1
    cdef int finish(self, Scope scope, object value, bint failed) except -1


cdef class Leaf(Node):
    cdef readonly int kind
    cdef readonly str name      # activity, event, queue, child; KV key
    cdef readonly str input     # payload text; KV value; status
    cdef readonly str where     # session id, or child/detached instance id as asked for
    cdef readonly str version   # child/detached/continue-as-new version
    cdef readonly str tag
    cdef readonly long long number  # timer: delay ms, then due time; KV: time
    cdef readonly long long id      # event id once recorded, else 0
    cdef readonly long long token   # emission number
    cdef bint is_dropped        # its future is gone: the result interests nobody
    cdef bint cancel_recorded   # a cancel event for it is in history
    cdef bint syscall
    cdef str target             # child: full instance id, once recorded


cdef class ErrorLeaf(Node):
    pass


cdef class Group(Node):
    cdef list members
    cdef bint typed


cdef class All(Group):
    cdef Py_ssize_t remaining


cdef class Race(Group):
    pass


cdef class Retry(Node):
    cdef Leaf template
    cdef long long max_attempts, timeout_ms, overall_ms, attempt
    cdef object backoff  # (initial_ms, multiplier, max_ms, linear)
    cdef Leaf activity, timeout, pause, overall

    cdef int begin(self, Scope scope) except -1
    cdef Leaf timer(self, Scope scope, long long delay_ms)
    cdef int attempted(self, Scope scope, Node child) except -1
    cdef long long delay(self) except -1
    cdef int drop_members(self, Scope scope) except -1


cdef Leaf leaf_of(int kind, str name, str input)

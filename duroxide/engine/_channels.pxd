# cython: language_level=3
from duroxide.engine._tasks cimport Leaf, Scope


cdef class Channel:
    cdef bint buffered
    cdef bint bind(self, Scope scope, Leaf leaf) except -1
    cdef bint arrive(self, Scope scope, str data, long long order) except -1
    cdef int dropped(self, Leaf leaf) except -1
    cdef int cancel_replayed(self, long long id) except -1
    cdef int cancel_dropped(self) except -1
    cdef list due(self)
    cdef list waiting_leaves(self)
    cdef list unread(self)


cdef class Fifo(Channel):
    cdef object waiting
    cdef object arrivals


cdef class Indexed(Channel):
    cdef list subscriptions
    cdef list arrivals


cdef Channel new_channel(bint buffered, bint legacy)

# cython: language_level=3
from duroxide.engine._events cimport History, dx_event
from duroxide.engine._tasks cimport Leaf

cdef int command_of(int event_kind) noexcept
cdef Leaf take_match(object commands, History history, dx_event *event)

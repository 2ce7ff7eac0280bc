# cython: language_level=3
from duroxide.engine._execution cimport Execution
from duroxide.engine._turn cimport Turn


cdef enum:  # what arrived for the code: (one of these, schedule id, payload, name)
    RESULT, FAILURE, EVENT, QUEUE


cdef class Inbox:
    cdef list starts      # [(kind, fields)]
    cdef dict successor   # fields of the ContinueAsNew, or None
    cdef list rest        # [(kind, fields)]
    cdef list texts
    cdef str malformed    # what is wrong with one of them, or None
    cdef list warnings


cdef object receive(Execution execution, Turn turn, Inbox inbox, list fresh)

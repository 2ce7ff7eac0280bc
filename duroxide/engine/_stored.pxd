# cython: language_level=3
from duroxide.engine._events cimport History
from duroxide.engine._execution cimport Execution


cdef int index(Execution execution, History history) except -1
cdef int replay(Execution execution, History history) except -1
cdef int adopt_waits(Execution execution, History history) except -1

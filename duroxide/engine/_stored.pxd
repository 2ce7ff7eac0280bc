# cython: language_level=3
from duroxide.engine._execution cimport Execution


cdef int index(Execution execution, list events) except -1
cdef int replay(Execution execution, list events) except -1
cdef int adopt_waits(Execution execution, list events) except -1

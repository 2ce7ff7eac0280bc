# cython: language_level=3
from duroxide.engine._execution cimport Execution


cdef int settle(Execution execution) except -1

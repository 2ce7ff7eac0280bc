# cython: language_level=3
from duroxide.engine._execution cimport Execution


cdef object finish(ran, Execution execution)

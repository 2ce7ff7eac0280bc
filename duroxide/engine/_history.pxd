# cython: language_level=3
from duroxide.engine._tasks cimport Leaf

cdef Leaf take_match(object commands, dict event)

# cython: language_level=3
from duroxide.engine._tasks cimport Node

cpdef Node build(object desc)

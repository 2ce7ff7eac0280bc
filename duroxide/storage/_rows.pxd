# cython: language_level=3
from libc.stdint cimport int64_t

from duroxide.storage._abi cimport *


cdef int put(dx_str *out, object value) except -1
cdef void *room(dx_arena *arena, Py_ssize_t n, size_t size) except? NULL
cdef const dx_done *put_done(dx_arena *arena, object done) except? NULL
cdef const dx_appetite *put_appetite(dx_arena *arena, object appetite) except? NULL
cdef const dx_lease_key *put_lease_keys(dx_arena *arena, list rows) except? NULL
cdef const dx_work_key *put_work_keys(dx_arena *arena, list rows) except? NULL
cdef list get_ids(const int64_t *ids, int64_t n)
cdef object get_taken(const dx_taken *taken, const dx_done *done)
cdef object get_loaded(str instance, const dx_loaded *l)

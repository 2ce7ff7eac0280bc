# cython: language_level=3
"""Any store behind the C ABI as a Python `Store`: `CapsuleStore(capsule)`.

Owns the GIL: one nogil section a verb, and when a store is closed. Refuses to know which store it is and what the rows mean.
"""

import threading

from cpython.exc cimport PyErr_Occurred
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport int64_t
from libc.string cimport memset

from duroxide.storage._abi cimport *
from duroxide.storage._rows cimport get_ids, get_loaded, get_taken, put, put_appetite, put_done, put_lease_keys, put_work_keys, room
from duroxide.storage.base import AnswerLost, Renewed, StoreError


cdef class CapsuleStore:
    """The hot verbs of the store in a capsule `duroxide.store_v1`; ValueError if it is none, or of another ABI.

    Thread-safe. close() waits for running verbs; verbs after it raise StoreError.
    """

    cdef object __weakref__
    cdef object capsule, idle
    cdef const dx_store_v1 *store
    cdef Py_ssize_t running
    cdef bint closed

    def __cinit__(self, capsule):
        if not PyCapsule_IsValid(capsule, DX_CAPSULE):
            raise ValueError(f"not a store: expected a capsule named {DX_CAPSULE.decode()!r}, got {capsule!r}")
        cdef const dx_store_v1 *store = <const dx_store_v1 *> PyCapsule_GetPointer(capsule, DX_CAPSULE)
        if store.abi != DX_ABI or store.size != sizeof(dx_store_v1):
            raise ValueError(
                f"store ABI {store.abi} with {store.size} bytes, expected ABI {DX_ABI} with {sizeof(dx_store_v1)}:"
                " build the store against this version's duroxide_store.h"
            )
        if not (store.exchange and store.load and store.renew and store.release and store.close):
            raise ValueError("store ABI: every function of dx_store_v1 must be there")
        self.capsule, self.store, self.idle = capsule, store, threading.Event()

    cdef int enter(self) except -1:
        if self.closed:
            raise StoreError("the store is closed", operation="use a store")
        self.running += 1
        return 0

    cdef int leave(self, dx_arena *arena, void *memory) except -1:
        if memory != NULL:
            self.store.release(self.store.self, memory)
        dx_arena_free(arena.last)
        self.running -= 1
        if self.closed and self.running == 0:
            self.idle.set()
        return 0

    cdef int check(self, int code, dx_error *error) except -1:
        if PyErr_Occurred() != NULL:  # a hook that the store called into raised
            return -1
        if code != DX_OK:
            raise StoreError(
                error.message.decode("utf-8", "replace"),
                operation=error.operation.decode("utf-8", "replace"), retryable=bool(error.retryable),
            )
        return 0

    def exchange(self, requests):
        cdef list group = list(requests)
        cdef Py_ssize_t i, n = len(group)
        cdef dx_arena arena
        cdef dx_request *rows
        cdef dx_exchanged out
        cdef dx_error error
        cdef int code
        arena.last = NULL
        memset(&out, 0, sizeof(out))
        error.message[0] = error.operation[0] = 0
        self.enter()
        try:
            rows = <dx_request *> room(&arena, n, sizeof(dx_request))
            for i in range(n):
                rows[i].now = group[i].now
                rows[i].done = put_done(&arena, group[i].done)
                rows[i].appetite = put_appetite(&arena, group[i].appetite)
            with nogil:
                code = self.store.exchange(self.store.self, rows, n, &out, &error)
            if code != DX_OK:
                out.memory = NULL  # a verb that failed left nothing to release
                self.check(code, &error)
            try:
                self.check(code, &error)
                return [get_taken(&out.taken[i], rows[i].done) for i in range(n)]
            except Exception as lost:
                raise AnswerLost(f"exchange: written, but the answer is lost: {type(lost).__name__} {lost}") from lost
        finally:
            self.leave(&arena, out.memory)

    def load(self, str instance not None, execution_id=None, int64_t after=0):
        cdef dx_arena arena
        cdef dx_str key
        cdef int64_t execution = 0 if execution_id is None else execution_id
        cdef dx_loaded out
        cdef dx_error error
        cdef int code
        arena.last = NULL
        memset(&out, 0, sizeof(out))
        error.message[0] = error.operation[0] = 0
        put(&key, instance)
        self.enter()
        try:
            with nogil:
                code = self.store.load(self.store.self, key, execution, after, &out, &error)
            if code != DX_OK:
                out.memory = NULL  # a verb that failed left nothing to release
            self.check(code, &error)
            return get_loaded(instance, &out) if out.found else None
        finally:
            self.leave(&arena, out.memory)

    def renew(self, renewal):
        cdef list leases = list(renewal.leases), work = list(renewal.work)
        cdef dx_arena arena
        cdef dx_renewal row
        cdef dx_renewed out
        cdef dx_error error
        cdef int code
        arena.last = NULL
        memset(&out, 0, sizeof(out))
        error.message[0] = error.operation[0] = 0
        self.enter()
        try:
            row.now = renewal.now
            row.leases, row.n_leases, row.lease_ms = put_lease_keys(&arena, leases), len(leases), renewal.lease_ms
            row.work, row.n_work, row.work_lease_ms = put_work_keys(&arena, work), len(work), renewal.work_lease_ms
            put(&row.session_owner, renewal.session_owner)
            row.session_lock_ms, row.session_idle_ms = renewal.session_lock_ms, renewal.session_idle_ms
            with nogil:
                code = self.store.renew(self.store.self, &row, &out, &error)
            if code != DX_OK:
                out.memory = NULL  # a verb that failed left nothing to release
            self.check(code, &error)
            return Renewed(get_ids(out.lost_leases, out.n_lost_leases), get_ids(out.lost_work, out.n_lost_work), out.sessions)
        finally:
            self.leave(&arena, out.memory)

    def close(self):
        if self.closed:
            return
        self.closed = True
        if self.running == 0:
            self.idle.set()
        self.idle.wait()
        cdef dx_error error
        with nogil:
            self.store.close(self.store.self)
        self.check(DX_OK, &error)

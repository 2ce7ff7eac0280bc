"""The C store on APSW's own SQLite: `CapsuleStore(open_store(writer, reader))` is a Store.

This module *is* a SQLite loadable extension: APSW loads it once, SQLite hands it its routine table, and from then on C runs on
`connection.sqlite3_pointer()` in APSW's copy, GIL released. Owns statements and connections; knows no tables, files or pragmas.
"""

import threading

import apsw
cimport cython
from cpython.pycapsule cimport PyCapsule_GetContext, PyCapsule_New, PyCapsule_SetContext
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc

from duroxide.storage.base import StoreError
from duroxide.storage.sqlite_sql import HOT


cdef extern from "duroxide_store.h" nogil:
    const char *DX_CAPSULE
    uint32_t DX_ABI
    ctypedef struct dx_str:
        pass
    ctypedef struct dx_error:
        int retryable
        char operation[32]
        char message[472]
    ctypedef struct dx_request:
        pass
    ctypedef struct dx_exchanged:
        pass
    ctypedef struct dx_loaded:
        pass
    ctypedef struct dx_renewal:
        pass
    ctypedef struct dx_renewed:
        pass
    ctypedef struct dx_store_v1:
        uint32_t abi
        uint32_t size
        void *self
        int (*exchange)(void *, const dx_request *, int64_t, dx_exchanged *, dx_error *) noexcept nogil
        int (*load)(void *, dx_str, int64_t, int64_t, dx_loaded *, dx_error *) noexcept nogil
        int (*renew)(void *, const dx_renewal *, dx_renewed *, dx_error *) noexcept nogil
        void (*release)(void *, void *) noexcept nogil
        void (*close)(void *) noexcept nogil

cdef extern from "sqlite_store.h" nogil:
    ctypedef struct sqlite3:
        pass
    ctypedef struct dx_sqlite:
        void (*on_close)(void *) noexcept nogil
        void *owner
    int DX_STATEMENT_COUNT
    const char *dx_statement_names[]
    dx_sqlite *dx_sqlite_open(sqlite3 *, sqlite3 *, const char **, dx_error *) noexcept
    void dx_sqlite_close(void *) noexcept
    void dx_sqlite_free(dx_sqlite *) noexcept
    int dx_sqlite_exchange(void *, const dx_request *, int64_t, dx_exchanged *, dx_error *) noexcept
    int dx_sqlite_load(void *, dx_str, int64_t, int64_t, dx_loaded *, dx_error *) noexcept
    int dx_sqlite_renew(void *, const dx_renewal *, dx_renewed *, dx_error *) noexcept
    void dx_sqlite_release(void *, void *) noexcept
    int64_t dx_sqlite_version(dx_sqlite *, dx_error *) noexcept


_loading = threading.Lock()
_loaded = False


def _load():
    """Makes APSW's SQLite hand over its routine table; once a process."""
    global _loaded
    with _loading:
        if _loaded:
            return
        private = apsw.Connection(":memory:")
        try:
            private.enable_load_extension(True)
            private.load_extension(__file__, "sqlite3_duroxide_init")
        except (apsw.Error, AttributeError) as error:
            raise StoreError(
                f"APSW's SQLite {apsw.sqlite_lib_version()} does not load the C store from {__file__}: {error};"
                " it needs SQLite 3.46 or newer (below 4) built with extension loading",
                operation="open",
            ) from error
        finally:
            private.close()
        _loaded = True


@cython.no_gc  # a collector's clear would drop the connections before the statements on them are finalized
@cython.final
cdef class _Owner:
    """Owns the C store and, beneath it, the connections; the capsule keeps it alive."""

    cdef dx_sqlite *store
    cdef dx_store_v1 table
    cdef object writer, reader

    def __cinit__(self):
        self.store = NULL

    def __dealloc__(self):
        if self.store != NULL:
            self.store.on_close = NULL
            dx_sqlite_free(self.store)

    cdef int open(self, object writer, object reader) except -1:
        cdef dx_error error
        cdef sqlite3 *write_to = <sqlite3 *> <size_t> writer.sqlite3_pointer()
        cdef sqlite3 *read_from = NULL if reader is None else <sqlite3 *> <size_t> reader.sqlite3_pointer()
        cdef list texts = [HOT[dx_statement_names[i].decode()].encode() for i in range(DX_STATEMENT_COUNT)]
        cdef const char **sql = <const char **> malloc(len(texts) * sizeof(char *))
        if sql == NULL:
            raise MemoryError
        for i, text in enumerate(texts):
            sql[i] = text
        error.message[0] = error.operation[0] = 0
        self.store = dx_sqlite_open(write_to, read_from, sql, &error)
        free(sql)
        if self.store == NULL:
            raise StoreError(error.message.decode("utf-8", "replace"), operation="open", retryable=bool(error.retryable))
        self.store.on_close = _close_connections
        self.store.owner = <void *> self
        self.writer, self.reader = writer, reader
        self.table.abi = DX_ABI
        self.table.size = sizeof(dx_store_v1)
        self.table.self = self.store
        self.table.exchange = dx_sqlite_exchange
        self.table.load = dx_sqlite_load
        self.table.renew = dx_sqlite_renew
        self.table.release = dx_sqlite_release
        self.table.close = dx_sqlite_close
        return 0


cdef void _close_connections(void *pointer) noexcept with gil:
    cdef _Owner owner = <_Owner> pointer
    if owner.reader is not None:
        owner.reader.close()
    owner.writer.close()


cdef void _drop(object capsule) noexcept:
    Py_DECREF(<object> PyCapsule_GetContext(capsule))


def open_store(writer, reader=None):
    """Takes over two APSW connections to one prepared file (or one to ":memory:") and returns the capsule `duroxide.store_v1`.

    The schema, `sqlite_sql.INDEXES` and all pragmas must be in place. `writer` serves exchange and renew, `reader` load and mere
    checks; None: `writer` serves all. From here on both belong to the store: their busy handler is replaced, nobody else may use
    them, except that cold statements may run on a single connection between verbs, under a lock of the caller's that keeps verbs
    out, and outside any transaction. Closing the CapsuleStore closes both. Raises StoreError, and leaves the connections open,
    if the C store cannot run on them.
    """
    cdef _Owner owner = _Owner.__new__(_Owner)
    _load()
    owner.open(writer, reader)
    capsule = PyCapsule_New(&owner.table, DX_CAPSULE, _drop)
    Py_INCREF(owner)
    PyCapsule_SetContext(capsule, <void *> owner)
    return capsule


def data_version(capsule):
    """A number that moves when somebody has committed past the store that `open_store` made; waits for the verb that runs.

    Not after the store was closed, and not while. StoreError if SQLite fails.
    """
    cdef _Owner owner = <_Owner> PyCapsule_GetContext(capsule)
    cdef dx_error error
    cdef int64_t version
    error.retryable = 0
    error.message[0] = error.operation[0] = 0
    with nogil:
        version = dx_sqlite_version(owner.store, &error)
    if version < 0:
        raise StoreError(error.message.decode("utf-8", "replace"), operation="version", retryable=bool(error.retryable))
    return version

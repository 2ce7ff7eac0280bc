# cython: language_level=3
"""Lists of numbers and texts in the binary form of PostgreSQL's arrays.

Owns the layout of `bigint[]` and `text[]`. Refuses to know what the values mean and how they are sent.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memchr, memcpy
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef enum:
    INT8 = 20
    TEXT = 25
    HEADER = 20  # dimensions, whether there are nulls, type; length and lower bound of the one dimension


cdef inline void put32(char *at, uint32_t value) noexcept:
    cdef unsigned char *to = <unsigned char *> at
    to[0] = value >> 24
    to[1] = (value >> 16) & 255
    to[2] = (value >> 8) & 255
    to[3] = value & 255


cdef inline void put64(char *at, uint64_t value) noexcept:
    put32(at, <uint32_t> (value >> 32))
    put32(at + 4, <uint32_t> (value & 0xFFFFFFFF))


cdef inline void put_header(char *at, Py_ssize_t count, bint nulls, uint32_t kind) noexcept:
    put32(at, 1)
    put32(at + 4, nulls)
    put32(at + 8, kind)
    put32(at + 12, <uint32_t> count)
    put32(at + 16, 1)


def int8s(list values):
    """`bigint[]` of numbers and Nones; None for an empty list. OverflowError beyond 64 bits."""
    cdef Py_ssize_t count = len(values), size = HEADER + 4 * count
    cdef bint nulls = False
    cdef char *at
    if not count:
        return None
    for value in values:
        if value is None:
            nulls = True
        else:
            size += 8
    made = PyBytes_FromStringAndSize(NULL, size)
    at = PyBytes_AS_STRING(made)
    put_header(at, count, nulls, INT8)
    at += HEADER
    for value in values:
        if value is None:
            put32(at, <uint32_t> -1)
            at += 4
        else:
            put32(at, 8)
            put64(at + 4, <uint64_t> <int64_t> value)
            at += 12
    return made


def texts(list values):
    """`text[]` of texts and Nones; None for an empty list. ValueError for a NUL character, UnicodeEncodeError for a lone surrogate."""
    cdef Py_ssize_t count = len(values), size = HEADER + 4 * count, length
    cdef bint nulls = False
    cdef const char *text
    cdef char *at
    if not count:
        return None
    for value in values:
        if value is None:
            nulls = True
            continue
        text = PyUnicode_AsUTF8AndSize(value, &length)
        if memchr(text, 0, length) != NULL:
            raise ValueError(f"PostgreSQL stores no text with a NUL character: {value[:80]!r}")
        size += length
    made = PyBytes_FromStringAndSize(NULL, size)
    at = PyBytes_AS_STRING(made)
    put_header(at, count, nulls, TEXT)
    at += HEADER
    for value in values:
        if value is None:
            put32(at, <uint32_t> -1)
            at += 4
        else:
            text = PyUnicode_AsUTF8AndSize(value, &length)
            put32(at, <uint32_t> length)
            memcpy(at + 4, text, length)
            at += 4 + length
    return made

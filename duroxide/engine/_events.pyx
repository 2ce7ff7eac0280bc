# cython: language_level=3
"""Stored events, read but not decoded: their kinds, ids and numbers, and where their texts stand until somebody asks for one.

Owns what an event's JSON text may look like: of the shape that we write it is scanned (csrc/event_text.c), any other is read by `json`,
and both are asked in the same way. Refuses to know what an event does.
"""

import json
from json.decoder import scanstring

from duroxide.events import EVENT_SHAPES, KINDS, misshapen

from duroxide.engine._codec import read

from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.ref cimport PyObject
from libc.string cimport memchr, memcmp


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    object PyUnicode_DecodeUTF8(const char *text, Py_ssize_t size, const char *errors)
    bint PyUnicode_IS_ASCII(object text)


cdef dict KIND_OF = {kind: at for at, kind in enumerate(KINDS)}

# What a completion or a cancel event belongs to has to be said.
cdef tuple LINKED = (
    ACTIVITY_COMPLETED, ACTIVITY_FAILED, TIMER_FIRED, CHILD_COMPLETED, CHILD_FAILED, ACTIVITY_CANCEL, CHILD_CANCEL, EVENT_CANCELLED,
    QUEUE_CANCELLED,
)


class CorruptHistory(Exception):
    """Stored events that cannot be read."""


cdef class History:
    """The events of one execution, by place. Of a `dx_event` with `other` >= 0 only that and `kind` are set,
    and by `resolve` its numbers."""

    def __cinit__(self):
        self.texts, self.others = [], []

    def __dealloc__(self):
        PyMem_Free(self.events)

    cdef int add(self, id, str text) except -1:
        """CorruptHistory for what is no event."""
        cdef Py_ssize_t size
        cdef const char *bytes
        if self.count == self.room:
            self.grow(2 * self.room + 16)
        self.texts.append(text)
        try:
            bytes = PyUnicode_AsUTF8AndSize(text, &size)
        except UnicodeEncodeError:  # a lone surrogate
            return self.add_other(id, text)
        if not dx_scan_event(&self.scanner, bytes, size, &self.events[self.count]):
            return self.add_other(id, text)
        self.count += 1
        return 0

    cdef int grow(self, Py_ssize_t room) except -1:
        cdef void *larger = PyMem_Realloc(self.events, room * sizeof(dx_event))
        if larger == NULL:
            raise MemoryError
        self.events, self.room = <dx_event *>larger, room
        return 0

    cdef int add_other(self, id, str text) except -1:
        cdef dx_event *event = &self.events[self.count]
        try:
            fields = json.loads(text)
            kind = fields["type"]
            known = kind in KIND_OF
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptHistory(f"event {id}: {type(error).__name__}: {error}")
        if not known:
            raise CorruptHistory(f"event {id}: unknown variant `{kind}`")
        event.kind = KIND_OF[kind]
        event.other = len(self.others)
        self.others.append(fields)
        self.count += 1
        return 0

    cdef int check(self, id, dx_event *event) except -1:
        """CorruptHistory where the event stored as `id` is not the next one, or not as its kind must be."""
        cdef Py_ssize_t place = event - self.events + 1
        cdef str kind
        if event.other >= 0:
            said = (<dict>self.others[event.other]).get("event_id")
        elif event.id == place and <long long>id == place and event.source < place and event.source != 0:
            return 0  # the usual one: the scanner takes no other kinds of values, and no completion without its source
        else:
            said = event.id
        if id != place or said != place:
            raise CorruptHistory(f"event {id} is the {place}th, and says that it is event {said!r:.40}")
        kind = KINDS[event.kind]
        if event.other >= 0:
            wrong = misshapen(self.others[event.other], EVENT_SHAPES[kind])
            if wrong is not None:
                raise CorruptHistory(f"event {id}: {kind}: {wrong}")
            self.resolve(event)
        if event.kind in LINKED and not 0 < event.source < place:
            raise CorruptHistory(f"event {id}: {kind} of event {event.source}")
        return 0

    cdef int resolve(self, dx_event *event) except -1:
        """Fill the numbers of an event that was not scanned. KeyError or TypeError where they are not as they must be."""
        fields = <dict>self.others[event.other]
        event.id = fields["event_id"]
        if event.kind in LINKED:
            event.source = fields["source_event_id"]
        elif event.kind == KV_UPDATED:
            event.number = fields.get("last_updated_at_ms") or 0
        return 0

    cdef dict fields(self, dx_event *event):
        """All fields of an event, decoded."""
        return self.others[event.other] if event.other >= 0 else json.loads(self.texts[event - self.events])

    cdef object need(self, dx_event *event, int slot, str key):
        """A text field; `key` is its name. KeyError where it is missing."""
        if event.other >= 0:
            return (<dict>self.others[event.other])[key]
        return decoded(event.text + event.slots[slot].at, event.slots[slot].size, event.slots[slot].escaped)

    cdef object maybe(self, dx_event *event, int slot, str key):
        """A text field, or None."""
        if event.other >= 0:
            return (<dict>self.others[event.other]).get(key)
        return None if event.slots[slot].size < 0 else self.need(event, slot, key)

    cdef bint same(self, dx_event *event, int slot, str key, str value) except -1:
        """Whether a text field that must be there is `value`."""
        cdef Py_ssize_t size
        cdef const char *plain
        cdef int found = -1
        if event.other < 0 and value is not None and PyUnicode_IS_ASCII(value):
            plain = PyUnicode_AsUTF8AndSize(value, &size)
            found = dx_span_equals(event, slot, plain, size)
        return found if found >= 0 else value == self.need(event, slot, key)

    cdef bint same_or_none(self, dx_event *event, int slot, str key, str value) except -1:
        """Whether a text field that may be missing is `value`, which may be None."""
        if event.other >= 0:
            return value == (<dict>self.others[event.other]).get(key)
        if event.slots[slot].size < 0 or value is None:
            return value is None and event.slots[slot].size < 0
        return self.same(event, slot, key, value)

    cdef object value(self, dx_event *event):
        """The result in a completion, as the code gets it."""
        cdef const char *at
        cdef Py_ssize_t size
        if event.other >= 0:
            return read((<dict>self.others[event.other]).get("result"))
        at, size = event.text + event.slots[PAYLOAD].at, event.slots[PAYLOAD].size
        if event.slots[PAYLOAD].escaped:
            if size >= 4 and at[0] == b"\\" and at[1] == b'"' and at[size - 2] == b"\\" and at[size - 1] == b'"':
                if memchr(at + 2, b"\\", size - 4) == NULL:  # a text in plain letters: its two layers of quotes are all there is to undo
                    return PyUnicode_DecodeUTF8(at + 2, size - 4, NULL)
        elif 0 < size < 19 and (size == 1 or at[0] != b"0") and all_digits(at, size):
            return number(at, size)
        elif size == 4 and memcmp(at, b"null", 4) == 0:
            return None
        elif size == 4 and memcmp(at, b"true", 4) == 0:
            return True
        elif size == 5 and memcmp(at, b"false", 5) == 0:
            return False
        return read(self.need(event, PAYLOAD, "result"))


cdef bint all_digits(const char *at, Py_ssize_t size) noexcept:
    cdef Py_ssize_t i
    for i in range(size):
        if not b"0" <= at[i] <= b"9":
            return False
    return True


cdef object number(const char *at, Py_ssize_t size):
    cdef long long found = 0
    cdef Py_ssize_t i
    for i in range(size):
        found = found * 10 + (at[i] - 48)
    return found


cdef str decoded(const char *at, Py_ssize_t size, bint escaped):
    """A scanned text value without its escapes."""
    cdef char small[512]
    cdef char *room = small
    cdef Py_ssize_t length
    if not escaped:
        return PyUnicode_DecodeUTF8(at, size, NULL)
    if size > 512:
        room = <char *>PyMem_Malloc(size)
        if room == NULL:
            raise MemoryError
    try:
        length = dx_unescape(at, size, room)
        if length >= 0:
            return PyUnicode_DecodeUTF8(room, length, NULL)
    finally:
        if room != small:
            PyMem_Free(room)
    return scanstring(PyUnicode_DecodeUTF8(at, size, NULL) + '"', 0, True)[0]


cdef History read_history(list events):
    """What a store loaded, [(event id, JSON text)], in order. CorruptHistory for what is no event, and for no events."""
    cdef History history = History()
    history.grow(len(events) + 8)
    for id, text in events:
        history.add(id, text)
        history.check(id, &history.events[history.count - 1])
    if history.count == 0:
        raise CorruptHistory("corrupted history: empty")
    if history.events[0].kind != STARTED:
        raise CorruptHistory("corrupted history: first event must be OrchestrationStarted")
    return history


def described(list events):
    """Each stored event as (kind, id, source, number, name, payload, where, tag): how it was read, for tests. What was not
    scanned is a dict."""
    cdef History history = History()
    cdef dx_event *event
    cdef Py_ssize_t at
    for id, text in events:
        history.add(id, text)
    found = []
    for at in range(history.count):
        event = &history.events[at]
        if event.other >= 0:
            found.append(history.fields(event))
        else:
            texts = [history.maybe(event, slot, None) for slot in (NAME, PAYLOAD, WHERE, TAG)]
            found.append((KINDS[event.kind], event.id, None if event.source < 0 else event.source, event.number, *texts))
    return found

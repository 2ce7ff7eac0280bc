# cython: language_level=3
"""History matching: one stored event against the oldest command that the code emitted, and the texts of a mismatch.

Owns what replay compares (reference texts, users match on them). Refuses to know how commands are made or results delivered.
"""

from libc.string cimport memset

from duroxide.engine._events cimport (
    ACTIVITY_SCHEDULED, CHAINED, CHILD_SCHEDULED, EVENT_SUBSCRIBED, KINDS_COUNT, KV_EMPTIED, KV_REMOVED, KV_UPDATED, NAME, PAYLOAD,
    QUEUE_SUBSCRIBED, STATUS_UPDATED, TAG, TIMER_CREATED, WHERE, History, dx_event,
)
from duroxide.engine._tasks cimport (
    ACTIVITY, CHILD, CONTINUE, DEQUEUE, DETACHED, KV_CLEAR, KV_CLEAR_ALL, KV_SET, STATUS, TIMER, WAIT, Leaf,
)

cdef dict ESCAPES = {"\t": "\\t", "\r": "\\r", "\n": "\\n", '"': '\\"', "\\": "\\\\", "\0": "\\0"}

# The command that a kind of event records, by kind; -1: none.
cdef signed char COMMANDS[KINDS_COUNT]
memset(COMMANDS, -1, sizeof(COMMANDS))
COMMANDS[<int>ACTIVITY_SCHEDULED] = ACTIVITY
COMMANDS[<int>TIMER_CREATED] = TIMER
COMMANDS[<int>CHILD_SCHEDULED] = CHILD
COMMANDS[<int>EVENT_SUBSCRIBED] = WAIT
COMMANDS[<int>QUEUE_SUBSCRIBED] = DEQUEUE
COMMANDS[<int>CHAINED] = DETACHED
COMMANDS[<int>STATUS_UPDATED] = STATUS
COMMANDS[<int>KV_UPDATED] = KV_SET
COMMANDS[<int>KV_REMOVED] = KV_CLEAR
COMMANDS[<int>KV_EMPTIED] = KV_CLEAR_ALL

# Commands that may be absent from the code.
cdef dict TOLERANT = {
    STATUS: "custom status", KV_SET: "kv set", KV_CLEAR: "kv clear", KV_CLEAR_ALL: "kv clear_all",
}


class Nondeterminism(Exception):
    """The code does not ask for what history holds. `str()` is the text without its prefix."""


def debug(text):
    """A string or None in the quoted form of the texts: `"a\\"b"`, `None`, as an option `Some("x")` is written by the caller."""
    if text is None:
        return "None"
    return '"' + "".join([ESCAPES.get(c) or (c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text]) + '"'


def option(text):
    return "None" if text is None else f"Some({debug(text)})"


cdef str action(Leaf leaf):
    """The command as the mismatch texts show it."""
    kind = leaf.kind
    if kind == ACTIVITY:
        return (
            f"CallActivity {{ scheduling_event_id: 0, name: {debug(leaf.name)}, input: {debug(leaf.input)}, "
            f"session_id: {option(leaf.where)}, tag: {option(leaf.tag)} }}"
        )
    if kind == TIMER:
        return f"CreateTimer {{ scheduling_event_id: 0, fire_at_ms: {leaf.number} }}"
    if kind == WAIT:
        return f"WaitExternal {{ scheduling_event_id: 0, name: {debug(leaf.name)} }}"
    if kind == DEQUEUE:
        return f"DequeueEvent {{ scheduling_event_id: 0, name: {debug(leaf.name)} }}"
    if kind == CHILD:
        instance = f"sub::pending_{leaf.token}" if leaf.where is None else leaf.where
        return (
            f"StartSubOrchestration {{ scheduling_event_id: 0, name: {debug(leaf.name)}, version: {option(leaf.version)}, "
            f"instance: {debug(instance)}, input: {debug(leaf.input)} }}"
        )
    if kind == DETACHED:
        return (
            f"StartOrchestrationDetached {{ scheduling_event_id: 0, name: {debug(leaf.name)}, version: {option(leaf.version)}, "
            f"instance: {debug(leaf.where)}, input: {debug(leaf.input)} }}"
        )
    if kind == CONTINUE:
        return f"ContinueAsNew {{ input: {debug(leaf.input)}, version: {option(leaf.version)} }}"
    if kind == STATUS:
        return f"UpdateCustomStatus {{ status: {option(leaf.input)} }}"
    if kind == KV_SET:
        return f"SetKeyValue {{ key: {debug(leaf.name)}, value: {debug(leaf.input)}, last_updated_at_ms: {leaf.number} }}"
    if kind == KV_CLEAR:
        return f"ClearKeyValue {{ key: {debug(leaf.name)} }}"
    return "ClearKeyValues"


cdef str shown(dict event):
    """The event as the mismatch texts show it."""
    kind = event["type"]
    if kind == "ActivityScheduled":
        return (
            f"ActivityScheduled {{ name: {debug(event['name'])}, input: {debug(event['input'])}, "
            f"session_id: {option(event.get('session_id'))}, tag: {option(event.get('tag'))} }}"
        )
    if kind == "TimerCreated":
        return f"TimerCreated {{ fire_at_ms: {event['fire_at_ms']} }}"
    if kind in ("SubOrchestrationScheduled", "OrchestrationChained"):
        return (
            f"{kind} {{ name: {debug(event['name'])}, instance: {debug(event['instance'])}, input: {debug(event['input'])} }}"
        )
    if kind == "CustomStatusUpdated":
        return f"CustomStatusUpdated {{ status: {option(event['status'])} }}"
    if kind == "KeyValueSet":
        return (
            f"KeyValueSet {{ key: {debug(event['key'])}, value: {debug(event['value'])}, "
            f"last_updated_at_ms: {event.get('last_updated_at_ms', 0)} }}"
        )
    if kind == "KeyValueCleared":
        return f"KeyValueCleared {{ key: {debug(event['key'])} }}"
    if kind == "KeyValuesCleared":
        return "KeyValuesCleared"
    word = "QueueSubscribed" if kind == "ExternalSubscribedPersistent" else kind
    return f"{word} {{ name: {debug(event['name'])} }}"


cdef bint equal(Leaf leaf, int kind, History history, dx_event *event) except -1:
    if leaf.kind != kind:
        return False
    if kind == ACTIVITY:
        return (
            history.same(event, NAME, "name", leaf.name) and history.same(event, PAYLOAD, "input", leaf.input)
            and history.same_or_none(event, WHERE, "session_id", leaf.where) and history.same_or_none(event, TAG, "tag", leaf.tag)
        )
    if kind == WAIT or kind == DEQUEUE:
        return history.same(event, NAME, "name", leaf.name)
    if kind == CHILD:
        return history.same(event, NAME, "name", leaf.name) and history.same(event, PAYLOAD, "input", leaf.input)
    if kind == DETACHED:
        return (
            history.same(event, NAME, "name", leaf.name) and history.same(event, WHERE, "instance", leaf.where)
            and history.same(event, PAYLOAD, "input", leaf.input)
        )
    if kind == KV_SET:
        return history.same(event, NAME, "key", leaf.name) and history.same(event, PAYLOAD, "value", leaf.input)
    return True  # timers, status, clear all: the kind is enough


cdef int command_of(int event_kind) noexcept:
    """The kind of command that events of this kind record, or -1."""
    return COMMANDS[event_kind]


cdef Leaf take_match(object commands, History history, dx_event *event):
    """Removes the command that `event` records from the head of `commands` (a deque) and returns it; None where an absent one
    is tolerated. Nondeterminism on a mismatch."""
    cdef int kind = COMMANDS[event.kind]
    cdef Leaf leaf
    if not commands:
        if kind in TOLERANT:
            return None
        what = "OrchestrationChained" if kind == DETACHED else "schedule"
        raise Nondeterminism(f"history {what} but no emitted action")
    if kind == KV_CLEAR:
        return take_clear(commands, history, event)
    leaf = commands[0]
    if not equal(leaf, kind, history, event):
        what = TOLERANT.get(kind, "schedule")
        raise Nondeterminism(f"{what} mismatch: action={action(leaf)} vs event={shown(history.fields(event))}")
    commands.popleft()
    return leaf


cdef Leaf take_clear(object commands, History history, dx_event *event):
    """Clears match anywhere within the leading run of clears: their order was once not fixed."""
    cdef Leaf leaf
    cdef Py_ssize_t i
    for i in range(len(commands)):
        leaf = commands[i]
        if leaf.kind != KV_CLEAR:
            break
        if history.same(event, NAME, "key", leaf.name):
            del commands[i]
            return leaf
    raise Nondeterminism(f"kv clear mismatch: action={action(commands[0])} vs event={shown(history.fields(event))}")

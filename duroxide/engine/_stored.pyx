# cython: language_level=3
"""Stored history against the code: indexing it, replaying it event by event, and what it says waits where the code does not fit.

Owns the checks that make a changed function a Nondeterminism. Refuses to know new messages and outcomes, and JSON.
"""

from duroxide.engine._history import Nondeterminism

from duroxide.engine._channels cimport Channel
from duroxide.engine._events cimport (
    ACTIVITY_CANCEL, ACTIVITY_COMPLETED, ACTIVITY_FAILED, ACTIVITY_SCHEDULED, CANCEL_REQUESTED, CHILD_CANCEL, CHILD_COMPLETED,
    CHILD_FAILED, CHILD_SCHEDULED, EVENT_ARRIVED, EVENT_CANCELLED, EVENT_SUBSCRIBED, KINDS_COUNT, KV_UPDATED, NAME, PAYLOAD,
    QUEUE_ARRIVED, QUEUE_CANCELLED, QUEUE_SUBSCRIBED, TIMER_CREATED, TIMER_FIRED, WHERE, History, dx_event,
)
from duroxide.engine._execution cimport (
    CANCELLED, CLOSED, COMPLETED, FAILED, IS_ACTIVITY, IS_CHILD, IS_DEQUEUE, IS_TIMER, IS_WAIT, Execution, full_child_id,
)
from duroxide.engine._history cimport command_of, take_match
from duroxide.engine._tasks cimport ACTIVITY, CHILD, DEQUEUE, TIMER, WAIT, Leaf, leaf_of

# What an event does, by its kind.
cdef enum:
    SCHEDULES, COMPLETES, FAILS, CANCELS, ARRIVES, OTHER

cdef signed char DOES[KINDS_COUNT]
cdef signed char OF[KINDS_COUNT]     # SCHEDULES: the mark of it; COMPLETES, FAILS: kind of the command; CANCELS: place in CANCEL_ORDER


cdef int does(int kind, int what, int of) except -1:
    DOES[kind], OF[kind] = what, of
    return 0


for kind in range(KINDS_COUNT):
    does(kind, OTHER, 0)
does(ACTIVITY_SCHEDULED, SCHEDULES, IS_ACTIVITY)
does(TIMER_CREATED, SCHEDULES, IS_TIMER)
does(CHILD_SCHEDULED, SCHEDULES, IS_CHILD)
does(EVENT_SUBSCRIBED, SCHEDULES, IS_WAIT)
does(QUEUE_SUBSCRIBED, SCHEDULES, IS_DEQUEUE)
does(ACTIVITY_COMPLETED, COMPLETES, ACTIVITY)
does(TIMER_FIRED, COMPLETES, TIMER)
does(CHILD_COMPLETED, COMPLETES, CHILD)
does(ACTIVITY_FAILED, FAILS, ACTIVITY)
does(CHILD_FAILED, FAILS, CHILD)
does(ACTIVITY_CANCEL, CANCELS, 0)
does(CHILD_CANCEL, CANCELS, 1)
does(EVENT_CANCELLED, CANCELS, 2)
does(QUEUE_CANCELLED, CANCELS, 3)
does(EVENT_ARRIVED, ARRIVES, False)
does(QUEUE_ARRIVED, ARRIVES, True)

cdef tuple CANCEL_ORDER = ("activities", "sub-orchestrations", "external waits", "persistent waits")
cdef dict CANCEL_OF = {ACTIVITY: 0, CHILD: 1, WAIT: 2, DEQUEUE: 3}
cdef dict KIND_NAMES = {ACTIVITY: "activity", TIMER: "timer", CHILD: "suborchestration"}


cdef int index(Execution execution, History history) except -1:
    """Note what stored events schedule, complete and cancel, without running code."""
    cdef dx_event *event
    cdef Py_ssize_t at
    cdef int what
    for at in range(history.count):
        event = &history.events[at]
        if event.other >= 0:
            history.resolve(event)
        what = DOES[event.kind]
        if what == SCHEDULES:
            execution.mark(event.id, OF[event.kind])
            if event.kind == CHILD_SCHEDULED and event.other >= 0:
                target_of(execution, history, event)  # raises now what must not be raised later
        elif what == COMPLETES or what == FAILS:
            execution.mark(event.source, CLOSED)
        elif what == CANCELS:
            execution.mark(event.source, CANCELLED)
        elif event.kind == KV_UPDATED:
            execution.set_times.append(event.number)
        elif event.kind == CANCEL_REQUESTED and execution.cancel_reason is None:
            execution.cancel_reason = history.need(event, PAYLOAD, "reason")
        execution.last_event_id = event.id
    for at in range(history.count):
        event = &history.events[at]
        if event.kind == CHILD_SCHEDULED and not execution.kind_at(event.id) & CLOSED:
            execution.targets[event.id] = target_of(execution, history, event)
    return 0


cdef str target_of(Execution execution, History history, dx_event *event):
    """The full id of the child that the event schedules."""
    return full_child_id(execution.instance, history.need(event, WHERE, "instance"))


cdef int replay(Execution execution, History history) except -1:
    """Walk stored events against the code. Nondeterminism where they do not fit."""
    cdef Py_ssize_t at
    execution.flag = 1
    for at in range(history.count):
        if execution.flag:
            execution.flag = 1
            execution.poll()
        if execution.state == COMPLETED or execution.state == FAILED:
            note_early_end(execution, history, at)
            break
        apply_stored(execution, history, &history.events[at])
    if execution.flag:
        execution.flag = 1
        execution.poll()
    return check_cancels(execution, history)


cdef object note_early_end(Execution execution, History history, Py_ssize_t at):
    cdef Py_ssize_t i
    left = [history.events[i].id for i in range(at, history.count) if command_of(history.events[i].kind) >= 0]
    left = left[len(execution.commands):]
    if left:
        execution.warnings.append(
            f"orchestration '{execution.name}' ended at event {at}, but its history goes on: event {left[0]} was asked for by code "
            "that is no longer there; was the function changed while this instance was running?"
        )


cdef int apply_stored(Execution execution, History history, dx_event *event) except -1:
    cdef Leaf leaf
    cdef int what = DOES[event.kind]
    if command_of(event.kind) >= 0:
        if execution.stale:  # the first command after a turn's arrivals, see `settle`
            execution.cancel_dropped()
            if execution.flag:
                execution.flag = 1
                execution.poll()
        leaf = take_match(execution.commands, history, event)
        if leaf is not None:
            execution.bind(leaf, event.id, target_of(execution, history, event) if leaf.kind == CHILD else None)
    elif what == COMPLETES:
        return complete_stored(execution, history, event)
    elif what == FAILS:
        check_kind(execution.open.get(event.source), OF[event.kind])
        execution.complete(event.source, history.fields(event)["details"], True)
    elif what == ARRIVES:
        execution.arrive(OF[event.kind], history.need(event, NAME, "name"), history.need(event, PAYLOAD, "data"))
    elif execution.legacy and (event.kind == EVENT_CANCELLED or event.kind == QUEUE_CANCELLED):
        cancel_replayed(execution, event.source)
    return 0


cdef int complete_stored(Execution execution, History history, dx_event *event) except -1:
    """As `Execution.complete`; the result is decoded only if somebody gets it."""
    cdef Leaf leaf = execution.open.pop(event.source, None)
    check_kind(leaf, OF[event.kind])
    execution.flag = 2
    if leaf is None:
        raise Nondeterminism("completion without open schedule")
    if leaf.is_dropped:
        return 0
    if leaf.kind == TIMER:
        return leaf.finish(execution, None, False)
    if leaf.syscall and leaf.name.endswith("new_guid"):
        return leaf.finish(execution, history.need(event, PAYLOAD, "result"), False)
    return leaf.finish(execution, history.value(event), False)


cdef int check_kind(Leaf leaf, int kind) except -1:
    if leaf is not None and leaf.kind != kind:
        raise Nondeterminism(f"completion kind mismatch: expected {KIND_NAMES[kind]}")
    return 0


cdef object cancel_replayed(Execution execution, id):
    cdef Channel channel
    for channel in (*execution.events.values(), *execution.queues.values()):
        channel.cancel_replayed(id)


cdef int adopt_waits(Execution execution, History history) except -1:
    """The code does not fit these events, so what waits is read from them alone."""
    cdef Channel channel
    cdef Leaf leaf
    cdef dx_event *event
    cdef Py_ssize_t at
    execution.events, execution.queues = {}, {}
    leaves = {}
    for at in range(history.count):
        event = &history.events[at]
        if event.other >= 0:
            history.resolve(event)
        if event.kind == EVENT_SUBSCRIBED or event.kind == QUEUE_SUBSCRIBED:
            name = history.need(event, NAME, "name")
            leaf = leaves[event.id] = leaf_of(WAIT if event.kind == EVENT_SUBSCRIBED else DEQUEUE, name, None)
            execution.bind(leaf, event.id, None)
        elif DOES[event.kind] == ARRIVES:
            execution.arrive(OF[event.kind], history.need(event, NAME, "name"), history.need(event, PAYLOAD, "data"))
        elif event.kind == EVENT_CANCELLED or event.kind == QUEUE_CANCELLED:
            leaf = leaves[event.source]
            channel = execution.channel(leaf.kind == DEQUEUE, leaf.name)
            if not leaf.done:
                leaf.is_dropped = True
                channel.dropped(leaf)
    return 0


cdef int check_cancels(Execution execution, History history) except -1:
    """Every stored cancel of a dropped future must have been made again by the code; those are not recorded twice."""
    cdef Leaf leaf
    cdef dx_event *event
    cdef Py_ssize_t at
    cdef int of
    stored = [set() for _ in CANCEL_ORDER]
    for at in range(history.count):
        event = &history.events[at]
        if DOES[event.kind] == CANCELS and history.same(event, PAYLOAD, "reason", "dropped_future"):
            (<set>stored[OF[event.kind]]).add(event.source)
    made = [set() for _ in CANCEL_ORDER]
    for leaf in execution.drops:
        (<set>made[CANCEL_OF[leaf.kind]]).add(leaf.id)
    for of in range(4):
        if not stored[of] <= made[of]:
            raise Nondeterminism(
                f"cancellation mismatch ({CANCEL_ORDER[of]}): baseline_dropped_future_cancel_requests={shown(stored[of])} "
                f"ctx_cancelled_in_replayed_segment={shown(made[of])}"
            )
    execution.drops = [leaf for leaf in execution.drops if leaf.id not in stored[CANCEL_OF[leaf.kind]]]
    return 0


cdef str shown(set ids):
    """A set of event ids as the texts show it."""
    return "{" + ", ".join(map(str, sorted(ids))) + "}"

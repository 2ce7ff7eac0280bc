# cython: language_level=3
"""Stored history against the code: indexing it, replaying it event by event, and what it says waits where the code does not fit.

Owns the checks that make a changed function a Nondeterminism. Refuses to know new messages and outcomes.
"""

from duroxide.engine._history import Nondeterminism, is_command

from duroxide.engine._channels cimport Channel
from duroxide.engine._execution cimport (
    CANCELLED, COMPLETED, FAILED, IS_ACTIVITY, IS_CHILD, IS_DEQUEUE, IS_TIMER, IS_WAIT, Execution, full_child_id,
)
from duroxide.engine._history cimport take_match
from duroxide.engine._tasks cimport ACTIVITY, CHILD, DEQUEUE, TIMER, WAIT, Leaf, leaf_of

cdef dict SCHEDULES = {
    "ActivityScheduled": IS_ACTIVITY, "TimerCreated": IS_TIMER, "SubOrchestrationScheduled": IS_CHILD,
    "ExternalSubscribed": IS_WAIT, "ExternalSubscribedPersistent": IS_DEQUEUE,
}  # fmt: skip
cdef dict COMPLETIONS = {
    "ActivityCompleted": ACTIVITY, "ActivityFailed": ACTIVITY, "TimerFired": TIMER, "SubOrchestrationCompleted": CHILD,
    "SubOrchestrationFailed": CHILD,
}  # fmt: skip
cdef dict CANCELS = {
    "ActivityCancelRequested": "activities", "SubOrchestrationCancelRequested": "sub-orchestrations",
    "ExternalSubscribedCancelled": "external waits", "ExternalSubscribedPersistentCancelled": "persistent waits",
}  # fmt: skip
cdef tuple CANCEL_ORDER = ("activities", "sub-orchestrations", "external waits", "persistent waits")
cdef dict CANCEL_OF = {ACTIVITY: "activities", CHILD: "sub-orchestrations", WAIT: "external waits", DEQUEUE: "persistent waits"}
cdef dict KIND_NAMES = {ACTIVITY: "activity", TIMER: "timer", CHILD: "suborchestration"}


cdef int index(Execution execution, list events) except -1:
    """Note what stored events (decoded) schedule, complete and cancel, without running code."""
    for event in events:
        kind, id = event["type"], event["event_id"]
        if kind in SCHEDULES:
            execution.mark(id, SCHEDULES[kind])
            if kind == "SubOrchestrationScheduled":
                execution.targets[id] = full_child_id(execution.instance, event["instance"])
        elif kind in COMPLETIONS:
            execution.close_schedule(event["source_event_id"])
        elif kind in CANCELS:
            execution.mark(event["source_event_id"], CANCELLED)
        elif kind == "KeyValueSet":
            execution.set_times.append(event.get("last_updated_at_ms", 0))
        elif kind == "OrchestrationCancelRequested" and execution.cancel_reason is None:
            execution.cancel_reason = event["reason"]
        execution.last_event_id = id
    return 0


cdef int replay(Execution execution, list events) except -1:
    """Walk stored events against the code. Nondeterminism where they do not fit."""
    cdef Py_ssize_t at
    execution.flag = 1
    for at in range(len(events)):
        if execution.flag:
            execution.flag = 1
            execution.poll()
        if execution.state == COMPLETED or execution.state == FAILED:
            note_early_end(execution, events, at)
            break
        apply_stored(execution, events[at])
    if execution.flag:
        execution.flag = 1
        execution.poll()
    return check_cancels(execution, events)


cdef object note_early_end(Execution execution, list events, Py_ssize_t at):
    left = [e["event_id"] for e in events[at:] if is_command(e["type"])][len(execution.commands):]
    if left:
        execution.warnings.append(
            f"orchestration '{execution.name}' ended at event {at}, but its history goes on: event {left[0]} was asked for by code "
            "that is no longer there; was the function changed while this instance was running?"
        )


cdef int apply_stored(Execution execution, dict event) except -1:
    cdef Leaf leaf
    cdef str kind = event["type"]
    cdef long long id = event["event_id"]
    if is_command(kind):
        if execution.stale:  # the first command after a turn's arrivals, see `settle`
            execution.cancel_dropped()
            if execution.flag:
                execution.flag = 1
                execution.poll()
        leaf = take_match(execution.commands, event)
        if leaf is not None:
            execution.bind(leaf, id, full_child_id(execution.instance, event["instance"]) if leaf.kind == CHILD else None)
    elif kind in COMPLETIONS:
        source = event["source_event_id"]
        leaf = execution.open.get(source)
        if leaf is not None and leaf.kind != COMPLETIONS[kind]:
            raise Nondeterminism(f"completion kind mismatch: expected {KIND_NAMES[COMPLETIONS[kind]]}")
        failed = kind.endswith("Failed")
        execution.complete(source, event["details"] if failed else event.get("result"), failed)
    elif kind == "ExternalEvent" or kind == "ExternalEventPersistent":
        execution.arrive(kind == "ExternalEventPersistent", event["name"], event["data"])
    elif execution.legacy and (kind == "ExternalSubscribedCancelled" or kind == "ExternalSubscribedPersistentCancelled"):
        cancel_replayed(execution, event["source_event_id"])
    return 0


cdef object cancel_replayed(Execution execution, id):
    cdef Channel channel
    for channel in (*execution.events.values(), *execution.queues.values()):
        channel.cancel_replayed(id)


cdef int adopt_waits(Execution execution, list events) except -1:
    """The code does not fit these events, so what waits is read from them alone."""
    cdef Channel channel
    cdef Leaf leaf
    execution.events, execution.queues = {}, {}
    leaves = {}
    for event in events:
        kind = event["type"]
        if SCHEDULES.get(kind) == IS_WAIT or SCHEDULES.get(kind) == IS_DEQUEUE:
            leaf = leaves[event["event_id"]] = leaf_of(WAIT if SCHEDULES[kind] == IS_WAIT else DEQUEUE, event["name"], None)
            execution.bind(leaf, event["event_id"], None)
        elif kind == "ExternalEvent" or kind == "ExternalEventPersistent":
            execution.arrive(kind == "ExternalEventPersistent", event["name"], event["data"])
        elif CANCELS.get(kind, "").endswith("waits"):
            leaf = leaves[event["source_event_id"]]
            channel = execution.channel(leaf.kind == DEQUEUE, leaf.name)
            if not leaf.done:
                leaf.is_dropped = True
                channel.dropped(leaf)
    return 0


cdef int check_cancels(Execution execution, list events) except -1:
    """Every stored cancel of a dropped future must have been made again by the code; those are not recorded twice."""
    cdef Leaf leaf
    stored = {name: set() for name in CANCEL_ORDER}
    for event in events:
        if event["type"] in CANCELS and event["reason"] == "dropped_future":
            stored[CANCELS[event["type"]]].add(event["source_event_id"])
    made = {name: set() for name in CANCEL_ORDER}
    for leaf in execution.drops:
        made[CANCEL_OF[leaf.kind]].add(leaf.id)
    for name in CANCEL_ORDER:
        if not stored[name] <= made[name]:
            raise Nondeterminism(
                f"cancellation mismatch ({name}): baseline_dropped_future_cancel_requests={shown(stored[name])} "
                f"ctx_cancelled_in_replayed_segment={shown(made[name])}"
            )
    execution.drops = [leaf for leaf in execution.drops if leaf.id not in stored[CANCEL_OF[leaf.kind]]]
    return 0


cdef str shown(set ids):
    """A set of event ids as the texts show it."""
    return "{" + ", ".join(map(str, sorted(ids))) + "}"

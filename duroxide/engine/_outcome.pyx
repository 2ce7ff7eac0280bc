# cython: language_level=3
"""Code -> outbox: the outcome of a turn by priority, its terminal events, and which of its commands take effect.

Owns limits, cancelled losers and what a parent, children and the successor are told. Refuses to know messages and how code ran.
"""

import json

from duroxide.events import (
    application_failure, cancel_item, cancelled_failure, child_completed_item, child_failed_item, child_start_item, continue_item,
    display, execute_item, quote, start_item, timer_item,
)
from duroxide.storage.base import WorkOut

from duroxide.engine._channels cimport Channel
from duroxide.engine._execution cimport CANCELLED, CLOSED, COMPLETED, CONTINUED, FAILED, IS_ACTIVITY, KIND, Execution
from duroxide.engine._tasks cimport ACTIVITY, CHILD, DEQUEUE, DETACHED, STATUS, TIMER, WAIT, Leaf

MAX_KV_KEYS = 150


cdef object finish(ran, Execution execution):
    """The outcome, by priority, and what takes effect."""
    done = ran.done
    check_limits(execution)
    record_drops(execution, done)
    if execution.violations:
        execution.fail(application_failure(min(execution.violations)[1], "OrchestrationFailed"))
        end(ran, execution, "Failed", "failed", execution.outcome)
    elif execution.cancel_reason is not None:
        cancel_children(execution, done)
        end(ran, execution, "Failed", "cancelled", cancelled_failure(execution.cancel_reason))
    elif execution.state == CONTINUED:
        end(ran, execution, "ContinuedAsNew", "continued_as_new", None)
    elif execution.state == COMPLETED:
        end(ran, execution, "Completed", "completed", None)
    elif execution.state == FAILED:
        end(ran, execution, "Failed", "failed", execution.outcome)
    else:
        take_effect(execution, done)
        ran.execution = execution
    done.events = execution.written
    done.custom_status = execution.status_delta
    done.kv = execution.kv_delta
    ran.warnings += execution.warnings
    execution.open_turn(execution.now)
    execution.drops = []
    return ran


cdef int check_limits(Execution execution) except -1:
    if execution.kv_delta and len(execution.kv) > MAX_KV_KEYS:
        execution.violations.append((3, f"KV key count ({len(execution.kv)}) exceeds limit ({MAX_KV_KEYS})"))
        excess = set(list(execution.kv)[MAX_KV_KEYS:])
        execution.kv_delta = [change for change in execution.kv_delta if change[1] not in excess]
    if execution.violations and min(execution.violations)[0] == 0:  # the turn's last status is too large: known only now
        execution.status_delta = None
        blank_statuses(execution)
    return 0


cdef int blank_statuses(Execution execution) except -1:
    """The turn fails for its status: its events stay, ids are dense, but no such text is stored."""
    cdef Leaf leaf
    for leaf in execution.recorded:
        if leaf.kind == STATUS:
            at = leaf.id - execution.written[0][0]
            id, type, text = execution.written[at]
            execution.written[at] = id, type, text.replace(f'"status":{quote(leaf.input)}', '"status":null') if leaf.input else text
    return 0


cdef dict DROP_EVENTS = {
    ACTIVITY: "ActivityCancelRequested", CHILD: "SubOrchestrationCancelRequested", WAIT: "ExternalSubscribedCancelled",
    DEQUEUE: "ExternalSubscribedPersistentCancelled",
}  # fmt: skip
cdef tuple DROP_ORDER = (ACTIVITY, CHILD, WAIT, DEQUEUE)


def by_kind_and_id(Leaf leaf):
    return DROP_ORDER.index(leaf.kind), leaf.id


cdef int record_drops(Execution execution, done) except -1:
    """Cancel events for futures that the code dropped in this turn, and what they set off."""
    cdef Leaf leaf
    cdef set new
    if not execution.drops:
        return 0
    new = {(<Leaf>leaf).id for leaf in execution.recorded}
    for leaf in sorted([leaf for leaf in execution.drops if (<Leaf>leaf).id], key=by_kind_and_id):
        execution.write(DROP_EVENTS[leaf.kind], leaf.id, ',"reason":"dropped_future"')
        execution.mark(leaf.id, CANCELLED)
        if leaf.id in new:
            continue  # neither the activity nor the child ever leaves this turn
        if leaf.kind == ACTIVITY:
            done.cancelled.append((execution.instance, execution.execution_id, leaf.id))
        elif leaf.kind == CHILD:
            done.messages.append((leaf.target, cancel_item(leaf.target, "parent dropped sub-orchestration future"), 0))
    return 0


cdef int take_effect(Execution execution, done) except -1:
    cdef Leaf leaf
    for leaf in execution.recorded:
        if leaf.kind == ACTIVITY:
            if not leaf.syscall and not leaf.is_dropped:
                done.work.append(work_out(execution, leaf))
        elif leaf.kind == TIMER:
            item = timer_item(execution.instance, execution.execution_id, leaf.id, leaf.number)
            done.messages.append((execution.instance, item, leaf.number))
        elif leaf.kind == CHILD:
            if not leaf.is_dropped:
                link = (execution.instance, leaf.id, execution.execution_id)
                done.messages.append((leaf.target, child_start_item(leaf.target, leaf.name, leaf.input, leaf.version, link), 0))
        elif leaf.kind == DETACHED:
            done.messages.append((leaf.where, start_item(leaf.where, leaf.name, leaf.input, leaf.version), 0))
    return 0


cdef object work_out(Execution execution, Leaf leaf):
    item = execute_item(
        execution.instance, execution.execution_id, leaf.id, leaf.name, leaf.input, leaf.where, leaf.tag
    )
    return WorkOut(
        execution.instance, execution.execution_id, leaf.id, leaf.name, leaf.input, item, session_id=leaf.where, tag=leaf.tag
    )


cdef int start_detached(Execution execution, done) except -1:
    """Detached starts take effect whatever the turn's outcome: they are in history."""
    cdef Leaf leaf
    for leaf in execution.recorded:
        if leaf.kind == DETACHED:
            done.messages.append((leaf.where, start_item(leaf.where, leaf.name, leaf.input, leaf.version), 0))
    return 0


cdef int cancel_children(Execution execution, done) except -1:
    cdef Leaf leaf
    new = {leaf.id for leaf in execution.recorded if leaf.kind == CHILD}
    for id, target in sorted(execution.targets.items()):
        if id not in new and not execution.kind_at(id) & CANCELLED:
            done.messages.append((target, cancel_item(target, "parent canceled"), 0))
    return 0


cdef int end(ran, Execution execution, str status, str outcome, str details) except -1:
    """Terminal events in their order, and who is told."""
    done = ran.done
    start_detached(execution, done)
    end_waits(execution)
    ran.outcome = outcome
    done.status = status
    if status == "Completed":
        done.output = execution.outcome
        execution.write("OrchestrationCompleted", None, f',"output":{quote(execution.outcome)}')
        if execution.parent is not None:
            done.messages.append((execution.parent[0], child_completed_item(execution.parent, execution.outcome), 0))
    elif status == "ContinuedAsNew":
        done.output = execution.successor.input
        execution.write("OrchestrationContinuedAsNew", None, f',"input":{quote(execution.successor.input)}')
        done.messages.append((execution.instance, successor_item(execution), 0))
        ran.execution = execution
    else:
        ran.category, ran.error = display(json.loads(details))
        done.output = ran.error
        execution.write("OrchestrationFailed", None, f',"details":{details}')
        if execution.parent is not None:
            done.messages.append((execution.parent[0], child_failed_item(execution.parent, details), 0))
    end_activities(execution, done, status)
    execution.close()
    execution.status = status
    return 0


cdef int end_waits(Execution execution) except -1:
    cdef Leaf leaf
    for leaf in execution.waiting():
        execution.write(DROP_EVENTS[leaf.kind], leaf.id, ',"reason":"orchestration_terminal"')
    return 0


cdef int end_activities(Execution execution, done, str status) except -1:
    """Activities in flight are cancelled, after the terminal event."""
    cdef Leaf leaf
    cdef long long id
    cdef int kind
    suffix = "continued_as_new" if status == "ContinuedAsNew" else status.lower()
    new = {leaf.id for leaf in execution.recorded}
    for id in range(1, len(execution.kinds)):
        kind = execution.kinds[id]
        if kind & KIND == IS_ACTIVITY and not kind & (CLOSED | CANCELLED):
            execution.write("ActivityCancelRequested", id, f',"reason":"orchestration_terminal_{suffix}"')
            if id not in new:
                done.cancelled.append((execution.instance, execution.execution_id, id))
    return 0


cdef str successor_item(Execution execution):
    """The start of the next execution, with the queue messages that nobody read, in order of arrival."""
    cdef Channel channel
    unread = []
    for name, channel in execution.queues.items():
        unread += [(order, name, data) for order, data in channel.unread()]
    carried = [(name, data) for _, name, data in sorted(unread)]
    return continue_item(
        execution.instance, execution.name, execution.successor.input, execution.successor.version, execution.parent, carried,
        execution.custom_status,
    )

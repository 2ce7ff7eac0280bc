# cython: language_level=3
"""One turn: inbox -> events -> code -> outbox. `run_turn` is the engine's only entry; its stages stand below it in order.

Owns how messages become events, which outcome a turn has, and what takes effect of it. Refuses to know stores, threads and time
(`now_ms` and `env` are given); never raises for what user code or stored data do.
"""

import json

from duroxide.engine._history import CorruptHistory, Nondeterminism
from duroxide.events import (
    KINDS, PINNED, application_failure, cancel_item, cancelled_failure, child_completed_item, child_failed_item,
    child_start_item, compact, continue_item, display, execute_item, nondeterminism, orchestration_poison, quote, start_item, timer_item,
)
from duroxide.storage.base import TurnBack, TurnDone, WorkOut

from duroxide.engine._channels cimport Channel
from duroxide.engine._execution cimport (
    CANCELLED, CLOSED, COMPLETED, CONTINUED, FAILED, IS_ACTIVITY, IS_CHILD, IS_TIMER, KIND, RUNNING, Execution,
)
from duroxide.engine._tasks cimport ACTIVITY, CHILD, DEQUEUE, DETACHED, STATUS, TIMER, WAIT, Leaf
from duroxide.engine._turn cimport Turn, WorkResult, decode

MAX_KV_KEYS = 150
LEGACY_BELOW = (0, 1, 31)  # executions stamped below it keep the older race/cancel policy
KNOWN = frozenset(KINDS)


class Ran:
    """What one turn came to. Exactly one of `done` and `back` is set; `execution` is to be kept live, or None."""

    __slots__ = ("back", "category", "done", "error", "execution", "outcome", "started", "warnings")

    def __init__(self, done=None, back=None, outcome="continue"):
        self.done = done
        self.back = back
        self.outcome = outcome
        self.execution = None
        self.category = None
        self.error = None
        self.started = False
        self.warnings = []


cdef class Inbox:
    """The messages of a turn, decoded: starts apart from the rest, queue order kept."""

    cdef list starts      # [(kind, fields)]
    cdef dict successor   # fields of the ContinueAsNew, or None
    cdef list rest        # [(kind, fields)]
    cdef list texts
    cdef list warnings

    def __init__(self, Turn turn):
        self.starts, self.rest, self.texts, self.warnings = [], [], [], []
        for _, text, _ in turn.messages:
            kind, body = decode(text)
            self.texts.append(text)
            if kind == "StartOrchestration":
                self.starts.append(body)
            elif kind == "ContinueAsNew":
                self.successor = body if self.successor is None else self.successor
            elif kind in RECEIVERS:
                self.rest.append((kind, body))
            else:
                self.warnings.append(f"instance '{turn.instance}': dropped a message that is no work item: {text[:200]!r}")


def needs_load(Turn turn):
    """Whether `run_turn` must be given the stored instance. A live execution that is not at the stored event is closed."""
    cdef Execution live = turn.execution
    if live is not None:
        if live.execution_id == turn.execution_id and live.last_event_id == turn.last_event_id:
            return False
        live.close()
        turn.execution = None
    return turn.name is not None and turn.status != "Completed" and turn.status != "Failed"


def run_turn(Turn turn, loaded, env, long long now_ms):
    """Run one turn to its end: see the module. `loaded` is the stored instance where `needs_load` asked for it."""
    inbox = Inbox(turn)
    done = TurnDone(turn.lease, turn.instance, turn.execution_id)
    done.consumed = [row for row, _, _ in turn.messages]
    done.acks = [((<WorkResult>result).row_id, (<WorkResult>result).token) for result in turn.results]
    ran = Ran(done)
    ran.warnings += inbox.warnings
    if turn.status == "Completed" or turn.status == "Failed":
        return refuse_starts(ran, inbox, env, "already exists and is terminal")
    if turn.name is None:
        return begin_first(ran, turn, inbox, env, now_ms) if inbox.starts else ignored(ran)
    if turn.status == "ContinuedAsNew":
        return begin_successor(ran, turn, inbox, loaded, env, now_ms)
    return resume(ran, turn, inbox, loaded, env, now_ms)


# ── which execution ──────────────────────────────────────────────────────────────────────────────────────────


cdef object ignored(ran):
    ran.outcome = "ignored"
    return ran


cdef object give_back(ran, Turn turn, long long delay_ms, bint refund):
    """Not now: the messages come again after `delay_ms`."""
    ran.outcome = "back"
    ran.done = None
    ran.back = TurnBack(turn.lease, turn.instance, delay_ms, refund)
    return ran


cdef long long backoff_ms(long long attempt) noexcept:
    return min(1_000 << min(attempt - 1, 6), 60_000)


cdef tuple link_of(dict body, env):
    """(parent instance, schedule event id, parent execution) of a start item, or None."""
    if body.get("parent_instance") is None or body.get("parent_id") is None:
        return None
    execution = body.get("parent_execution_id")
    if execution is None:  # written before the link had it
        execution = env.parent_execution(body["parent_instance"])
    return body["parent_instance"], body["parent_id"], execution


cdef object refuse_starts(ran, Inbox inbox, env, str why):
    """The instance is over: its messages go; a parent that asked for this id is told."""
    refuse(ran.done, inbox.starts, None, env, why)
    return ignored(ran)


cdef int refuse(done, list starts, tuple own, env, str why) except -1:
    for body in starts:
        link = link_of(body, env)
        if link is not None and link != own:
            text = f"sub-orchestration instance id '{body['instance']}' {why}"
            done.messages.append((link[0], child_failed_item(link, application_failure(text, "OrchestrationFailed")), 0))
    return 0


cdef object begin_first(ran, Turn turn, Inbox inbox, env, long long now_ms):
    cdef dict start = inbox.starts[0]
    link = link_of(start, env)
    resolved = env.resolve(start["orchestration"], start.get("version"))
    poisoned = turn.attempt > env.max_attempts
    if resolved is None and not poisoned:
        return give_back(ran, turn, backoff_ms(turn.attempt), False)
    version, function = resolved or (start.get("version") or "unknown", None)
    cdef Execution execution = Execution(turn.instance, 1, start["orchestration"], version, start["input"], link, False, env)
    execution.function = function
    refuse(ran.done, inbox.starts[1:], link, env, "already exists")
    return begin(ran, turn, inbox, execution, start, poisoned, env, now_ms)


cdef object begin_successor(ran, Turn turn, Inbox inbox, loaded, env, long long now_ms):
    cdef dict start = inbox.successor
    cdef Execution execution, previous = turn.execution
    if start is None:  # its start is hidden by a delay: what came meanwhile waits for it
        return give_back(ran, turn, 1_000, True)
    resolved = env.resolve(start["orchestration"], start.get("version"))
    poisoned = turn.attempt > env.max_attempts
    if resolved is None and not poisoned:
        return give_back(ran, turn, backoff_ms(turn.attempt), False)
    version, function = resolved or (turn.version, None)
    execution = Execution(
        turn.instance, turn.execution_id + 1, start["orchestration"], version, start["input"], link_of(start, env), False, env
    )
    execution.function = function
    execution.custom_status = start.get("initial_custom_status")
    if previous is not None:
        execution.kv = previous.kv
    elif loaded is not None:
        execution.kv = dict(loaded.kv)
    refuse(ran.done, inbox.starts, execution.parent, env, "already exists")
    return begin(ran, turn, inbox, execution, start, poisoned, env, now_ms)


cdef object begin(ran, Turn turn, Inbox inbox, Execution execution, dict start, bint poisoned, env, long long now_ms):
    """First turn of an execution: its start event, then as every turn."""
    cdef list fresh = []
    done = ran.done
    ran.started = True
    done.execution_id = execution.execution_id
    done.name, done.version = execution.name, execution.version
    done.parent = None if execution.parent is None else execution.parent[0]
    done.pinned = None if poisoned else PINNED
    execution.open_turn(now_ms)
    carried = start.get("carry_forward_events") or []
    execution.write("OrchestrationStarted", None, started_fields(execution, carried))
    if poisoned:
        return poison(ran, turn, inbox, execution, None, env)
    for name, data in carried:
        execution.write("ExternalEventPersistent", None, f',"name":{quote(name)},"data":{quote(data)}')
        fresh.append((QUEUE, 0, data, name))
    return proceed(ran, turn, inbox, execution, None, fresh, env)


cdef str started_fields(Execution execution, list carried):
    fields = f',"name":{quote(execution.name)},"version":{quote(execution.version)},"input":{quote(execution.input)}'
    if execution.parent is None:
        fields += ',"parent_instance":null,"parent_id":null'
    else:
        instance, id, parent_execution = execution.parent
        fields += f',"parent_instance":{quote(instance)},"parent_id":{id},"parent_execution_id":{parent_execution}'
    if carried:
        fields += f',"carry_forward_events":{compact(carried)}'
    if execution.custom_status is not None:
        fields += f',"initial_custom_status":{quote(execution.custom_status)}'
    return fields


cdef object resume(ran, Turn turn, Inbox inbox, loaded, env, long long now_ms):
    """A later turn: the live execution, or one made from stored history."""
    cdef Execution execution = turn.execution
    cdef list stored = None
    poisoned = turn.attempt > env.max_attempts
    if execution is None:
        if loaded is None:  # deleted since the claim: the commit will find the lease gone
            return ignored(ran)
        try:
            stored = read_history(loaded)
            execution = from_history(turn, loaded, stored, env)
        except (CorruptHistory, Nondeterminism) as error:
            if not poisoned:
                return give_back(ran, turn, 1_000, False)
            return poison(ran, turn, inbox, unreadable(turn, loaded, env, now_ms), str(error), env)
        if not poisoned and execution.function is None:
            return give_back(ran, turn, 1_000 if execution.version is None else backoff_ms(turn.attempt), False)
    execution.open_turn(now_ms)
    refuse(ran.done, inbox.starts, execution.parent, env, "already exists")
    if poisoned:
        return poison(ran, turn, inbox, execution, None, env)
    return proceed(ran, turn, inbox, execution, stored, [], env)


cdef list read_history(loaded):
    events = []
    for id, text in loaded.events:
        try:
            event = json.loads(text)
            kind = event["type"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptHistory(f"event {id}: {type(error).__name__}: {error}")
        if kind not in KNOWN:
            raise CorruptHistory(f"event {id}: unknown variant `{kind}`")
        events.append(event)
    if not events:
        raise CorruptHistory("corrupted history: empty")
    if events[0]["type"] != "OrchestrationStarted":
        raise CorruptHistory("corrupted history: first event must be OrchestrationStarted")
    return events


cdef tuple stamp_of(dict event):
    try:
        major, minor, patch = str(event["duroxide_version"]).split("-")[0].split("+")[0].split(".")
        return int(major), int(minor), int(patch)
    except (KeyError, ValueError):
        return 0, 0, 0


cdef Execution from_history(Turn turn, loaded, list stored, env):
    """The execution that stored events describe, indexed but not yet replayed. Its version is None if a newer engine made it."""
    cdef Execution execution
    started = stored[0]
    stamp = stamp_of(started)
    try:
        version = None if started["version"] == "0.0.0" else started["version"]
        execution = Execution(
            turn.instance, loaded.execution_id, started["name"], started["version"], started["input"], link_of(started, env),
            stamp < LEGACY_BELOW, env,
        )
        execution.index(stored)
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptHistory(f"missing or malformed field: {type(error).__name__}: {error}")
    if stamp > PINNED:
        execution.version = None
        return execution
    execution.custom_status = started.get("initial_custom_status")
    execution.kv = dict(loaded.kv)
    resolved = env.resolve(execution.name, version)
    if resolved is not None:
        execution.function = resolved[1]
    return execution


cdef Execution unreadable(Turn turn, loaded, env, long long now_ms):
    """A stand-in for an execution whose history cannot be read: enough to end it and to tell its parent."""
    cdef Execution execution
    link = None
    try:
        link = link_of(json.loads(loaded.events[0][1]), env)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        link = None
    execution = Execution(turn.instance, turn.execution_id, turn.name, turn.version, "", link, False, env)
    execution.last_event_id = turn.last_event_id
    execution.open_turn(now_ms)
    return execution


cdef object poison(ran, Turn turn, Inbox inbox, Execution execution, str error, env):
    """The messages were fetched too often: the instance fails, whatever its code would do."""
    execution.fail(
        orchestration_poison(turn.instance, execution.execution_id, turn.attempt, env.max_attempts, inbox.texts, error)
    )
    return finish(ran, execution)


# ── inbox -> events ──────────────────────────────────────────────────────────────────────────────────────────

cdef enum:
    RESULT, FAILURE, EVENT, QUEUE

RECEIVERS = {
    "ActivityCompleted": (IS_ACTIVITY, "id", "execution_id"), "ActivityFailed": (IS_ACTIVITY, "id", "execution_id"),
    "TimerFired": (IS_TIMER, "id", "execution_id"), "SubOrchCompleted": (IS_CHILD, "parent_id", "parent_execution_id"),
    "SubOrchFailed": (IS_CHILD, "parent_id", "parent_execution_id"), "ExternalRaised": None, "QueueMessage": None, "CancelInstance": None,
}  # fmt: skip
cdef dict KIND_WORDS = {IS_ACTIVITY: "activity", IS_TIMER: "timer", IS_CHILD: "suborchestration"}
cdef dict NO_SCHEDULE = {IS_ACTIVITY: "completion", IS_TIMER: "timer", IS_CHILD: "sub-orchestration"}


cdef bint expected(Execution execution, long long id, int kind) except -1:
    """Whether a completion of schedule `id` is news. Nondeterminism if there is no such schedule."""
    cdef int known = execution.kind_at(id)
    if known & KIND == 0 or known & KIND > IS_CHILD:
        raise Nondeterminism(f"no matching schedule for {NO_SCHEDULE[kind]} id={id}")
    if known & KIND != kind:
        raise Nondeterminism(
            f"completion kind mismatch for id={id}, expected '{KIND_WORDS[known & KIND]}', got '{KIND_WORDS[kind]}'"
        )
    return known & CLOSED == 0


cdef object receive(Execution execution, Turn turn, Inbox inbox, list fresh):
    """Write the events of all messages and results, append what is to be applied to `fresh`. Returns the details of a failure that
    no code may see, or None."""
    cdef WorkResult result
    fatal = None
    for kind, body in inbox.rest:
        if RECEIVERS[kind] is None:
            receive_signal(execution, kind, body, fresh)
        else:
            fatal = receive_completion(execution, kind, body, fresh) or fatal
    for result in turn.results:
        if result.execution_id == execution.execution_id and expected(execution, result.activity_id, IS_ACTIVITY):
            execution.close_schedule(result.activity_id)
            if result.ok:
                execution.write("ActivityCompleted", result.activity_id, f',"result":{quote(result.payload)}')
                fresh.append((RESULT, result.activity_id, result.payload, None))
            else:
                fatal = receive_failure(execution, "ActivityFailed", result.activity_id, json.loads(result.payload), fresh) or fatal
    return fatal


cdef object receive_completion(Execution execution, str kind, dict body, list fresh):
    cdef int of
    of, id_key, execution_key = RECEIVERS[kind]
    id = body[id_key]
    if body[execution_key] != execution.execution_id or not expected(execution, id, of):
        return None
    execution.close_schedule(id)
    if kind == "ActivityFailed" or kind == "SubOrchFailed":
        stored = "ActivityFailed" if kind == "ActivityFailed" else "SubOrchestrationFailed"
        return receive_failure(execution, stored, id, body["details"], fresh)
    if kind == "TimerFired":
        execution.write("TimerFired", id, f',"fire_at_ms":{body["fire_at_ms"]}')
        fresh.append((RESULT, id, None, None))
    else:
        stored = "ActivityCompleted" if kind == "ActivityCompleted" else "SubOrchestrationCompleted"
        execution.write(stored, id, f',"result":{quote(body["result"])}')
        fresh.append((RESULT, id, body["result"], None))
    return None


cdef object receive_failure(Execution execution, str stored, id, dict details, list fresh):
    execution.write(stored, id, f',"details":{compact(details)}')
    if "Application" not in details:
        return details
    fresh.append((FAILURE, id, details, None))
    return None


cdef int receive_signal(Execution execution, str kind, dict body, list fresh) except -1:
    if kind == "CancelInstance":
        if execution.cancel_reason is None:
            execution.cancel_reason = body["reason"]
            execution.write("OrchestrationCancelRequested", None, f',"reason":{quote(body["reason"])}')
        return 0
    stored = "ExternalEvent" if kind == "ExternalRaised" else "ExternalEventPersistent"
    execution.write(stored, None, f',"name":{quote(body["name"])},"data":{quote(body["data"])}')
    fresh.append((EVENT if kind == "ExternalRaised" else QUEUE, 0, body["data"], body["name"]))
    return 0


# ── events -> code ───────────────────────────────────────────────────────────────────────────────────────────


cdef object proceed(ran, Turn turn, Inbox inbox, Execution execution, list stored, list fresh, env):
    try:
        fatal = receive(execution, turn, inbox, fresh)
        if stored is not None:
            execution.replay(stored)
        if fatal is not None:
            execution.fail(compact(fatal))
        else:
            apply_all(execution, fresh)
            execution.settle()
    except Nondeterminism as mismatch:
        execution.commands.clear()
        execution.drops = []
        if stored is not None:
            execution.adopt_waits(stored + [json.loads(text) for _, _, text in execution.written])
        execution.fail(nondeterminism(str(mismatch)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # a message or an event lacks what its kind must have
        if stored is None and not inbox.rest:
            raise
        execution.close()
        ran.warnings.append(f"instance '{turn.instance}': malformed message or event: {type(error).__name__}: {error}")
        return give_back(ran, turn, 1_000, False)
    return finish(ran, execution)


cdef int apply_all(Execution execution, list fresh) except -1:
    """One at a time; the code runs between two. After a continue-as-new they still count: unread messages are carried."""
    for what, id, payload, name in fresh:
        if execution.flag:
            execution.poll()
        if execution.state == COMPLETED or execution.state == FAILED:
            return 0
        if what == RESULT:
            execution.complete(id, payload, False)
        elif what == FAILURE:
            execution.complete(id, payload, True)
        else:
            execution.arrive(what == QUEUE, name, payload)
    return 0


# ── code -> outbox ───────────────────────────────────────────────────────────────────────────────────────────


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
    if execution.legacy and ran.execution is not None:  # its policy depends on where a replay meets each event
        execution.close()
        ran.execution = None
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

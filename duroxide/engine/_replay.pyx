# cython: language_level=3
"""One turn: inbox -> events (`_inbox`) -> code -> outbox (`_outcome`). `run_turn` is the engine's only entry.

Owns which execution a turn belongs to and how its events meet the code. Refuses to know stores, threads and time (`now_ms` and
`env` are given); never raises for what user code or stored data do.
"""

import json

from duroxide.engine._events import CorruptHistory
from duroxide.engine._history import Nondeterminism
from duroxide.events import (
    PINNED, application_failure, child_failed_item, compact, misshapen, nondeterminism, orchestration_poison, quote,
)
from duroxide.storage.base import TurnBack, TurnDone

from duroxide.engine._commands cimport settle
from duroxide.engine._events cimport History, read_history
from duroxide.engine._execution cimport COMPLETED, FAILED, Execution
from duroxide.engine._inbox cimport FAILURE, QUEUE, RESULT, Inbox, receive
from duroxide.engine._outcome cimport finish
from duroxide.engine._stored cimport adopt_waits, index, replay
from duroxide.engine._turn cimport Turn, WorkResult

LINK_SHAPE = {"parent_instance": "S", "parent_id": "I", "parent_execution_id": "I"}
LEGACY_BELOW = (0, 1, 31)  # executions stamped below it keep the older race/cancel policy


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


def needs_load(Turn turn):
    """Whether `run_turn` must be given the stored instance. A live execution that is not at the stored event is closed, and one
    of the older policy, which depends on where a replay meets each event."""
    cdef Execution live = turn.execution
    if live is not None:
        if not live.legacy and live.execution_id == turn.execution_id and live.last_event_id == turn.last_event_id:
            return False
        live.close()
        turn.execution = None
    return turn.name is not None and turn.status != "Completed" and turn.status != "Failed"


def run_turn(Turn turn, loaded, env, long long now_ms):
    """Run one turn to its end: see the module. `loaded` is the stored instance where `needs_load` asked for it."""
    inbox = Inbox(turn, getattr(env, "holds_nul", True))
    try:
        return run(turn, inbox, loaded, env, now_ms)
    except (KeyError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        if loaded is None and not turn.messages:  # nothing from outside: a defect of ours
            raise
        return unforeseen(turn, inbox, loaded, env, now_ms, f"{type(error).__name__}: {error}")


cdef object run(Turn turn, Inbox inbox, loaded, env, long long now_ms):
    done = TurnDone(turn.lease, turn.instance, turn.execution_id)
    done.consumed = [row for row, _, _ in turn.messages]
    done.acks = [((<WorkResult>result).row_id, (<WorkResult>result).token) for result in turn.results]
    ran = Ran(done)
    ran.warnings += inbox.warnings
    if turn.status == "Completed" or turn.status == "Failed":
        return refuse_starts(ran, inbox, env, "already exists and is terminal")
    if inbox.malformed is not None and turn.attempt <= env.max_attempts and (turn.name is not None or inbox.starts):
        ran.warnings.append(f"instance '{turn.instance}': a message that cannot be used (attempt {turn.attempt}): {inbox.malformed}")
        return give_back(ran, turn, 1_000, False)
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


cdef object not_registered(ran, Turn turn, name, version):
    """Another runtime may have it, or this one soon: back, longer each time."""
    shown = "" if version is None else f" {version}"
    ran.warnings.append(
        f"orchestration '{name}'{shown} of '{turn.instance}' is not registered here: given back (attempt {turn.attempt})"
    )
    return give_back(ran, turn, backoff_ms(turn.attempt), False)


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
        return not_registered(ran, turn, start["orchestration"], start.get("version"))
    version, function = resolved or (start.get("version") or "unknown", None)
    cdef Execution execution = Execution(turn.instance, 1, start["orchestration"], version, start["input"], link, False, env)
    execution.function = function
    refuse(ran.done, inbox.starts[1:], link, env, "already exists")
    return begin(ran, turn, inbox, execution, start, poisoned, env, now_ms)


cdef object begin_successor(ran, Turn turn, Inbox inbox, loaded, env, long long now_ms):
    cdef dict start = inbox.successor
    cdef Execution execution, previous = turn.execution
    if start is None and inbox.malformed is not None:  # too often: it ends as what it would have been
        start = {"orchestration": turn.name, "input": "", "version": turn.version, **parent_of(loaded)}
    elif start is None:  # its start is hidden by a delay: what came meanwhile waits for it
        return give_back(ran, turn, 1_000, True)
    resolved = env.resolve(start["orchestration"], start.get("version"))
    poisoned = turn.attempt > env.max_attempts
    if resolved is None and not poisoned:
        return not_registered(ran, turn, start["orchestration"], start.get("version"))
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
    cdef History stored = None
    poisoned = turn.attempt > env.max_attempts
    if execution is None:
        if loaded is None:  # deleted since the claim: the commit will find the lease gone
            return ignored(ran)
        try:
            stored = read_history(loaded.events)
            execution = from_history(turn, loaded, stored, env)
        except (CorruptHistory, Nondeterminism) as error:
            if not poisoned:
                return give_back(ran, turn, 1_000, False)
            return poison(ran, turn, inbox, unreadable(turn, loaded, env, now_ms), str(error), env)
        if not poisoned and execution.function is None:
            if execution.version is None:
                return give_back(ran, turn, 1_000, False)
            return not_registered(ran, turn, execution.name, execution.version)
    execution.open_turn(now_ms)
    refuse(ran.done, inbox.starts, execution.parent, env, "already exists")
    if poisoned:
        return poison(ran, turn, inbox, execution, None, env)
    return proceed(ran, turn, inbox, execution, stored, [], env)


cdef tuple stamp_of(dict event):
    try:
        major, minor, patch = str(event["duroxide_version"]).split("-")[0].split("+")[0].split(".")
        return int(major), int(minor), int(patch)
    except (KeyError, ValueError):
        return 0, 0, 0


cdef Execution from_history(Turn turn, loaded, History stored, env):
    """The execution that stored events describe, indexed but not yet replayed. Its version is None if a newer engine made it."""
    cdef Execution execution
    started = stored.fields(stored.events)
    stamp = stamp_of(started)
    try:
        version = None if started["version"] == "0.0.0" else started["version"]
        execution = Execution(
            turn.instance, loaded.execution_id, started["name"], started["version"], started["input"], link_of(started, env),
            stamp < LEGACY_BELOW, env,
        )
        index(execution, stored)
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
    link = link_of(parent_of(loaded), env)
    execution = Execution(turn.instance, turn.execution_id, turn.name, turn.version, "", link, False, env)
    execution.last_event_id = turn.last_event_id
    execution.open_turn(now_ms)
    return execution


cdef dict parent_of(loaded):
    """The link of the first event to a parent, {} where it has none that can be read."""
    if loaded is None or not loaded.events:  # this module is compiled without bounds checks
        return {}
    try:
        started = json.loads(loaded.events[0][1])
        if misshapen(started, LINK_SHAPE) is None:
            return {name: started.get(name) for name in LINK_SHAPE}
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError):
        pass
    return {}


cdef object unforeseen(Turn turn, Inbox inbox, loaded, env, long long now_ms, str error):
    """A message or an event is not what it must be, and nobody saw it coming: it comes again, until the instance is poisoned."""
    done = TurnDone(turn.lease, turn.instance, turn.execution_id)
    done.consumed = [row for row, _, _ in turn.messages]
    done.acks = [((<WorkResult>result).row_id, (<WorkResult>result).token) for result in turn.results]
    ran = Ran(done)
    ran.warnings.append(f"instance '{turn.instance}': malformed message or event (attempt {turn.attempt}): {error}")
    if turn.attempt <= env.max_attempts:
        return give_back(ran, turn, 1_000, False)
    if turn.name is None or turn.status == "Completed" or turn.status == "Failed":
        return ignored(ran)
    if turn.status == "ContinuedAsNew":
        inbox.successor, inbox.malformed = None, error
        return begin_successor(ran, turn, inbox, loaded, env, now_ms)
    return poison(ran, turn, inbox, unreadable(turn, loaded, env, now_ms), error, env)


cdef object poison(ran, Turn turn, Inbox inbox, Execution execution, str error, env):
    """The messages were fetched too often: the instance fails, whatever its code would do."""
    execution.fail(
        orchestration_poison(turn.instance, execution.execution_id, turn.attempt, env.max_attempts, inbox.texts, error)
    )
    return finish(ran, execution)


# ── events -> code ───────────────────────────────────────────────────────────────────────────────────────────


cdef object proceed(ran, Turn turn, Inbox inbox, Execution execution, History stored, list fresh, env):
    try:
        fatal = receive(execution, turn, inbox, fresh)
        if stored is not None:
            replay(execution, stored)
        if fatal is not None:
            execution.fail(compact(fatal))
        else:
            apply_all(execution, fresh)
            settle(execution)
    except Nondeterminism as mismatch:
        execution.commands.clear()
        execution.drops = []
        if stored is not None:
            for id, _, text in execution.written:
                stored.add(id, text)
            adopt_waits(execution, stored)
        execution.fail(nondeterminism(str(mismatch)))
    except BaseException:
        execution.close()
        raise
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

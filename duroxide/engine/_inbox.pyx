# cython: language_level=3
"""Inbox -> events: what a turn's messages and results add to history, and which of it the code is to see.

Owns what counts as news (a completion of a closed schedule does not) and the order of arrival. Refuses to know outcomes and stores.
"""

import json

from duroxide.engine._history import Nondeterminism
from duroxide.events import ITEM_SHAPES, compact, misshapen, quote

from duroxide.engine._execution cimport CLOSED, IS_ACTIVITY, IS_CHILD, IS_TIMER, KIND, Execution
from duroxide.engine._turn cimport Turn, WorkResult, decode

LIMIT = 1 << 63
cdef dict RECEIVERS = {
    "ActivityCompleted": (IS_ACTIVITY, "id", "execution_id"), "ActivityFailed": (IS_ACTIVITY, "id", "execution_id"),
    "TimerFired": (IS_TIMER, "id", "execution_id"), "SubOrchCompleted": (IS_CHILD, "parent_id", "parent_execution_id"),
    "SubOrchFailed": (IS_CHILD, "parent_id", "parent_execution_id"), "ExternalRaised": None, "QueueMessage": None, "CancelInstance": None,
}  # fmt: skip
cdef dict KIND_WORDS = {IS_ACTIVITY: "activity", IS_TIMER: "timer", IS_CHILD: "suborchestration"}
cdef dict NO_SCHEDULE = {IS_ACTIVITY: "completion", IS_TIMER: "timer", IS_CHILD: "sub-orchestration"}


cdef class Inbox:
    """The messages of a turn, decoded: starts apart from the rest, queue order kept. `malformed`: why one of them cannot be used."""

    def __init__(self, Turn turn, bint holds_nul):
        self.starts, self.rest, self.texts, self.warnings = [], [], [], []
        for _, text, _ in turn.messages:
            kind, body = decode(text)
            self.texts.append(text)
            wrong = flaw(text, kind, body, holds_nul)
            if wrong is not None and kind != "StartOrchestration":
                self.malformed = wrong if self.malformed is None else self.malformed
            elif wrong is not None:  # of an instance that will not be, or is already
                self.warnings.append(f"instance '{turn.instance}': dropped a start that is none: {wrong}")
            elif kind == "StartOrchestration":
                self.starts.append(body)
            elif kind == "ContinueAsNew":
                self.successor = body if self.successor is None else self.successor
            elif kind in RECEIVERS:
                self.rest.append((kind, body))
            else:
                self.warnings.append(f"instance '{turn.instance}': dropped a message that is no work item: {text[:200]!r}")


cdef str flaw(str text, kind, dict body, bint holds_nul):
    """What is wrong with a message of a kind that there is: a field, or text that no store can hold. None if nothing."""
    cdef dict shape = ITEM_SHAPES.get(kind)
    cdef str known
    if shape is None or kind == "ActivityExecute":
        return None
    for name, known in shape.items():  # the common kinds at once, the others in words
        value = body.get(name)
        if not (type(value) is str if known == "s" else known == "i" and type(value) is int and -LIMIT <= value < LIMIT):
            wrong = misshapen(body, shape)
            if wrong is not None:
                return f"{kind}: {wrong}"
            break
    if "\\u" in text:
        try:
            compact(body).encode()
        except UnicodeEncodeError:
            return f"{kind}: text with a lone surrogate"
        if not holds_nul and "\0" in (body.get("orchestration") or "") + (body.get("version") or ""):
            return f"{kind}: a name with a NUL character"
    return None


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

# cython: language_level=3
"""A yielded descriptor dict -> the tree of `_tasks`. Owns which keys a descriptor has and the texts that name what is wrong.

The texts are those that existing users match on ("Invalid generator step result: ..."). Refuses to know events and the generator.
"""

import json

from duroxide.engine._tasks cimport (
    ACTIVITY, CHILD, CONTINUE, DEQUEUE, DETACHED, TIMER, WAIT, All, ErrorLeaf, Leaf, Node, Race, Retry, leaf_of,
)

cdef str UTC_NOW = "__duroxide_syscall:utc_now_ms"
cdef str NEW_GUID = "__duroxide_syscall:new_guid"
cdef str EXPECTED = "internally tagged enum ScheduledTask"
cdef long long U32 = 0xFFFFFFFF

# In the order in which the texts list them.
TYPES = (
    "activity", "activityWithSession", "activityWithRetry", "timer", "waitEvent", "subOrchestration", "subOrchestrationWithId",
    "subOrchestrationVersioned", "subOrchestrationVersionedWithId", "orchestration", "orchestrationVersioned", "newGuid", "utcNow",
    "continueAsNew", "continueAsNewVersioned", "dequeueEvent", "activityWithRetryOnSession", "join", "select",
)
cdef tuple NOT_MEMBERS = ("newGuid", "utcNow", "orchestration", "orchestrationVersioned", "continueAsNew", "continueAsNewVersioned")


class InvalidStep(Exception):
    """What was yielded is no descriptor; the orchestration fails with this text."""

    def __init__(self, str problem):
        super().__init__(f"Invalid generator step result: {problem}")


class Panic(Exception):
    """A well-formed descriptor asks for what can never work; the orchestration fails as panicked."""


def describe(value):
    """A JSON value as the texts name it: "integer `5`", "map", "null"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean `{'true' if value else 'false'}`"
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return f"integer `{value}`"
    if isinstance(value, (int, float)):
        return f"floating point `{float(value)!r}`"
    if isinstance(value, str):
        return f"string {json.dumps(value, ensure_ascii=False)}"
    if isinstance(value, dict):
        return "map"
    return "sequence"


cdef object wrong(value, str expected):
    if value is not None and not isinstance(value, (str, int, float, list, tuple, dict)):
        return TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    return InvalidStep(f"invalid type: {describe(value)}, expected {expected}")


cdef str text(dict desc, str key):
    cdef object value = desc.get(key, desc)
    if type(value) is str:
        return value
    if value is desc:
        raise InvalidStep(f"missing field `{key}`")
    if isinstance(value, str):
        return str(value)
    raise wrong(value, "a string")


cdef str text_or_none(dict desc, str key):
    return None if desc.get(key) is None else text(desc, key)


cdef object unsigned(dict desc, str key, str width, object most):
    if key not in desc:
        raise InvalidStep(f"missing field `{key}`")
    value = desc[key]
    if isinstance(value, bool) or not isinstance(value, int) or value >= 2**64:
        raise wrong(value, width)
    if value < 0 or value > most:
        raise InvalidStep(f"invalid value: integer `{value}`, expected {width}")
    return value


cdef object unsigned_or_none(dict desc, str key):
    return None if desc.get(key) is None else unsigned(desc, key, "u64", 2**64 - 1)


cpdef Node build(object desc):
    """The tree for one yielded value. InvalidStep, Panic, or TypeError for what JSON could not hold."""
    if not isinstance(desc, dict):
        raise not_a_descriptor(desc)
    kind = (<dict>desc).get("type", desc)
    if kind == "activity":
        return activity(<dict>desc, None)
    if kind == "join":
        return All(members(<dict>desc, "join"), bool((<dict>desc).get("_typed_all")))
    if kind == "select":
        return race(<dict>desc)
    return other(<dict>desc, kind)


cdef Node other(dict desc, object kind):
    cdef Leaf leaf
    if kind == "timer":
        leaf = leaf_of(TIMER, None, None)
        leaf.number = min(unsigned(desc, "delayMs", "u64", 2**64 - 1), 2**61)
        return leaf
    if kind == "activityWithSession":
        return activity(desc, "sessionId")
    if kind == "activityWithRetry" or kind == "activityWithRetryOnSession":
        return retry(desc, "sessionId" if kind == "activityWithRetryOnSession" else None)
    if kind == "waitEvent":
        return leaf_of(WAIT, text(desc, "name"), None)
    if kind == "dequeueEvent":
        return leaf_of(DEQUEUE, text(desc, "queueName"), None)
    if kind == "newGuid" or kind == "utcNow":
        leaf = leaf_of(ACTIVITY, NEW_GUID if kind == "newGuid" else UTC_NOW, "")
        leaf.syscall = True
        return leaf
    return started(desc, kind)


cdef Node started(dict desc, object kind):
    """Children, detached starts and continue-as-new."""
    cdef Leaf leaf
    if kind == "subOrchestration" or kind == "subOrchestrationVersioned":
        leaf = leaf_of(CHILD, text(desc, "name"), None)
    elif kind == "subOrchestrationWithId" or kind == "subOrchestrationVersionedWithId":
        leaf = leaf_of(CHILD, text(desc, "name"), None)
        leaf.where = text(desc, "instanceId")
    elif kind == "orchestration" or kind == "orchestrationVersioned":
        leaf = leaf_of(DETACHED, text(desc, "name"), None)
        leaf.where = text(desc, "instanceId")
        if leaf.where.startswith("sub::") or "::sub::" in leaf.where:
            raise Panic(
                f"detached orchestration instance id '{leaf.where}' uses the reserved sub-orchestration marker 'sub::'; "
                "root instance ids must not start with it or contain '::sub::'"
            )
    elif kind == "continueAsNew" or kind == "continueAsNewVersioned":
        leaf = leaf_of(CONTINUE, None, None)
    else:
        raise unknown(desc, kind)
    leaf.input = text(desc, "input")
    leaf.version = text_or_none(desc, "version")
    return leaf


cdef Node activity(dict desc, str session_key):
    cdef Leaf leaf = leaf_of(ACTIVITY, text(desc, "name"), text(desc, "input"))
    if session_key is not None:
        leaf.where = text(desc, session_key)
    if "tag" in desc:
        leaf.tag = text_or_none(desc, "tag")
    return leaf


cdef Node retry(dict desc, str session_key):
    cdef Leaf template = activity(desc, session_key)
    if "retry" not in desc:
        raise InvalidStep("missing field `retry`")
    policy = desc["retry"]
    if not isinstance(policy, dict):
        raise wrong(policy, "struct RetryPolicyConfig")
    attempts = unsigned(policy, "maxAttempts", "u32", U32)
    timeout_ms = unsigned_or_none(policy, "timeoutMs")
    total_ms = unsigned_or_none(policy, "totalTimeoutMs")
    overall_ms = unsigned_or_none(policy, "overallTimeoutMs")
    curve = backoff(policy.get("backoff"))
    if attempts < 1:
        raise Panic("max_attempts must be at least 1")
    return Retry(template, attempts, timeout_ms if total_ms is None else total_ms, overall_ms, curve)


def backoff(spec):
    """(initial ms, multiplier, cap ms, linear?) of a retry policy's `backoff`."""
    if spec is None or spec == "exponential":
        return 100, 2, 30_000, False
    if spec == "fixed":
        return 1_000, 1, 1_000, False
    if isinstance(spec, str):
        return 100, 1, 30_000, True
    if not isinstance(spec, dict):
        raise wrong(spec, "a string")
    kind = spec.get("type", "exponential")
    if kind not in ("exponential", "linear", "fixed"):
        raise InvalidStep(f"backoff type {kind!r}, expected 'exponential', 'linear' or 'fixed'")
    unknown_keys = set(spec) - {"type", "initial_ms", "multiplier", "max_ms"}
    if unknown_keys:
        raise InvalidStep(f"backoff key {min(map(repr, unknown_keys))}, expected 'type', 'initial_ms', 'multiplier' or 'max_ms'")
    initial = positive(spec, "initial_ms", 1_000 if kind == "fixed" else 100)
    most = positive(spec, "max_ms", initial if kind == "fixed" else 30_000)
    return initial, positive(spec, "multiplier", 2) if kind == "exponential" else 1, most, kind == "linear"


cdef object positive(dict spec, str key, object default):
    value = spec.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**61:
        raise InvalidStep(f"backoff {key} {value!r}, expected a number from 0")
    return value


cdef list members(dict desc, str where):
    cdef list nodes = []
    if "tasks" not in desc:
        raise InvalidStep("missing field `tasks`")
    tasks = desc["tasks"]
    if not isinstance(tasks, (list, tuple)):
        raise wrong(tasks, "a sequence")
    for task in tasks:
        if isinstance(task, dict) and (<dict>task).get("type") in NOT_MEMBERS:
            build(task)  # still says what is wrong inside it
            nodes.append(ErrorLeaf(f"unsupported task in {where}"))
        else:
            nodes.append(build(task))
    return nodes


cdef Node race(dict desc):
    cdef list nodes = members(desc, "select")
    if not nodes:
        return ErrorLeaf("select needs at least one task")
    return Race(nodes, False)


cdef object not_a_descriptor(desc):
    if isinstance(desc, (list, tuple)):
        if not desc:
            return InvalidStep("missing field `type`")
        if isinstance(desc[0], str):
            return unknown({}, desc[0]) if desc[0] not in TYPES else InvalidStep(f"invalid type: sequence, expected {EXPECTED}")
        if isinstance(desc[0], (dict, list, tuple)):
            return InvalidStep("invalid type: map, expected variant identifier")
    return wrong(desc, EXPECTED)


cdef object unknown(dict desc, kind):
    if kind is desc:
        return InvalidStep("missing field `type`")
    if not isinstance(kind, str):
        return wrong(kind, "variant identifier")
    known = ", ".join([f"`{t}`" for t in TYPES])
    return InvalidStep(f"unknown variant `{kind}`, expected one of {known}")

# cython: language_level=3
"""Commands -> events: every command that the code emitted gets its event, in order, and is bound to it.

Owns the fields of scheduling events and the answers of system calls. Refuses to know stored history and outcomes.
"""

from collections import deque

from duroxide.events import quote

from duroxide.engine._execution cimport IS_ACTIVITY, IS_CHILD, IS_DEQUEUE, IS_TIMER, IS_WAIT, Execution, full_child_id
from duroxide.engine._tasks cimport (
    ACTIVITY, CHILD, DEQUEUE, DETACHED, KV_CLEAR, KV_CLEAR_ALL, KV_SET, STATUS, TIMER, WAIT, Leaf,
)

MAX_TAG_BYTES = 256


cdef int settle(Execution execution) except -1:
    """Run the code and give every command its event, until nothing new comes."""
    while True:
        if execution.flag:
            execution.poll()
        if execution.stale:
            execution.cancel_dropped()
        if execution.commands:
            record_commands(execution)
        if not execution.flag:
            return 0


cdef int record_commands(Execution execution) except -1:
    cdef Leaf leaf
    cdef list syscalls = []
    commands, execution.commands = execution.commands, deque()
    for leaf in commands:
        if within_limits(execution, leaf):
            record(execution, leaf)
            if leaf.syscall:
                syscalls.append(leaf)
    for leaf in syscalls:  # answered in the turn that asks: the answer is in history before anyone can use it
        answer = str(execution.now) if leaf.name.endswith("utc_now_ms") else execution.env.guid()
        execution.write("ActivityCompleted", leaf.id, f',"result":{quote(answer)}')
        execution.close_schedule(leaf.id)
        execution.complete(leaf.id, answer, False)
    return 0


cdef bint within_limits(Execution execution, Leaf leaf) except -1:
    for text in (leaf.name, leaf.where, leaf.tag, leaf.input):
        if text is not None and not (<str> text).isascii():
            try:
                (<str> text).encode()
            except UnicodeEncodeError:
                return violates(execution, leaf, "text with a lone surrogate")
    if leaf.kind == ACTIVITY:
        if leaf.tag is not None:
            size = len(leaf.tag.encode())
            if size > MAX_TAG_BYTES:
                execution.violations.append(
                    (1, f"Activity '{leaf.name}' tag size ({size} bytes) exceeds limit ({MAX_TAG_BYTES} bytes)")
                )
                return False
            if "\0" in leaf.tag and not holds_nul(execution):
                return violates(execution, leaf, "a tag with a NUL character")
        if leaf.where is not None and "\0" in leaf.where and not holds_nul(execution):
            return violates(execution, leaf, "a session id with a NUL character")
    elif leaf.kind == CHILD or leaf.kind == DETACHED:
        if (leaf.where is not None and "\0" in leaf.where or "\0" in leaf.name) and not holds_nul(execution):
            return violates(execution, leaf, "an instance id or a name with a NUL character")
    elif leaf.kind == STATUS:
        if leaf.input is not None and "\0" in leaf.input and not holds_nul(execution):
            return violates(execution, leaf, "a custom status with a NUL character")
    elif leaf.kind == KV_SET or leaf.kind == KV_CLEAR:
        if ("\0" in leaf.name or leaf.input is not None and "\0" in leaf.input) and not holds_nul(execution):
            return violates(execution, leaf, "a value or a key with a NUL character")
    return True


cdef bint holds_nul(Execution execution) except -1:
    return getattr(execution.env, "holds_nul", True)


cdef bint violates(Execution execution, Leaf leaf, str what) except -1:
    """The instance fails at the end of this turn; the command gets no event, as nothing of it can be stored."""
    execution.violations.append((4, f"{what} cannot be stored{'' if leaf.name is None else f' ({ascii(leaf.name)})'}"))
    return False


cdef int record(Execution execution, Leaf leaf) except -1:
    """Write the command's event and bind it."""
    cdef long long id = execution.last_event_id + 1
    cdef int kind = leaf.kind
    cdef str target = None
    if kind == ACTIVITY:
        affinity = "" if leaf.where is None else f',"session_id":{quote(leaf.where)}'
        if leaf.tag is not None:
            affinity += f',"tag":{quote(leaf.tag)}'
        execution.write("ActivityScheduled", None, f',"name":{quote(leaf.name)},"input":{quote(leaf.input)}{affinity}')
        execution.mark(id, IS_ACTIVITY)
    elif kind == TIMER:
        execution.write("TimerCreated", None, f',"fire_at_ms":{leaf.number}')
        execution.mark(id, IS_TIMER)
    elif kind == CHILD:
        suffix = leaf.where
        if suffix is None:
            suffix = f"sub::{id}" if execution.execution_id == 1 else f"sub::{execution.execution_id}_{id}"
        target = full_child_id(execution.instance, suffix)
        fields = f',"name":{quote(leaf.name)},"instance":{quote(suffix)},"input":{quote(leaf.input)}'
        execution.write("SubOrchestrationScheduled", None, fields)
        execution.mark(id, IS_CHILD)
        execution.targets[id] = target
    elif kind == WAIT:
        execution.write("ExternalSubscribed", None, f',"name":{quote(leaf.name)}')
        execution.mark(id, IS_WAIT)
    elif kind == DEQUEUE:
        execution.write("ExternalSubscribedPersistent", None, f',"name":{quote(leaf.name)}')
        execution.mark(id, IS_DEQUEUE)
    else:
        record_immediate(execution, leaf)
    execution.recorded.append(leaf)
    return execution.bind(leaf, id, target)


cdef int record_immediate(Execution execution, Leaf leaf) except -1:
    """Commands that nothing waits for."""
    cdef int kind = leaf.kind
    if kind == DETACHED:
        fields = f',"name":{quote(leaf.name)},"instance":{quote(leaf.where)},"input":{quote(leaf.input)}'
        execution.write("OrchestrationChained", None, fields)
    elif kind == STATUS:
        execution.write("CustomStatusUpdated", None, f',"status":{"null" if leaf.input is None else quote(leaf.input)}')
        execution.status_delta = (leaf.input,)
    elif kind == KV_SET:
        fields = f',"key":{quote(leaf.name)},"value":{quote(leaf.input)},"last_updated_at_ms":{leaf.number}'
        execution.write("KeyValueSet", None, fields)
        execution.kv_delta.append((0, leaf.name, leaf.input, leaf.number))
    elif kind == KV_CLEAR:
        execution.write("KeyValueCleared", None, f',"key":{quote(leaf.name)}')
        execution.kv_delta.append((1, leaf.name, None, execution.now))
    elif kind == KV_CLEAR_ALL:
        execution.write("KeyValuesCleared", None, "")
        execution.kv_delta.append((2, None, None, execution.now))
    return 0

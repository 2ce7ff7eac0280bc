# cython: language_level=3
"""One execution of an orchestration: the user's generator, the commands it emitted, and what each of them waits for.

Owns the drive of the code between two events (`poll`), and what the context asks for at once (KV, custom status). Refuses to know
messages, stored history, outcomes and stores: `_stored`, `_commands` and `_outcome` work on this state.
"""

from collections import deque
from types import GeneratorType

from duroxide.errors import ActivityError, Cancelled, SubOrchestrationError
from duroxide.events import STAMP, application_failure, display, quote
from duroxide.engine._codec import clean, dumps, read
from duroxide.engine._descriptors import InvalidStep, Panic
from duroxide.engine._history import Nondeterminism

from duroxide.engine._channels cimport Channel, new_channel
from duroxide.engine._descriptors cimport build
from duroxide.engine._tasks cimport (
    ACTIVITY, CHILD, CONTINUE, DEQUEUE, KV_CLEAR, KV_CLEAR_ALL, KV_SET, STATUS, TIMER, WAIT, Leaf, Node, leaf_of,
)

MAX_STATUS_BYTES = 262_144
MAX_KV_BYTES = 65_536


cdef str full_child_id(str parent, str instance):
    return f"{parent}::{instance}" if instance.startswith("sub::") else instance


cdef class Execution(Scope):
    """Live state of one execution between its turns. Not thread-safe: whoever holds the instance's lease uses it."""

    def __init__(self, str instance, long long execution_id, str name, str version, str input, tuple parent, bint legacy, env):
        self.instance = instance
        self.execution_id = execution_id
        self.name = name
        self.version = version
        self.input = input
        self.parent = parent
        self.legacy = legacy
        self.env = env
        self.status = "Running"
        self.state = RUNNING
        self.first_step = True
        self.flag = 2
        self.commands = deque()
        self.kinds = bytearray(16)
        self.open = {}
        self.targets = {}
        self.events = {}
        self.queues = {}
        self.drops = []
        self.kv = {}
        self.set_times = []
        self.warnings = []
        self.open_turn(0)

    def __repr__(self):
        return f"Execution({self.instance!r}, {self.execution_id}, {self.name!r}, event {self.last_event_id})"

    @property
    def size(self):
        """Estimated bytes held: what the cache counts."""
        held = 2_000 + len(self.kinds) + 400 * len(self.open) + len(self.input)
        for key, (value, _) in self.kv.items():
            held += len(key) + len(value) + 100
        return held

    def close(self):
        """End the generator (its `finally` blocks run once, now). Whatever it still yields or raises is ignored."""
        self.active = False
        generator, self.generator, self.ctx, self.root = self.generator, None, None, None
        if generator is not None:
            try:
                generator.close()
            except BaseException:
                pass  # the execution is over or will be replayed: nobody is left to tell

    # ── what nodes ask ───────────────────────────────────────────────────────────────────────────────────────

    cdef int emit(self, Leaf leaf) except -1:
        self.tokens += 1
        leaf.token = self.tokens
        if leaf.kind == TIMER:
            leaf.number += self.now
        self.commands.append(leaf)
        if leaf.kind == CONTINUE:
            self.successor = leaf
            self.state = CONTINUED
        return 0

    cdef int dropped(self, Leaf leaf) except -1:
        cdef Channel channel
        if leaf.kind == TIMER:
            return 0
        self.drops.append(leaf)
        if leaf.id and self.legacy:
            self.stale = self.stale or leaf.kind == DEQUEUE
        elif leaf.id and (leaf.kind == WAIT or leaf.kind == DEQUEUE):
            channel = (self.queues if leaf.kind == DEQUEUE else self.events)[leaf.name]
            channel.dropped(leaf)
        return 0

    cdef str child_error(self, Leaf leaf):
        if leaf.where is None or not leaf.where.startswith("sub::"):
            return None
        return (
            f"sub-orchestration instance id '{leaf.where}' starts with the reserved marker 'sub::', which the runtime uses to mark "
            "auto-generated child ids; use an id that does not begin with it"
        )

    # ── what the context asks ────────────────────────────────────────────────────────────────────────────────

    def set_custom_status(self, str text):
        if not self.active:
            return
        size = 0 if text is None else len(text.encode())
        self.violations = [v for v in self.violations if v[0] != 0]
        if size > MAX_STATUS_BYTES:
            self.violations.append((0, f"Custom status size ({size} bytes) exceeds limit ({MAX_STATUS_BYTES} bytes)"))
        self.custom_status = text
        self.emit(leaf_of(STATUS, None, text))

    def get_custom_status(self):
        return self.custom_status if self.active else None

    def kv_set(self, str key not None, str value not None):
        cdef Leaf leaf
        if not self.active:
            return
        key.encode()
        size = len(value.encode())
        if size > MAX_KV_BYTES:
            self.violations.append((2, f"KV value for key '{key}' ({size} bytes) exceeds limit ({MAX_KV_BYTES} bytes)"))
            return
        leaf = leaf_of(KV_SET, key, value)
        # A replayed set keeps the time that history has for it: prune decides alike on every replay.
        leaf.number = self.set_times[self.sets] if self.sets < len(self.set_times) else self.now
        self.sets += 1
        self.kv[key] = (value, leaf.number)
        self.emit(leaf)

    def kv_get(self, str key not None):
        found = self.kv.get(key) if self.active else None
        return None if found is None else found[0]

    def kv_items(self):
        return {key: value for key, (value, _) in self.kv.items()} if self.active else {}

    def kv_clear(self, str key not None):
        if self.active:
            key.encode()
            self.kv.pop(key, None)
            self.emit(leaf_of(KV_CLEAR, key, None))

    def kv_clear_all(self):
        if self.active:
            self.kv.clear()
            self.emit(leaf_of(KV_CLEAR_ALL, None, None))

    def kv_prune(self, cutoff_ms):
        if not self.active:
            return 0
        old = sorted([key for key, (_, at) in self.kv.items() if at < cutoff_ms])
        for key in old:
            self.kv_clear(key)
        return len(old)

    # ── the code ─────────────────────────────────────────────────────────────────────────────────────────────

    cdef int poll(self) except -1:
        """Run the code until it blocks or ends."""
        cdef Node node
        self.is_replaying = self.flag == 1
        self.flag = 0
        self.active = True
        try:
            if self.legacy:
                self.deliver()
            while self.state == RUNNING and (self.root is None or self.root.done):
                node = self.step()
                if node is None:
                    break
                self.root = node
                node.start(self)
        finally:
            self.active = False
        return 0

    cdef object step(self):
        """Resume the code with its awaited value; the next node, or None when it ended."""
        cdef Node root = self.root
        cdef bint first = self.first_step
        self.root = None
        try:
            if first:
                self.first_step = False
                self.ctx = self.env.context(self)
                output = self.function(self.ctx, read(self.input) if self.input else None)
                if not isinstance(output, GeneratorType):
                    return self.returned(output)
                self.generator = output
            try:
                if root is None:
                    desc = self.generator.send(None)
                elif root.failed:
                    desc = self.generator.throw(root.value)
                else:
                    desc = self.generator.send(root.value)
            except StopIteration as stop:
                return self.returned(stop.value)
            return build(desc)
        except InvalidStep as error:
            self.fail(application_failure(clean(str(error)), "OrchestrationFailed"))
        except Panic as error:
            self.fail(application_failure(clean(str(error)), "Panicked"))
        except Exception:
            import traceback  # when there is one to be shown: a twentieth of the package's import time

            text = clean(traceback.format_exc())
            self.fail(application_failure(text, "OrchestrationFailed"))
        except BaseException as error:
            verb = "create" if first else "next"
            self.fail(application_failure(clean(f"Generator {verb} failed: {type(error).__name__}: {error}"), "OrchestrationFailed"))
        return None

    def returned(self, output):
        self.outcome = dumps(output)
        self.state = COMPLETED

    cdef int fail(self, str details) except -1:
        self.outcome = details
        self.state = FAILED
        return 0

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────

    cdef int open_turn(self, long long now_ms) except -1:
        self.now = now_ms
        self.head = (
            f',"instance_id":{quote(self.instance)},"execution_id":{self.execution_id},"timestamp_ms":{now_ms},'
            f'"duroxide_version":"{STAMP}","type":"'
        )
        self.written = []
        self.recorded = []
        self.status_delta = None
        self.kv_delta = []
        self.violations = []
        self.warnings = []
        return 0

    cdef long long write(self, str type, object source, str fields) except -1:
        """Append an event; `fields` is `,"key":value...` or empty. Returns its id."""
        cdef long long id = self.last_event_id + 1
        link = "null" if source is None else str(source)
        self.last_event_id = id
        self.written.append((id, type, f'{{"event_id":{id},"source_event_id":{link}{self.head}{type}"{fields}}}'))
        return id

    cdef int mark(self, long long id, int kind) except -1:
        if id >= len(self.kinds):
            self.kinds.extend(bytes(max(id + 1 - len(self.kinds), len(self.kinds))))
        self.kinds[id] = self.kinds[id] | kind
        return 0

    cdef int kind_at(self, long long id) noexcept:
        cdef bytearray kinds = self.kinds
        return kinds[id] if 0 < id < len(kinds) else 0

    cdef int close_schedule(self, long long id) except -1:
        self.mark(id, CLOSED)
        self.targets.pop(id, None)
        return 0

    cdef int complete(self, long long id, object value, bint failed) except -1:
        """Deliver a completion to the command recorded as event `id`; `value` is JSON text or error details."""
        cdef Leaf leaf = self.open.pop(id, None)
        self.flag = 2
        if leaf is None:
            raise Nondeterminism("completion without open schedule")
        if leaf.is_dropped:
            return 0
        if failed:
            return leaf.finish(self, failure_of(leaf, value), True)
        return leaf.finish(self, None if leaf.kind == TIMER else loaded_value(leaf, value), False)

    cdef int arrive(self, bint queue, str name, str data) except -1:
        cdef Channel channel = self.channel(queue, name)
        self.arrival += 1
        if channel.arrive(self, data, self.arrival) or queue:
            self.flag = 2
        return 0

    cdef int cancel_dropped(self) except -1:
        """Older policy, between the arrivals of a turn and its commands: dropped dequeues leave, and the code may run by that."""
        cdef Channel channel
        self.stale = False
        for channel in self.queues.values():
            channel.cancel_dropped()
        if self.due():
            self.flag = 2
        return 0

    cdef list due(self):
        """What the channels of the older policy have for the code, in the order in which it asked."""
        cdef Channel channel
        found = []
        for channels in (self.events, self.queues):
            for channel in channels.values():
                found += channel.due()
        found.sort(key=first)
        return found

    cdef int deliver(self) except -1:
        """Older policy: the code is told when it runs, not when an arrival finds its place, so that a race is decided where it was."""
        cdef Leaf leaf
        for _, leaf, data in self.due():
            if not leaf.done and not leaf.is_dropped:
                leaf.finish(self, read(data), False)
        return 0

    def channel(self, bint queue, str name):
        channels = self.queues if queue else self.events
        found = channels.get(name)
        if found is None:
            found = channels[name] = new_channel(queue, self.legacy)
        return found

    cdef int bind(self, Leaf leaf, long long id, str target) except -1:
        """The command is event `id` now: completions find it there."""
        cdef Channel channel
        leaf.id = id
        if leaf.kind == ACTIVITY or leaf.kind == TIMER:
            self.open[id] = leaf
        elif leaf.kind == CHILD:
            leaf.target = target
            self.open[id] = leaf
        elif leaf.kind == WAIT or leaf.kind == DEQUEUE:
            channel = self.channel(leaf.kind == DEQUEUE, leaf.name)
            channel.bind(self, leaf)
            if leaf.kind == DEQUEUE:
                self.flag = 2
        return 0

    cdef list waiting(self):
        """Bound subscriptions without an arrival: events by id, then queues by id."""
        cdef Channel channel
        found = []
        for channels in (self.events, self.queues):
            leaves = []
            for channel in channels.values():
                leaves += channel.waiting_leaves()
            leaves.sort(key=leaf_id)
            found += leaves
        return found


def leaf_id(Leaf leaf):
    return leaf.id


def first(tuple entry):
    return entry[0]


cdef object loaded_value(Leaf leaf, text):
    """A result as the code gets it. System calls answer in plain text: a number of ms, a guid; a KV read keeps its string."""
    value = read(text)
    if leaf.syscall and leaf.name.endswith("new_guid"):
        return text
    return value


cdef object failure_of(Leaf leaf, dict details):
    """The exception that the code gets for Application details."""
    _, text = display(details)
    if leaf.kind == CHILD:
        cancelled = isinstance(details["Application"]["kind"], dict)
        return (Cancelled if cancelled else SubOrchestrationError)(text, leaf.name, leaf.target)
    head = f"Activity '{leaf.name}' call failed: "
    error_type = text[len(head):].split(":", 1)[0] if text.startswith(head) else None
    return ActivityError(text, leaf.name, error_type)

# cython: language_level=3
"""One execution of an orchestration: the user's generator, the commands it emitted, what each of them waits for, and its history index.

Owns replay and the drive of the code between two events (`poll`), and what the context asks for at once (KV, custom status).
Refuses to know messages, outcomes and stores: `_replay` turns an inbox into events and this state into an outbox.
"""

import traceback
from collections import deque
from types import GeneratorType

from duroxide.errors import ActivityError, Cancelled, SubOrchestrationError
from duroxide.events import STAMP, application_failure, display, quote
from duroxide.engine._codec import clean, dumps, read
from duroxide.engine._descriptors import InvalidStep, Panic
from duroxide.engine._history import CorruptHistory, Nondeterminism, is_command

from duroxide.engine._channels cimport Channel, new_channel
from duroxide.engine._descriptors cimport build
from duroxide.engine._history cimport take_match
from duroxide.engine._tasks cimport (
    ACTIVITY, CHILD, CONTINUE, DEQUEUE, DETACHED, KV_CLEAR, KV_CLEAR_ALL, KV_SET, STATUS, TIMER, WAIT, Leaf, Node, leaf_of,
)

MAX_STATUS_BYTES = 262_144
MAX_TAG_BYTES = 256
MAX_KV_BYTES = 65_536

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
        if leaf.id and not self.legacy and (leaf.kind == WAIT or leaf.kind == DEQUEUE):
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

    # ── stored history ───────────────────────────────────────────────────────────────────────────────────────

    cdef int index(self, list events) except -1:
        """Note what stored events (decoded) schedule, complete and cancel, without running code."""
        for event in events:
            kind, id = event["type"], event["event_id"]
            if kind in SCHEDULES:
                self.mark(id, SCHEDULES[kind])
                if kind == "SubOrchestrationScheduled":
                    self.targets[id] = full_child_id(self.instance, event["instance"])
            elif kind in COMPLETIONS:
                self.close_schedule(event["source_event_id"])
            elif kind in CANCELS:
                self.mark(event["source_event_id"], CANCELLED)
            elif kind == "KeyValueSet":
                self.set_times.append(event.get("last_updated_at_ms", 0))
            elif kind == "OrchestrationCancelRequested" and self.cancel_reason is None:
                self.cancel_reason = event["reason"]
            self.last_event_id = id
        return 0

    cdef int replay(self, list events) except -1:
        """Walk stored events against the code. Nondeterminism where they do not fit."""
        cdef Py_ssize_t at
        self.flag = 1
        for at in range(len(events)):
            if self.flag:
                self.flag = 1
                self.poll()
            if self.state == COMPLETED or self.state == FAILED:
                self.note_early_end(events, at)
                break
            self.apply_stored(events[at])
        if self.flag:
            self.flag = 1
            self.poll()
        return self.check_cancels(events)

    def note_early_end(self, list events, Py_ssize_t at):
        left = [e["event_id"] for e in events[at:] if is_command(e["type"])][len(self.commands):]
        if left:
            self.warnings.append(
                f"orchestration '{self.name}' ended at event {at}, but its history goes on: event {left[0]} was asked for by code "
                "that is no longer there; was the function changed while this instance was running?"
            )

    cdef int apply_stored(self, dict event) except -1:
        cdef Leaf leaf
        cdef str kind = event["type"]
        cdef long long id = event["event_id"]
        if is_command(kind):
            leaf = take_match(self.commands, event)
            if leaf is not None:
                self.bind(leaf, id, full_child_id(self.instance, event["instance"]) if leaf.kind == CHILD else None)
        elif kind in COMPLETIONS:
            source = event["source_event_id"]
            leaf = self.open.get(source)
            if leaf is not None and leaf.kind != COMPLETIONS[kind]:
                raise Nondeterminism(f"completion kind mismatch: expected {KIND_NAMES[COMPLETIONS[kind]]}")
            failed = kind.endswith("Failed")
            self.complete(source, event["details"] if failed else event.get("result"), failed)
        elif kind == "ExternalEvent" or kind == "ExternalEventPersistent":
            self.arrive(kind == "ExternalEventPersistent", event["name"], event["data"])
        elif self.legacy and (kind == "ExternalSubscribedCancelled" or kind == "ExternalSubscribedPersistentCancelled"):
            self.cancel_replayed(event["source_event_id"])
        return 0

    def cancel_replayed(self, id):
        cdef Channel channel
        for channel in (*self.events.values(), *self.queues.values()):
            channel.cancel_replayed(self, id)

    cdef int adopt_waits(self, list events) except -1:
        """The code does not fit these events, so what waits is read from them alone."""
        cdef Channel channel
        cdef Leaf leaf
        self.events, self.queues = {}, {}
        leaves = {}
        for event in events:
            kind = event["type"]
            if SCHEDULES.get(kind) == IS_WAIT or SCHEDULES.get(kind) == IS_DEQUEUE:
                leaf = leaves[event["event_id"]] = leaf_of(WAIT if SCHEDULES[kind] == IS_WAIT else DEQUEUE, event["name"], None)
                self.bind(leaf, event["event_id"], None)
            elif kind == "ExternalEvent" or kind == "ExternalEventPersistent":
                self.arrive(kind == "ExternalEventPersistent", event["name"], event["data"])
            elif CANCELS.get(kind, "").endswith("waits"):
                leaf = leaves[event["source_event_id"]]
                channel = self.channel(leaf.kind == DEQUEUE, leaf.name)
                if not leaf.done:
                    leaf.is_dropped = True
                    channel.dropped(leaf)
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

    cdef int check_cancels(self, list events) except -1:
        """Every stored cancel of a dropped future must have been made again by the code; those are not recorded twice."""
        cdef Leaf leaf
        stored = {name: set() for name in CANCEL_ORDER}
        for event in events:
            if event["type"] in CANCELS and event["reason"] == "dropped_future":
                stored[CANCELS[event["type"]]].add(event["source_event_id"])
        made = {name: set() for name in CANCEL_ORDER}
        for leaf in self.drops:
            made[CANCEL_OF[leaf.kind]].add(leaf.id)
        for name in CANCEL_ORDER:
            if not stored[name] <= made[name]:
                raise Nondeterminism(
                    f"cancellation mismatch ({name}): baseline_dropped_future_cancel_requests={shown(stored[name])} "
                    f"ctx_cancelled_in_replayed_segment={shown(made[name])}"
                )
        self.drops = [leaf for leaf in self.drops if leaf.id not in stored[CANCEL_OF[leaf.kind]]]
        return 0

    # ── new commands ─────────────────────────────────────────────────────────────────────────────────────────

    cdef int settle(self) except -1:
        """Run the code and give every command its event, until nothing new comes."""
        while True:
            if self.flag:
                self.poll()
            if self.commands:
                self.record_commands()
            if not self.flag:
                return 0

    cdef int record_commands(self) except -1:
        cdef Leaf leaf
        cdef list syscalls = []
        commands, self.commands = self.commands, deque()
        for leaf in commands:
            if self.within_limits(leaf):
                self.record(leaf)
                if leaf.syscall:
                    syscalls.append(leaf)
        for leaf in syscalls:  # answered in the turn that asks: the answer is in history before anyone can use it
            answer = str(self.now) if leaf.name.endswith("utc_now_ms") else self.env.guid()
            self.write("ActivityCompleted", leaf.id, f',"result":{quote(answer)}')
            self.close_schedule(leaf.id)
            self.complete(leaf.id, answer, False)
        return 0

    cdef bint within_limits(self, Leaf leaf) except -1:
        if leaf.kind == ACTIVITY and leaf.tag is not None:
            size = len(leaf.tag.encode())
            if size > MAX_TAG_BYTES:
                self.violations.append((1, f"Activity '{leaf.name}' tag size ({size} bytes) exceeds limit ({MAX_TAG_BYTES} bytes)"))
                return False
        return True

    cdef int record(self, Leaf leaf) except -1:
        """Write the command's event and bind it."""
        cdef long long id = self.last_event_id + 1
        cdef int kind = leaf.kind
        cdef str target = None
        if kind == ACTIVITY:
            affinity = "" if leaf.where is None else f',"session_id":{quote(leaf.where)}'
            if leaf.tag is not None:
                affinity += f',"tag":{quote(leaf.tag)}'
            self.write("ActivityScheduled", None, f',"name":{quote(leaf.name)},"input":{quote(leaf.input)}{affinity}')
            self.mark(id, IS_ACTIVITY)
        elif kind == TIMER:
            self.write("TimerCreated", None, f',"fire_at_ms":{leaf.number}')
            self.mark(id, IS_TIMER)
        elif kind == CHILD:
            suffix = leaf.where
            if suffix is None:
                suffix = f"sub::{id}" if self.execution_id == 1 else f"sub::{self.execution_id}_{id}"
            target = full_child_id(self.instance, suffix)
            fields = f',"name":{quote(leaf.name)},"instance":{quote(suffix)},"input":{quote(leaf.input)}'
            self.write("SubOrchestrationScheduled", None, fields)
            self.mark(id, IS_CHILD)
            self.targets[id] = target
        elif kind == WAIT:
            self.write("ExternalSubscribed", None, f',"name":{quote(leaf.name)}')
            self.mark(id, IS_WAIT)
        elif kind == DEQUEUE:
            self.write("ExternalSubscribedPersistent", None, f',"name":{quote(leaf.name)}')
            self.mark(id, IS_DEQUEUE)
        else:
            self.record_immediate(leaf)
        self.recorded.append(leaf)
        return self.bind(leaf, id, target)

    def record_immediate(self, Leaf leaf):
        """Commands that nothing waits for."""
        cdef int kind = leaf.kind
        if kind == DETACHED:
            fields = f',"name":{quote(leaf.name)},"instance":{quote(leaf.where)},"input":{quote(leaf.input)}'
            self.write("OrchestrationChained", None, fields)
        elif kind == STATUS:
            self.write("CustomStatusUpdated", None, f',"status":{"null" if leaf.input is None else quote(leaf.input)}')
            self.status_delta = (leaf.input,)
        elif kind == KV_SET:
            fields = f',"key":{quote(leaf.name)},"value":{quote(leaf.input)},"last_updated_at_ms":{leaf.number}'
            self.write("KeyValueSet", None, fields)
            self.kv_delta.append((0, leaf.name, leaf.input, leaf.number))
        elif kind == KV_CLEAR:
            self.write("KeyValueCleared", None, f',"key":{quote(leaf.name)}')
            self.kv_delta.append((1, leaf.name, None, self.now))
        elif kind == KV_CLEAR_ALL:
            self.write("KeyValuesCleared", None, "")
            self.kv_delta.append((2, None, None, self.now))


def leaf_id(Leaf leaf):
    return leaf.id


KIND_NAMES = {ACTIVITY: "activity", TIMER: "timer", CHILD: "suborchestration"}


def shown(ids):
    """A set of event ids as the texts show it."""
    return "{" + ", ".join(map(str, sorted(ids))) + "}"


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

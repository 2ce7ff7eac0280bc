# cython: language_level=3
"""The tree behind one yield: leaves that a turn records as commands, and all/race/retry nodes above them.

Owns how results travel upwards: a leaf that gets its result tells its parent, a node decides once, losers are dropped. One
completion costs the depth of the tree, never its width. Refuses to know event texts, ids and stores (`Scope` stands for the execution).
"""

from duroxide.errors import ActivityTimeout

TIMEOUT_TEXT = "timeout: activity timed out"


cdef class Scope:
    """What nodes ask of their execution."""

    cdef int emit(self, Leaf leaf) except -1:
        """Put the command into the queue of commands not yet in history."""
        return 0

    cdef int dropped(self, Leaf leaf) except -1:
        """The pending leaf's future is gone."""
        return 0

    cdef str child_error(self, Leaf leaf):
        """Why this child cannot be asked for, or None."""
        return None


cdef class Node:
    """Part of a yield's tree. `start` is its first poll; `finish` reports upwards once."""

    cdef int start(self, Scope scope) except -1:
        return 0

    cdef int child(self, Scope scope, Node child) except -1:
        return 0

    cdef int drop(self, Scope scope) except -1:
        return 0

    cdef int finish(self, Scope scope, object value, bint failed) except -1:
        if self.done:
            return 0
        self.done = True
        self.failed = failed
        self.value = value
        if self.parent is not None:
            self.parent.child(scope, self)
        return 0


cdef class Leaf(Node):
    """One command; its `kind` says which fields count (see the .pxd)."""

    cdef int start(self, Scope scope) except -1:
        self.started = True
        if self.kind == CHILD:
            error = scope.child_error(self)
            if error is not None:
                return self.finish(scope, Exception(error), True)
        scope.emit(self)
        if self.kind == DETACHED:
            self.finish(scope, None, False)
        return 0

    cdef int drop(self, Scope scope) except -1:
        if not self.done and not self.is_dropped:
            self.is_dropped = True
            scope.dropped(self)
        return 0


cdef Leaf leaf_of(int kind, str name, str input):
    cdef Leaf leaf = Leaf.__new__(Leaf)
    leaf.kind = kind
    leaf.name = name
    leaf.input = input
    return leaf


cdef class ErrorLeaf(Node):
    """A member that cannot be one: fails at its first poll, records nothing."""

    def __init__(self, text):
        self.value = Exception(text)

    cdef int start(self, Scope scope) except -1:
        self.started = True
        return self.finish(scope, self.value, True)

    cdef int drop(self, Scope scope) except -1:
        return 0


cdef class Group(Node):
    """Members polled in order. A member that finishes at its first poll counts at once."""

    def __init__(self, list members, bint typed):
        cdef Py_ssize_t i
        cdef Node member
        self.members = members
        self.typed = typed
        for i in range(len(members)):
            member = members[i]
            member.parent = self
            member.slot = i

    cdef int start(self, Scope scope) except -1:
        cdef Node member
        self.started = True
        for member in self.members:
            if self.done:  # a race decided: the rest is never polled, so it never exists
                break
            member.start(scope)
        return 0

    cdef int drop(self, Scope scope) except -1:
        cdef Node member
        if not self.done:
            for member in self.members:
                if member.started and not member.done:
                    member.drop(scope)
        return 0


cdef class All(Group):
    """Done when every member is; a failed member becomes {"err": text}."""

    def __init__(self, list members, bint typed):
        Group.__init__(self, members, typed)
        self.remaining = len(members)

    cdef int start(self, Scope scope) except -1:
        Group.start(self, scope)
        if not self.members:
            self.finish(scope, [], False)
        return 0

    cdef int child(self, Scope scope, Node child) except -1:
        cdef Node member
        cdef list results
        self.remaining -= 1
        if self.remaining:
            return 0
        results = []
        for member in self.members:
            if member.failed:
                results.append({"err": str(member.value)})
            elif self.typed:
                results.append(member.value)
            else:
                results.append({"ok": member.value})
            member.value = None
        return self.finish(scope, results, False)


cdef class Race(Group):
    """The first member decides; the others' futures are dropped."""

    cdef int child(self, Scope scope, Node child) except -1:
        cdef Node member
        if self.done:
            return 0
        for member in self.members:
            if member is not child and member.started and not member.done:
                member.drop(scope)
        if child.failed:
            return self.finish(scope, child.value, True)
        return self.finish(scope, {"index": child.slot, "value": child.value}, False)


cdef class Retry(Node):
    """An activity, again after each failure. A timeout ends it at once; `overall_ms` bounds all attempts together."""

    def __init__(self, Leaf template, max_attempts, timeout_ms, overall_ms, backoff):
        self.template = template
        self.max_attempts = max_attempts
        self.timeout_ms = -1 if timeout_ms is None else timeout_ms
        self.overall_ms = -1 if overall_ms is None else overall_ms
        self.backoff = backoff

    cdef int start(self, Scope scope) except -1:
        self.started = True
        self.begin(scope)
        if self.overall_ms >= 0 and not self.done:
            self.overall = self.timer(scope, self.overall_ms)
        return 0

    cdef int begin(self, Scope scope) except -1:
        cdef Leaf leaf = leaf_of(ACTIVITY, self.template.name, self.template.input)
        leaf.where = self.template.where
        leaf.tag = self.template.tag
        leaf.parent = self
        self.attempt += 1
        self.activity = leaf
        leaf.start(scope)
        if self.timeout_ms >= 0:
            self.timeout = self.timer(scope, self.timeout_ms)
        return 0

    cdef Leaf timer(self, Scope scope, long long delay_ms):
        cdef Leaf leaf = leaf_of(TIMER, None, None)
        leaf.number = delay_ms
        leaf.parent = self
        leaf.start(scope)
        return leaf

    cdef int child(self, Scope scope, Node child) except -1:
        if self.done:
            return 0
        if child is self.overall or child is self.timeout:
            self.drop_members(scope)
            return self.finish(scope, ActivityTimeout(TIMEOUT_TEXT, self.template.name), True)
        if child is self.pause:
            self.pause = None
            return self.begin(scope)
        return self.attempted(scope, child)

    cdef int attempted(self, Scope scope, Node child) except -1:
        if self.timeout is not None:
            self.timeout.drop(scope)
            self.timeout = None
        if not child.failed or self.attempt >= self.max_attempts:
            if self.overall is not None:
                self.overall.drop(scope)
            return self.finish(scope, child.value, child.failed)
        delay = self.delay()
        if delay > 0:
            self.pause = self.timer(scope, delay)
            return 0
        return self.begin(scope)

    cdef long long delay(self) except -1:
        initial, multiplier, most, linear = self.backoff
        n = self.attempt
        try:
            grown = initial * n if linear else initial * multiplier ** (n - 1)
        except OverflowError:
            return most
        return <long long>min(grown, most)

    cdef int drop_members(self, Scope scope) except -1:
        cdef Leaf leaf
        for leaf in (self.activity, self.timeout, self.pause, self.overall):
            if leaf is not None:
                leaf.drop(scope)
        return 0

    cdef int drop(self, Scope scope) except -1:
        if not self.done:
            self.drop_members(scope)
        return 0

# cython: language_level=3
"""Who gets which external event (by name: `raise_event`) and which queue message (`enqueue_event`), under either policy.

Executions stamped 0.1.31 or later use `Fifo`: a dropped wait leaves at once. Older ones use `Indexed`: the k-th subscription has the k-th
arrival, and a dropped wait keeps its place until its cancel event is replayed, a dropped dequeue until the arrivals of its turn are
over. Refuses to know events' ids and texts.
"""

from collections import deque

from duroxide.engine._codec import read
from duroxide.engine._tasks cimport Leaf, Scope


cdef class Channel:
    """One name. `buffered`: arrivals wait for a subscription (queues) or are lost without one (events)."""

    cdef bint bind(self, Scope scope, Leaf leaf) except -1:
        """The subscription is in history now; True if it got its arrival at once."""
        return False

    cdef bint arrive(self, Scope scope, str data, long long order) except -1:
        """True if somebody got it."""
        return False

    cdef int dropped(self, Leaf leaf) except -1:
        """A bound subscription's future is gone."""
        return 0

    cdef int cancel_replayed(self, long long id) except -1:
        """History says here that subscription `id` was cancelled (if it is one of this name)."""
        return 0

    cdef int cancel_dropped(self) except -1:
        """The arrivals of a turn are all there: dropped subscriptions leave now."""
        return 0

    cdef list due(self):
        """[(id, subscription, data)] of arrivals that the code has not been told of: it is, when it runs next."""
        return []

    cdef list waiting_leaves(self):
        """Bound subscriptions that still wait and interest somebody."""
        return []

    cdef list unread(self):
        """[(order, data)] that nobody got: what continue-as-new carries."""
        return []


cdef class Fifo(Channel):
    def __cinit__(self):
        self.waiting = deque()
        self.arrivals = deque()

    cdef bint bind(self, Scope scope, Leaf leaf) except -1:
        if leaf.is_dropped:
            return False
        if self.arrivals:
            leaf.finish(scope, read(self.arrivals.popleft()[1]), False)
            return True
        self.waiting.append(leaf)
        return False

    cdef bint arrive(self, Scope scope, str data, long long order) except -1:
        cdef Leaf leaf
        if self.waiting:
            leaf = self.waiting.popleft()
            leaf.finish(scope, read(data), False)
            return True
        if self.buffered:
            self.arrivals.append((order, data))
        return False

    cdef int dropped(self, Leaf leaf) except -1:
        self.waiting.remove(leaf)
        return 0

    cdef list waiting_leaves(self):
        return list(self.waiting)

    cdef list unread(self):
        return list(self.arrivals)


cdef class Indexed(Channel):
    def __cinit__(self):
        self.subscriptions = []
        self.arrivals = []

    cdef bint bind(self, Scope scope, Leaf leaf) except -1:
        self.subscriptions.append(leaf)
        return False

    cdef bint arrive(self, Scope scope, str data, long long order) except -1:
        if not self.buffered and len(self.arrivals) >= len(self.subscriptions):
            return False
        self.arrivals.append((order, data))
        return True

    cdef int cancel_replayed(self, long long id) except -1:
        cdef Leaf leaf
        self.subscriptions = [leaf for leaf in self.subscriptions if leaf.id != id]
        return 0

    cdef int cancel_dropped(self) except -1:
        cdef Leaf leaf
        self.subscriptions = [leaf for leaf in self.subscriptions if leaf.done or not leaf.is_dropped]
        return 0

    cdef list due(self):
        cdef Leaf leaf
        pairs = zip(self.subscriptions, self.arrivals)
        return [(leaf.id, leaf, data) for leaf, (_, data) in pairs if not leaf.done and not leaf.is_dropped]

    cdef list waiting_leaves(self):
        cdef Leaf leaf
        return [leaf for leaf in self.subscriptions[len(self.arrivals):] if not leaf.done and not leaf.is_dropped]

    cdef list unread(self):
        cdef Leaf leaf
        return self.arrivals[len([leaf for leaf in self.subscriptions if not leaf.is_dropped]):]


cdef Channel new_channel(bint buffered, bint legacy):
    cdef Channel channel = Indexed.__new__(Indexed) if legacy else Fifo.__new__(Fifo)
    channel.buffered = buffered
    return channel

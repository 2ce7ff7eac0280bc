# cython: language_level=3
"""The noun: one claimed instance and its inbox. The runtime fills it, `_replay` reads it once.

Owns how an inbox message is decoded; refuses to know what a message does.
"""

from duroxide.engine._codec import loads


cdef class WorkResult:
    """The result of an activity that ran in this process for an instance leased here: it never becomes a queue row.
    `payload`: the result as JSON text, or the error details as JSON text. `row_id`, `token`: the worker row to acknowledge."""

    def __init__(self, str instance, long long execution_id, long long activity_id, bint ok, str payload, row_id, str token):
        self.instance = instance
        self.execution_id = execution_id
        self.activity_id = activity_id
        self.ok = ok
        self.payload = payload
        self.row_id = row_id
        self.token = token


cdef class Turn:
    """One instance's inbox under one lease. With a `claim` the stored state is known from it; without one (a lease kept since
    the last turn) `execution` is the truth."""

    def __init__(self, claim, str instance, str lease, execution=None):
        self.instance = instance
        self.lease = lease
        self.execution = execution
        self.messages = []
        self.results = []
        self.attempt = 1
        if claim is not None:
            self.messages.extend(claim.messages)
            self.attempt = claim.attempt
            self.name, self.version, self.status = claim.name, claim.version, claim.status
            self.execution_id, self.last_event_id = claim.execution_id, claim.last_event_id
        elif execution is not None:
            self.name, self.version, self.status = execution.name, execution.version, execution.status
            self.execution_id, self.last_event_id = execution.execution_id, execution.last_event_id

    def __repr__(self):
        return (
            f"Turn({self.instance!r}, execution {self.execution_id}, event {self.last_event_id}, "
            f"{len(self.messages)} messages, {len(self.results)} results)"
        )


cdef tuple decode(str text):
    """(kind, fields) of a work item, or (None, {}) of a text that is none."""
    try:
        item = loads(text)
        if isinstance(item, dict) and len(item) == 1:
            for kind, body in item.items():
                if isinstance(body, dict):
                    return kind, body
    except (ValueError, RecursionError):
        return None, {}
    return None, {}

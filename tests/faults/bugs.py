"""Bugs to be caught: each wraps the `exchange` of a store so that it misbehaves in one way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from duroxide.storage.base import LOST, OK, Done, Request, Taken, TurnDone, WorkDone

Exchange = Callable[[Sequence[Request]], list[Taken]]


def turns(requests: Sequence[Request]) -> list[TurnDone]:
    return [turn for request in requests if request.done for turn in request.done.turns]


def messages_later(exchange: Exchange) -> Exchange:
    """What a turn sends goes into a transaction of its own."""

    def planted(requests: Sequence[Request]) -> list[Taken]:
        later = Done()
        for turn in turns(requests):
            later.messages += turn.messages
            turn.messages = []
        answers = exchange(requests)
        if later.messages:
            exchange([Request(requests[0].now, later)])
        return answers

    return planted


def results_later(exchange: Exchange) -> Exchange:
    """Rows of finished work go before the turn that has their results."""

    def planted(requests: Sequence[Request]) -> list[Taken]:
        first = Done()
        for turn in turns(requests):
            first.work += [WorkDone(row, token, turn.instance, None) for row, token in turn.acks]
            turn.acks = []
        if first.work:
            exchange([Request(requests[0].now, first)])
        return exchange(requests)

    return planted


def messages_twice(exchange: Exchange) -> Exchange:
    """Messages that a turn has read are not deleted with its commit, but afterwards."""

    def planted(requests: Sequence[Request]) -> list[Taken]:
        later = Done()
        for turn in turns(requests):
            if turn.consumed and turn.keep:
                after = TurnDone(turn.lease, turn.instance, turn.execution_id)
                after.consumed, turn.consumed, after.keep = turn.consumed, [], True
                later.turns.append(after)
        answers = exchange(requests)
        if later.turns:
            exchange([Request(requests[0].now, later)])
        return answers

    return planted


def skipped_commit(exchange: Exchange) -> Exchange:
    """Every third group that only clients write is not written, and they hear that it was."""
    calls = 0

    def planted(requests: Sequence[Request]) -> list[Taken]:
        nonlocal calls
        if turns(requests) or not any(request.done is not None and request.done.messages for request in requests):
            return exchange(requests)
        calls += 1
        return exchange([Request(request.now, None if calls % 3 == 0 else request.done, request.appetite) for request in requests])

    return planted


def dropped_message(exchange: Exchange) -> Exchange:
    """A message that a turn sends to another instance is forgotten."""

    def planted(requests: Sequence[Request]) -> list[Taken]:
        for turn in turns(requests):
            turn.messages = [m for m in turn.messages if m[0] == turn.instance]
        return exchange(requests)

    return planted


def delivered_twice(exchange: Exchange) -> Exchange:
    """What a client sends is stored twice."""

    def planted(requests: Sequence[Request]) -> list[Taken]:
        for request in requests:
            if request.done is not None:
                request.done.messages = [m for m in request.done.messages for _ in range(1 + ('"QueueMessage"' in m[1]))]
        return exchange(requests)

    return planted


def lost_lease_ignored(exchange: Exchange) -> Exchange:
    """A turn that came too late is told that it was in time."""

    def planted(requests: Sequence[Request]) -> list[Taken]:
        answers = exchange(requests)
        for taken, request in zip(answers, requests):
            if request.done is not None:
                for n, turn in enumerate(request.done.turns):
                    if taken.turn_codes[n] == LOST:
                        taken.turn_codes[n] = OK
                        taken.held[n] = [-1 for work in turn.work if work.lease is not None]
        return answers

    return planted


BUGS = {
    bug.__name__: bug
    for bug in (messages_later, results_later, messages_twice, skipped_commit, dropped_message, delivered_twice, lost_lease_ignored)
}

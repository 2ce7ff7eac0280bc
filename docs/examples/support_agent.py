"""An agent for customers: a model that calls tools, a person who must agree to some of them, conversations that survive everything.

    python support_agent.py                 # talk to it; empty line ends

The model is a script (`ScriptedModel`), so that no network is needed; a real one is a function from messages to a reply of the same shape.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from typing import Any

import duroxide

KEPT = 30  # messages that go along into the next execution
DANGEROUS = {"refund"}  # tools that a person has to agree to
Reply = dict[str, Any]  # {"say": text} or {"call": tool, "with": arguments}


class ScriptedModel:
    """Looks an order up when a number is named, asks for a refund when told so, and reads what its tools said."""

    def __call__(self, messages: list[dict[str, str]]) -> Reply:
        last = messages[-1]
        if last["role"] == "tool":
            return {"say": last["content"]}
        words = last["content"].lower().replace("?", " ").replace(".", " ").split()
        numbers = [word for word in words if word.isdigit()]
        if not numbers:
            return {"say": "Which order is it about?"}
        return {"call": "refund" if "refund" in words else "lookup", "with": {"order": int(numbers[0])}}


# ── tools: activities. They run at least once, so the refund carries a key ──


def lookup(ctx: duroxide.ActivityContext, given: dict[str, Any]) -> str:
    if given["order"] > 100:
        raise LookupError(f"there is no order {given['order']}")
    return f"Order {given['order']} was shipped on Monday."


def refund(ctx: duroxide.ActivityContext, given: dict[str, Any]) -> str:
    return f"Order {given['order']} is refunded (key {given['key'][:8]})."


# ── the loop ──


def agent(ctx: duroxide.OrchestrationContext, messages: list[dict[str, str]]) -> Generator[Any, Any, Any]:
    """One execution takes one message of the customer; `None` ends the conversation."""
    text = yield ctx.dequeue_event("customer")
    if text is None:
        return {"messages": len(messages)}
    messages = [*messages, {"role": "user", "content": text}]
    while True:
        reply = yield ctx.schedule_activity_with_retry("model", messages, {"max_attempts": 5, "timeout_ms": 120_000})
        if "say" in reply:
            break
        messages = [*messages, {"role": "tool", "content": (yield from call(ctx, reply))}]
    messages = [*messages, {"role": "assistant", "content": reply["say"]}]
    ctx.set_custom_status(json.dumps({"state": "answered", "answer": reply["say"]}))
    return (yield ctx.continue_as_new(messages[-KEPT:]))


def call(ctx: duroxide.OrchestrationContext, reply: Reply) -> Generator[Any, Any, str]:
    """What a tool gave, as text for the model: also if a person refused, or it failed."""
    given = dict(reply["with"])
    if reply["call"] in DANGEROUS:
        ctx.set_custom_status(json.dumps({"state": "approve?", "call": reply["call"], "with": given}))
        decision = yield ctx.race(ctx.dequeue_event("supervisor"), ctx.schedule_timer(3 * 86_400_000))
        if decision["index"] == 1 or decision["value"] != "yes":
            return "I am sorry, that was not approved."
        given["key"] = yield ctx.new_guid()
    try:
        result = yield ctx.schedule_activity_with_retry(reply["call"], given, {"max_attempts": 2})
    except duroxide.ActivityError as error:
        return f"I could not do that: {str(error).rpartition(': ')[2]}."
    return str(result)


def register(runtime: duroxide.Runtime, model: Callable[[list[dict[str, str]]], Reply]) -> None:
    runtime.register_activity("model", lambda ctx, messages: model(messages))
    runtime.register_activity("lookup", lookup)
    runtime.register_activity("refund", refund)
    runtime.register_orchestration("agent", agent)


class Conversation:
    """A customer's side, and the supervisor's. Any process that opens the file can take either."""

    def __init__(self, client: duroxide.Client, id: str) -> None:
        self._client = client
        self._id = id
        client.start_orchestration(id, "agent", [])
        self._seen = client.get_status(id).custom_status_version

    def say(self, text: str) -> dict[str, Any]:
        """Send a message; returns the next state: an answer, or the question whether a tool may be called."""
        self._client.enqueue_event(self._id, "customer", text)
        return self.next()

    def decide(self, answer: str) -> dict[str, Any]:
        self._client.enqueue_event(self._id, "supervisor", answer)
        return self.next()

    def next(self) -> dict[str, Any]:
        found = self._client.wait_for_status_change(self._id, self._seen)
        self._seen = found.custom_status_version
        state: dict[str, Any] = json.loads(found.custom_status or "{}")
        return state

    def end(self) -> Any:
        self._client.enqueue_event(self._id, "customer", None)
        return self._client.wait_for_orchestration_typed(self._id)


def main() -> int:
    provider = duroxide.SqliteProvider.open("support.db")
    runtime = duroxide.Runtime(provider)
    register(runtime, ScriptedModel())
    runtime.start()
    talk = Conversation(duroxide.Client(provider), "conversation-1")
    print("You are the customer, and the supervisor too. For example: where is order 7? - please refund 7")
    while text := input("> "):
        state = talk.say(text)
        while state["state"] == "approve?":
            state = talk.decide(input(f"supervisor: {state['call']} {state['with']}, yes or no? "))
        print(state["answer"])
    runtime.shutdown()
    provider.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

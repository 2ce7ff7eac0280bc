"""Orders over HTTP: an endpoint that starts a workflow, one that watches it, one that answers it.

    pip install fastapi uvicorn         # beside duroxide
    uvicorn fastapi_orders:app          # ORDERS_DB=orders.db says where

The web process runs the workflows too; with several web processes, or workers apart from them, nothing here changes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request

import duroxide

# ── the workflow ──


def reserve(ctx: duroxide.ActivityContext, item: str) -> str:
    return f"{item} for {ctx.instance_id}"


def charge(ctx: duroxide.ActivityContext, amount: int) -> str:
    return f"{amount} charged under the key {ctx.instance_id}"  # the key makes a repetition harmless


def order(ctx: duroxide.OrchestrationContext, wanted: dict[str, Any]) -> Generator[Any, Any, dict[str, Any]]:
    ctx.set_custom_status("reserving")
    reserved = yield ctx.all_typed([ctx.schedule_activity("reserve", item) for item in wanted["items"]])
    if wanted["amount"] > 100:
        ctx.set_custom_status("waiting for approval")
        answer = yield ctx.race(ctx.dequeue_event("approval"), ctx.schedule_timer(7 * 86_400_000))
        if answer["index"] == 1 or not answer["value"]:
            return {"accepted": False}
    ctx.set_custom_status("charging")
    receipt = yield ctx.schedule_activity_with_retry("charge", wanted["amount"], {"max_attempts": 5})
    return {"accepted": True, "reserved": reserved, "receipt": receipt}


# ── the web ──


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opened here, in the process that serves: after any fork of the server."""
    provider = duroxide.SqliteProvider.open(os.environ.get("ORDERS_DB", "orders.db"))
    runtime = duroxide.Runtime(provider)
    runtime.register_activity("reserve", reserve)
    runtime.register_activity("charge", charge)
    runtime.register_orchestration("order", order)
    runtime.start()
    app.state.client = duroxide.Client(provider)
    yield
    runtime.shutdown(5_000)
    provider.close()


app = FastAPI(lifespan=lifespan)


def client_of(request: Request) -> duroxide.Client:
    client: duroxide.Client = request.app.state.client
    return client


Client = Annotated[duroxide.Client, Depends(client_of)]


# Plain `def`, not `async def`: FastAPI runs these on threads, so a wait holds up nobody else.
@app.put("/orders/{number}", status_code=202)
def put_order(number: int, wanted: dict[str, Any], client: Client) -> dict[str, str]:
    """Sent twice, it is one order: the id is made of the number."""
    client.start_orchestration(f"order-{number}", "order", wanted)
    return {"watch": f"/orders/{number}"}


@app.get("/orders/{number}")
def get_order(number: int, client: Client, seen: int = 0, wait_ms: int = 0) -> dict[str, Any]:
    """The status; with `seen` and `wait_ms` as soon as it is another one (long polling)."""
    instance = f"order-{number}"
    try:
        found = client.wait_for_status_change(instance, seen, timeout_ms=min(wait_ms, 30_000))
    except duroxide.OperationTimeout:
        found = client.get_status(instance)
    if found.status == "NotFound":
        raise HTTPException(404, "no such order, or nobody has begun it yet")
    return {
        "status": found.status, "step": found.custom_status, "seen": found.custom_status_version, "result": found.output, "error": found.error,
    }  # fmt: skip


@app.post("/orders/{number}/approval", status_code=202)
def approve(number: int, yes: bool, client: Client) -> None:
    """A queue message: it is kept even if the order has not come so far."""
    client.enqueue_event(f"order-{number}", "approval", yes)

"""Expenses that somebody has to approve: reminders, a deputy after some days, and what became of it.

    python expense_approval.py work                        # runs the workflows until Ctrl-C
    python expense_approval.py submit taxi-7 ada 40        # in other terminals, while it runs or not
    python expense_approval.py waiting
    python expense_approval.py decide taxi-7 yes

`--db PATH` says which file, `--day-ms N` how long a day is (for those who cannot wait).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
from collections.abc import Generator
from typing import Any

import duroxide

DEPUTY = "grace"


def mail(ctx: duroxide.ActivityContext, letter: dict[str, str]) -> None:
    """In life an SMTP call. It may be sent twice, if the process dies between sending and the commit: say so in the subject's id."""
    print(f"mail to {letter['to']} [{ctx.instance_id}]: {letter['text']}", flush=True)


def expense(ctx: duroxide.OrchestrationContext, claim: dict[str, Any]) -> Generator[Any, Any, dict[str, Any]]:
    boss, what = claim["boss"], f"{claim['amount']} EUR"
    for day in range(5):
        asked = boss if day < 3 else DEPUTY
        yield ctx.schedule_activity_with_retry("mail", {"to": asked, "text": f"approve {what}?"}, {"max_attempts": 10})
        ctx.set_custom_status(json.dumps({"asked": asked, "day": day, "amount": claim["amount"]}))
        answer = yield ctx.race(ctx.dequeue_event("decision"), ctx.schedule_timer(claim["day_ms"]))
        if answer["index"] == 0:
            return {"approved": answer["value"] == "yes", "by": asked}
    return {"approved": False, "by": "nobody in five days"}


def work(provider: duroxide.SqliteProvider, until: threading.Event) -> None:
    runtime = duroxide.Runtime(provider)
    runtime.register_activity("mail", mail)
    runtime.register_orchestration("expense", expense)
    runtime.start()
    with contextlib.suppress(KeyboardInterrupt):
        until.wait()
    runtime.shutdown()


def waiting(client: duroxide.Client) -> list[str]:
    """One line for each expense that waits for somebody."""
    lines = []
    for instance in client.list_instances_by_status("Running"):
        status = client.get_status(instance).custom_status
        if status is not None:
            asked = json.loads(status)
            lines.append(f"{instance}: {asked['amount']} EUR, waits for {asked['asked']} since day {asked['day']}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Expenses that somebody has to approve.")
    parser.add_argument("--db", default="expenses.db")
    parser.add_argument("--day-ms", type=int, default=86_400_000)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("work")
    commands.add_parser("waiting")
    submit = commands.add_parser("submit")
    submit.add_argument("id")
    submit.add_argument("boss")
    submit.add_argument("amount", type=int)
    decide = commands.add_parser("decide")
    decide.add_argument("id")
    decide.add_argument("answer", choices=["yes", "no"])
    show = commands.add_parser("show")
    show.add_argument("id")
    given = parser.parse_args(arguments)

    provider = duroxide.SqliteProvider.open(given.db)
    client = duroxide.Client(provider)
    if given.command == "work":
        work(provider, threading.Event())
    elif given.command == "submit":
        client.start_orchestration(given.id, "expense", {"boss": given.boss, "amount": given.amount, "day_ms": given.day_ms})
    elif given.command == "waiting":
        print("\n".join(waiting(client)) or "nothing waits")
    elif given.command == "decide":
        client.enqueue_event(given.id, "decision", given.answer)
    else:
        result = client.get_status(given.id)
        print(result.status, result.output or result.error or result.custom_status or "")
    provider.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

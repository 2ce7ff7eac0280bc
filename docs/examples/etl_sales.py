"""Extract, transform, load, fanned out: one child a shop, so many at a time; a shop that fails does not stop the others.

    python etl_sales.py DIRECTORY [--db etl.db] [--width 4]

DIRECTORY has one CSV file a shop, with columns `item,count,price`. The result is one table in DIRECTORY/totals.json, written once by whole.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import duroxide

# ── activities: all the files are theirs; between steps only names and totals go around ──


def extract(ctx: duroxide.ActivityContext, directory: str) -> list[str]:
    return sorted(path.name for path in Path(directory).glob("*.csv"))


def transform(ctx: duroxide.ActivityContext, file: str) -> dict[str, float]:
    """Revenue by item. Large intermediate results would go into a file, and its name would be what is returned."""
    totals: dict[str, float] = {}
    with open(file, newline="", encoding="utf-8") as rows:
        for number, row in enumerate(csv.DictReader(rows), 2):
            if ctx.is_cancelled():
                return {}
            try:
                totals[row["item"]] = totals.get(row["item"], 0.0) + int(row["count"]) * float(row["price"])
            except (KeyError, ValueError, TypeError) as error:
                raise ValueError(f"{Path(file).name}, line {number}: {error}") from error
    return totals


def load(ctx: duroxide.ActivityContext, job: dict[str, Any]) -> str:
    """The whole table at once, by renaming: nobody sees half of it, and a second time gives the same."""
    to = Path(job["directory"]) / "totals.json"
    half = to.with_suffix(".part")
    half.write_text(json.dumps(job["totals"], indent=1, sort_keys=True), encoding="utf-8")
    os.replace(half, to)
    return str(to)


# ── orchestrations ──


def lane(ctx: duroxide.OrchestrationContext, files: list[str]) -> Generator[Any, Any, dict[str, Any]]:
    """One after the other; says what failed instead of failing."""
    totals: dict[str, float] = {}
    failed: list[str] = []
    for file in files:
        try:
            found = yield ctx.schedule_activity("transform", file)
        except duroxide.ActivityError as error:
            failed.append(str(error).partition("call failed: ")[2])
            continue
        totals = added(totals, found)
    return {"totals": totals, "failed": failed}


def etl(ctx: duroxide.OrchestrationContext, order: dict[str, Any]) -> Generator[Any, Any, dict[str, Any]]:
    names = yield ctx.schedule_activity("extract", order["directory"])
    files = [f"{order['directory']}/{name}" for name in names]
    lanes = [files[n :: order["width"]] for n in range(order["width"])]
    results = yield ctx.all_typed([ctx.schedule_sub_orchestration("lane", part) for part in lanes if part])
    totals: dict[str, float] = {}
    for result in results:
        totals = added(totals, result["totals"])
    table = yield ctx.schedule_activity_with_retry(
        "load", {"directory": order["directory"], "totals": totals}, {"max_attempts": 5}
    )
    return {"table": table, "shops": len(files), "failed": sorted(text for result in results for text in result["failed"])}


def added(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {item: a.get(item, 0.0) + b.get(item, 0.0) for item in sorted({*a, *b})}  # sorted: the same order at each replay


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Sum up the sales of many shops.")
    parser.add_argument("directory")
    parser.add_argument("--db", default="etl.db")
    parser.add_argument("--run", default="today", help="name of this run: the same name is the same run")
    parser.add_argument("--width", type=int, default=4)
    given = parser.parse_args(arguments)

    provider = duroxide.SqliteProvider.open(given.db)
    runtime = duroxide.Runtime(provider, duroxide.RuntimeOptions(worker_concurrency=given.width))
    for activity in (extract, transform, load):
        runtime.register_activity(activity.__name__, activity)
    for orchestration in (lane, etl):
        runtime.register_orchestration(orchestration.__name__, orchestration)
    runtime.start()
    client = duroxide.Client(provider)
    client.start_orchestration(f"etl-{given.run}", "etl", {"directory": given.directory, "width": given.width})
    result = client.wait_for_orchestration_typed(f"etl-{given.run}", timeout_ms=-1)
    runtime.shutdown()
    provider.close()
    print(f"{result['shops']} shops into {result['table']}")
    for text in result["failed"]:
        print(f"failed: {text}")
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

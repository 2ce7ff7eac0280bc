"""A pipeline on the command line: each file of a directory is converted; a bar shows how far it is; killed, it goes on where it was.

    pip install rich                    # beside duroxide
    python thumbnails.py PICTURES OUT

Run it, press Ctrl-C (or kill -9 it) in the middle, run the same command again. Here "converting" is a checksum, so that nothing else is
needed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import duroxide

AT_ONCE = 4


def find(ctx: duroxide.ActivityContext, directory: str) -> list[str]:
    return sorted(str(path) for path in Path(directory).iterdir() if path.is_file())


def convert(ctx: duroxide.ActivityContext, job: dict[str, Any]) -> str:
    """Writes under a name of its own and renames: done twice, or half, it does no harm."""
    source, out = Path(job["file"]), Path(job["out"])
    time.sleep(job["pause_s"])
    out.mkdir(parents=True, exist_ok=True)
    half = out / f".{source.name}.{ctx.worker_id}.part"
    half.write_text(hashlib.sha256(source.read_bytes()).hexdigest() + "\n", encoding="utf-8")
    half.rename(out / f"{source.name}.sha256")
    return source.name


def pipeline(ctx: duroxide.OrchestrationContext, order: dict[str, Any]) -> Generator[Any, Any, dict[str, Any]]:
    files = yield ctx.schedule_activity("find", order["directory"])
    failed: list[str] = []
    for start in range(0, len(files), AT_ONCE):
        ctx.set_custom_status(json.dumps({"done": start, "of": len(files)}))
        jobs = [{"file": file, "out": order["out"], "pause_s": order["pause_s"]} for file in files[start : start + AT_ONCE]]
        retry = {"max_attempts": 3}
        results = yield ctx.all([ctx.schedule_activity_with_retry("convert", job, retry) for job in jobs])
        failed += [member["err"] for member in results if "err" in member]
    ctx.set_custom_status(json.dumps({"done": len(files), "of": len(files)}))
    return {"files": len(files), "failed": failed}


def watch(client: duroxide.Client, instance: str, console: Console) -> duroxide.OrchestrationResult:
    """Moves the bar with each status; there is no interval, the wait wakes with the commit."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("converting", total=None)
        seen = 0
        while True:
            result = client.wait_for_status_change(instance, seen, timeout_ms=3_600_000)
            seen = result.custom_status_version
            if result.custom_status is not None:
                status = json.loads(result.custom_status)
                progress.update(bar, completed=status["done"], total=status["of"])
            if result.status != "Running":
                return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Convert each file of a directory; go on where it was.")
    parser.add_argument("directory")
    parser.add_argument("out")
    parser.add_argument("--db", default="thumbnails.db")
    parser.add_argument("--pause-s", type=float, default=0.1, help="how long a conversion takes, at least")
    given = parser.parse_args(arguments)

    console = Console()
    provider = duroxide.SqliteProvider.open(given.db)
    runtime = duroxide.Runtime(provider, duroxide.RuntimeOptions(worker_concurrency=AT_ONCE))
    runtime.register_activity("find", find)
    runtime.register_activity("convert", convert)
    runtime.register_orchestration("pipeline", pipeline)
    runtime.start()
    client = duroxide.Client(provider)
    instance = f"{Path(given.directory).resolve()} -> {Path(given.out).resolve()}"  # the same command, the same instance
    if client.get_status(instance).status == "Running":
        console.print("going on where it was")
    client.start_orchestration(instance, "pipeline", {"directory": given.directory, "out": given.out, "pause_s": given.pause_s})
    try:
        result = watch(client, instance, console)
    except KeyboardInterrupt:
        console.print("\ninterrupted; the same command goes on")
        return 130
    finally:
        runtime.shutdown()
        provider.close()
    if result.status == "Failed":
        console.print(result.error)
        return 1
    console.print(f"{result.output['files']} files, {len(result.output['failed'])} failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

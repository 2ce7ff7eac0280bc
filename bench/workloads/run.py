"""One workload, in this process: `python run.py NAME SIZE PLACE [OPTIONS]` prints one line of JSON with its figures.

PLACE is a directory or a PostgreSQL URL, with `#schema` or as a file's path to join others there; OPTIONS are JSON for the provider.
"""

from __future__ import annotations

import json
import sys

import admin
import endurance
import footprint
import latency
import throughput
from program import Bench, target_in

WORKLOADS = throughput.WORKLOADS | latency.WORKLOADS | endurance.WORKLOADS | footprint.WORKLOADS | admin.WORKLOADS


def main(name: str, size: str, place: str, options: str = "{}") -> None:
    workload = WORKLOADS[name]
    if workload in footprint.ALONE:
        print(json.dumps(workload(None, int(size))), flush=True)
        return
    target = place if "#" in place or place.endswith(".db") else target_in(place)
    bench = Bench(target, **json.loads(options))
    figures = workload(bench, int(size))
    bench.close()
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

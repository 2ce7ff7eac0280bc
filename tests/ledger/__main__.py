"""`python -m tests.ledger --minutes 10 --processes 16`: see `crowd`; prints figures, the exit code says whether all held."""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from faults.checks import Wrong  # noqa: E402
from ledger.crowd import Crowd, Plan  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.ledger")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--implementation", choices=("c", "python"), default="c")
    chosen = parser.parse_args()
    plan = Plan(chosen.processes, chosen.minutes * 60, clients=8, pause_s=0.05, lease_s=3, kill_s=1, stop_s=4, lock_s=20, locked_for_s=3,
                implementation=chosen.implementation)  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        crowd = Crowd(Path(directory), plan, chosen.seed)
        try:
            found = crowd.run()
        except Wrong as wrong:
            print(f"WRONG: {wrong}\n{crowd.heard()[-3_000:]}")
            return 1
    print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")
    said = crowd.heard()
    print("workers said:", said[-3_000:] or "nothing")
    return 1 if "locked" in said or "Traceback" in said else 0


if __name__ == "__main__":
    sys.exit(main())

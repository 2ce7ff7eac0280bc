"""One seed, or many: which world a seed means, and what its outcome must be.

usage: python -m tests.simulation SEED [--count N] [--store KIND] [--bug NAME] [--trace]
"""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

from . import programs
from .bugs import BUGS, RARE, planted
from .stores import KINDS, open_store
from .witness import Wrong
from .world import World

PROMPT_S = 2.5  # simulated: where nothing goes wrong nobody waits for a look by chance


def world_of(seed: int, kind: str, bug: str | None = None) -> World:
    """Which programs and how many faults a seed means. A bug that shows in few worlds has worlds of its own."""
    if bug in RARE:
        names, faults = RARE[bug]
        return World(f"{bug} {seed}", open_store(kind), names, 6, kinds=faults)
    lots = random.Random(f"world {seed}")
    names = lots.sample(sorted(programs.STARTS), lots.choice((1, 2, 2, 3)))
    return World(str(seed), open_store(kind), names, lots.choice((0, 1, 2, 3, 5, 8)))


_quiet: dict[str, Any] = {}


def expected() -> dict[str, Any]:
    """What every program comes to where nothing goes wrong."""
    if not _quiet:
        world = World("quiet", open_store("memory"), sorted(programs.STARTS), 0)
        _quiet.update(world.run())
    return _quiet


def run_world(world: World, bug: str | None = None) -> None:
    """Raises Wrong. Closes the world's store."""
    wanted = expected()
    try:
        with planted(world, bug):
            found = world.run()
    finally:
        world.store.close()
    for instance, outcome in found.items():
        if outcome != wanted[instance]:
            raise Wrong(f"{instance} came to {outcome}, without faults it is {wanted[instance]}")
    if not world.plan and world.ended_s > PROMPT_S:
        raise Wrong(f"nothing went wrong, and yet it took {world.ended_s:.1f} s")


def run_seed(seed: int, kind: str = "memory", bug: str | None = None, tracing: bool = False) -> World:
    """Raises Wrong, with the line that repeats it and what happened."""
    world = world_of(seed, kind, bug)
    world.trace = [] if tracing else None
    try:
        run_world(world, bug)
    except Wrong as wrong:
        again = f"python -m tests.simulation {seed} --store {kind}{f' --bug {bug}' if bug else ''} --trace"
        raise Wrong("\n".join([str(wrong), f"again: {again}", *(world.trace or ())])) from wrong
    return world


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Runs one simulated world, or many.")
    parser.add_argument("seed", type=int)
    parser.add_argument("--count", type=int, default=1, help="so many seeds from this one on")
    parser.add_argument("--store", choices=KINDS, default="memory")
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant a bug (memory only)")
    parser.add_argument("--trace", action="store_true", help="tell what happened, exchange by exchange")
    given = parser.parse_args()
    began, failed = time.monotonic(), 0
    for seed in range(given.seed, given.seed + given.count):
        try:
            world = run_seed(seed, given.store, given.bug, given.trace)
            if world.trace:
                print(*world.trace, sep="\n")
        except Wrong as wrong:
            failed += 1
            print(f"seed {seed}: {wrong}", flush=True)
    print(f"{given.count} seeds on {given.store}, {failed} wrong, {time.monotonic() - began:.1f} s")
    return 1 if failed else 0

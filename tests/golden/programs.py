"""The programs, by name. Each is one function: it registers orchestrations in a `World` and returns the driver to call once the
runtime is up. What a program is about stands in its docstring.
"""

from __future__ import annotations

from collections.abc import Callable

from . import programs_children, programs_errors, programs_events, programs_joins, programs_mixed, programs_state, programs_steps
from .world import World

Driver = Callable[[], None]
Program = Callable[[World], Driver]

GROUPS = (programs_steps, programs_joins, programs_events, programs_children, programs_state, programs_errors, programs_mixed)

PROGRAMS: dict[str, Program] = {
    name: function
    for group in GROUPS
    for name, function in vars(group).items()
    if callable(function) and getattr(function, "__module__", None) == group.__name__ and not name.startswith("_")
}


def run(name: str, world: World) -> None:
    """Define, start, drive and stop. What a program has in its options it sets in its definition."""
    driver = PROGRAMS[name](world)
    world.resume()
    try:
        driver()
    finally:
        world.pause()

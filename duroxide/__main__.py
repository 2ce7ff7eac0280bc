"""`python -m duroxide COMMAND`: arguments, exit codes, and errors in one line. A command is an entry of `COMMANDS`."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from duroxide.errors import ProviderError


def _demo(given: argparse.Namespace) -> int:
    from duroxide.demo import run

    return run(given.db)


def _inspect(given: argparse.Namespace) -> int:
    from duroxide.inspection import run

    return run(given.store, given.schema, given.json)


def _doctor(given: argparse.Namespace) -> int:
    from duroxide.doctor import run

    try:
        return run(given.store, given.schema, given.json)
    except ProviderError as error:
        print(f"python -m duroxide doctor: {error}", file=sys.stderr)
        return 2


_STORE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("store", {"metavar": "PATH-or-URL", "help": "a SQLite file, or postgres://..."}),
    ("--schema", {"metavar": "NAME", "help": "the PostgreSQL schema (default: public)"}),
    ("--json", {"action": "store_true", "help": "the report as JSON"}),
)
# name -> (what runs it, its line in the help, its arguments)
COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str, tuple[tuple[str, dict[str, Any]], ...]]] = {
    "demo": (
        _demo,
        "an order workflow whose worker is killed half-way and starts again",
        (("--db", {"metavar": "PATH", "help": "the SQLite file to use (default: a temporary one)"}),),
    ),
    "inspect": (
        _inspect,
        "what a store is and what is in flight in it; changes nothing",
        _STORE,
    ),
    "doctor": (
        _doctor,
        "is what stands in a store what must stand there? 0: healthy, 1: damage, 2: it cannot be read; changes nothing",
        _STORE,
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """0: it went well, 1: it did not, 2: the arguments are wrong, 130: interrupted."""
    from duroxide import __version__

    parser = argparse.ArgumentParser(prog="python -m duroxide", description="Durable execution inside a Python process.")
    parser.add_argument("--version", action="version", version=f"duroxide {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (_, help, options) in COMMANDS.items():
        command = commands.add_parser(name, help=help)
        for option, about in options:
            command.add_argument(option, **about)
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 2
    try:
        return COMMANDS[given.command][0](given)
    except ProviderError as error:
        print(f"{parser.prog} {given.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())

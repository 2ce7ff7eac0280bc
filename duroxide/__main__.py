"""`python -m duroxide demo [--db PATH]`."""

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m duroxide", description="Durable execution inside a Python process.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser("demo", help="an order workflow whose worker is killed half-way and starts again")
    demo.add_argument("--db", metavar="PATH", help="the SQLite file to use (default: a temporary one)")
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 2
    from duroxide.demo import run

    return run(given.db)


if __name__ == "__main__":
    sys.exit(main())

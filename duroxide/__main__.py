"""`python -m duroxide demo [--db PATH]`: arguments, exit codes, and errors in one line."""

import argparse
import os
import sys


def main(arguments: list[str] | None = None) -> int:
    """0: it went well, 1: it did not, 2: the arguments are wrong, 130: interrupted."""
    from duroxide import ProviderError, __version__

    parser = argparse.ArgumentParser(prog="python -m duroxide", description="Durable execution inside a Python process.")
    parser.add_argument("--version", action="version", version=f"duroxide {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser("demo", help="an order workflow whose worker is killed half-way and starts again")
    demo.add_argument("--db", metavar="PATH", help="the SQLite file to use (default: a temporary one)")
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 2
    from duroxide.demo import run

    try:
        return run(given.db)
    except ProviderError as error:
        print(f"{parser.prog} demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())

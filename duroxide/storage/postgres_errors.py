"""What a PostgreSQL error means: whether trying again may help, and whether anything can have been written.

Owns the classes of SQLSTATE that matter. Knows no statements and no connections.
"""

from __future__ import annotations

import psycopg

# Two transactions in each other's way: one of them is rolled back, and may simply run again.
CONFLICTS = frozenset(("40001", "40P01", "55P03"))  # serialization failure, deadlock, lock not available (lock_timeout)
# The server goes, comes or is full; or a pooler says so. Another connection, a little later, may fare better.
UNAVAILABLE = frozenset((
    "57P01", "57P02", "57P03", "57P05",  # admin shutdown, crash shutdown, starting up, idle session timeout
    "25P03", "25P04",  # idle in transaction too long, transaction too long
    "53000", "53100", "53200", "53300", "53400",  # out of resources: disk, memory, connections, configured limit
    "25006",  # read only: a standby after a failover
    "57014",  # cancelled: statement_timeout, or somebody's pg_cancel_backend
    "58000", "58030",  # system error, I/O error
))  # fmt: skip


def retryable(error: BaseException) -> bool:
    """Whether the same transaction may succeed later, without anybody changing anything in the program."""
    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate
    if state is None:  # the driver's own: a connection that broke or could not be made, the pool's time that ran out
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state in CONFLICTS or state in UNAVAILABLE or state.startswith("08")


def rolled_back(error: BaseException) -> bool:
    """Whether it is certain that nothing was written, even if this was the answer to COMMIT: the server itself refused, and lives."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return state is not None and not state.startswith(("08", "57P"))

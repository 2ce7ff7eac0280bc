"""A real PgBouncer between a store and its server, where the program is installed.

Owns its configuration and its process. It gives each transaction (or session) one of a few connections to the server.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from postgres_server import Server

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/usr/local/sbin")
CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 200
logfile = {directory}/log
"""


@contextlib.contextmanager
def bouncer(server: Server, mode: str = "transaction", size: int = 4) -> Iterator[str]:
    """The URL of a pooler in front of `server`, with `size` connections to it."""
    assert PROGRAM is not None
    target = conninfo_to_dict(server.url)
    directory = Path(tempfile.mkdtemp(prefix="dxbouncer-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        own_port = free.getsockname()[1]
    values = {"host": target.get("host", "localhost"), "port": target.get("port", 5432), "user": target.get("user", "postgres")}
    if "password" in target:
        values["user"] = f"{values['user']} password={target['password']}"
    (directory / "ini").write_text(CONFIGURATION.format(own_port=own_port, mode=mode, size=size, directory=directory, **values))
    options: dict[str, Any] = {}
    if os.geteuid() == 0:  # which it refuses to be
        options["user"] = (server.own and server._own.system_user) or "nobody"  # who may use the server's socket
        for path in (directory, directory / "ini"):
            shutil.chown(path, options["user"])
    process = subprocess.Popen([PROGRAM, "-q", str(directory / "ini")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    through = make_conninfo(server.url, host="127.0.0.1", port=own_port, sslmode="disable", gssencmode="disable")
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(through).close()
                break
            except psycopg.OperationalError as error:
                said = (directory / "log").read_text() if (directory / "log").exists() else ""
                assert process.poll() is None and time.monotonic() < deadline, f"{error}\n{said}"
                time.sleep(0.02)
        yield through
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(directory, ignore_errors=True)

"""A network between a store and its server that fails on request: cuts, stalls, refuses, loses answers.

Owns connections and what is done to them. Of PostgreSQL's protocol it knows where a round trip begins (the client's Sync or Query) and
ends (ReadyForQuery); it changes no byte.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable

from psycopg.conninfo import conninfo_to_dict, make_conninfo

# What a rule may say about a round trip.
PASS = ""
REQUEST_LOST = "request lost"  # the server never sees it
ANSWER_LOST = "answer lost"  # the server does it, the client never hears
ANSWER_HALF = "answer half"  # the client hears the beginning
STALLED = "stalled"  # nothing moves on this connection any more, and nobody closes it
FAULTS = (REQUEST_LOST, ANSWER_LOST, ANSWER_HALF)

Rule = Callable[[int, bytes], str]
_CHUNK = 1 << 16


class Proxy:
    """Listens on loopback for connections to the server of `url`; `rule(number, request)` is asked for each round trip, numbered from 1."""

    def __init__(self, url: str) -> None:
        self._target = conninfo_to_dict(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = make_conninfo(url, host="127.0.0.1", port=self.port, sslmode="disable", gssencmode="disable")
        self.rule: Rule = lambda number, request: PASS
        self.trips = 0
        self.refusing = False
        self.stalled = threading.Event()
        self._lock = threading.Lock()
        self._lines: list[Line] = []
        self._ended = False
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            try:
                line = Line(self, client, self._dial())
            except OSError:  # the server is not there
                client.close()
                continue
            with self._lock:
                self._lines = [other for other in self._lines if other.open] + [line]
            line.start()

    def _dial(self) -> socket.socket:
        host, port = str(self._target.get("host") or "localhost"), int(self._target.get("port") or 5432)
        if host.startswith("/"):
            made = socket.socket(socket.AF_UNIX)
            made.connect(f"{host}/.s.PGSQL.{port}")
            return made
        return socket.create_connection((host, port))

    def judge(self, request: bytes) -> str:
        with self._lock:
            self.trips += 1
            number = self.trips
        return self.rule(number, request)

    @property
    def lines(self) -> list[Line]:
        """The connections that are open now."""
        with self._lock:
            return [line for line in self._lines if line.open]

    def cut(self) -> int:
        """Close all connections in the middle of whatever they do; how many."""
        lines = self.lines
        for line in lines:
            line.cut()
        return len(lines)

    def refuse(self, refusing: bool) -> None:
        """Whether new connections are closed at once."""
        self.refusing = refusing

    def stall(self) -> int:
        """Let nothing through on the connections of now; they stay open. How many."""
        lines = self.lines
        for line in lines:
            line.stall()
        return len(lines)

    def close(self) -> None:
        self._ended = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


class Line(threading.Thread):
    """One connection; its thread carries bytes both ways and asks the rule at the end of each request."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        super().__init__(name="proxy-line", daemon=True)
        self._proxy, self._client, self._server = proxy, client, server
        self.open = True
        self._stalled = False
        self._unread = bytearray()  # of the client's messages: the beginning of one that is not complete
        self._begun = False  # the startup packet has passed
        self._fault = PASS  # what waits for the next answer

    def cut(self) -> None:
        """Both ends see the connection closed."""
        self.open = False
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        self._stalled = True

    def run(self) -> None:
        try:
            while self.open:
                ready, _, _ = select.select([] if self._stalled else [self._client, self._server], [], [], 0.05)
                if self._client in ready and not self._carry_request():
                    break
                if self._server in ready and not self._carry_answer():
                    break
        except (OSError, ValueError):
            pass
        finally:
            self.cut()
            self._client.close()
            self._server.close()

    def _carry_request(self) -> bool:
        data = self._client.recv(_CHUNK)
        if not data:
            return False
        if trips := self._requests(data):
            verdicts = [self._proxy.judge(data) for _ in range(trips)]
            fault = next((verdict for verdict in verdicts if verdict), PASS)
            if fault == REQUEST_LOST:
                return False
            if fault == STALLED:
                self._stalled = True
            self._fault = fault
        self._server.sendall(data)
        return True

    def _carry_answer(self) -> bool:
        data = self._server.recv(_CHUNK)
        if not data:
            return False
        if self._fault in (ANSWER_LOST, ANSWER_HALF):
            # ReadyForQuery: the transaction is over, whatever it was.
            while not (len(data) >= 6 and data[-6] == ord("Z") and data[-5:-1] == b"\0\0\0\5"):
                more = self._server.recv(_CHUNK)
                if not more:
                    break
                data += more
            if self._fault == ANSWER_HALF:
                self._client.sendall(data[: len(data) // 2])
            return False
        self._client.sendall(data)
        return True

    def _requests(self, data: bytes) -> int:
        """How many requests end in these bytes."""
        self._unread += data
        trips = 0
        while True:
            head = 5 if self._begun else 4
            if len(self._unread) < head:
                return trips
            length = int.from_bytes(self._unread[head - 4 : head], "big") + head - 4
            if len(self._unread) < length:
                return trips
            kind = bytes(self._unread[:1]) if self._begun else b""
            del self._unread[:length]
            self._begun = True
            trips += kind in (b"S", b"Q")


from enum import IntEnum

TIMEOUT_TEXT: str

class Kind(IntEnum):
    ACTIVITY = 0
    TIMER = 1
    CHILD = 2
    WAIT = 3
    DEQUEUE = 4
    DETACHED = 5
    STATUS = 6
    KV_SET = 7
    KV_CLEAR = 8
    KV_CLEAR_ALL = 9
    CONTINUE = 10

class Scope: ...
class Node: ...

class Leaf(Node):
    @property
    def kind(self) -> int: ...
    @property
    def name(self) -> str | None: ...
    @property
    def input(self) -> str | None: ...
    @property
    def where(self) -> str | None: ...
    @property
    def version(self) -> str | None: ...
    @property
    def tag(self) -> str | None: ...
    @property
    def number(self) -> int: ...
    @property
    def id(self) -> int: ...
    @property
    def token(self) -> int: ...

class ErrorLeaf(Node):
    def __init__(self, text: str) -> None: ...

class Group(Node):
    def __init__(self, members: list[Node], typed: bool) -> None: ...

class All(Group): ...
class Race(Group): ...

class Retry(Node):
    def __init__(
        self,
        template: Leaf,
        max_attempts: int,
        timeout_ms: int | None,
        overall_ms: int | None,
        backoff: tuple[float, float, float, bool],
    ) -> None: ...

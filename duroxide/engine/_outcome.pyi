from typing import Any

MAX_KV_KEYS: int

def by_kind_and_id(leaf: Any) -> tuple[int, int]: ...

from duroxide.engine._turn import Turn

class Inbox:
    def __init__(self, turn: Turn, holds_nul: bool) -> None: ...

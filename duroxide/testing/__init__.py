"""For those who write a store, and for tests of workflows: the conformance suite and the world that its cases run in.

from duroxide.testing import World, cases

for case in cases():
    case.run(World(make_store()))
"""

from duroxide.testing.case import Case, cases, elsewhere
from duroxide.testing.world import World

__all__ = ["Case", "World", "cases", "elsewhere"]

"""`python -m tests.simulation`: see `run`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from simulation.run import main  # noqa: E402

sys.exit(main())

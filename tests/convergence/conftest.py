"""Makes `loops`, which is also run as a program, importable for the tests beside it."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# On a busy machine any example can take longer than Hypothesis' own 200 ms.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")

"""Lets the tests import the chaos harness."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
for folder in ("bench", "chaos", "chaos/events"):
    if str(TESTS / folder) not in sys.path:
        sys.path.append(str(TESTS / folder))

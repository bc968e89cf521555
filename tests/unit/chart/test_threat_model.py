"""The threat model names tests as its proof: they have to be there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_every_test_that_it_names_exists() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text()
    named = set(re.findall(r"`((?:tests|docs)/[\w/.-]+|test_\w+\.py)`", text))
    assert len(named) > 10
    known = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    missing = {name for name in named if not ((ROOT / name).exists() if "/" in name else name in known)}
    assert missing == set()

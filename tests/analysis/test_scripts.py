"""Every script of analysis/ has tests."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_script_is_tested():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__))
    scripts = [path.stem for path in sorted((ROOT / "analysis").glob("*.py"))]
    assert scripts
    assert [script for script in scripts if not re.search(rf"\b{script}\b", tests)] == []

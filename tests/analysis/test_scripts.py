"""Every script of analysis/ has tests."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_script_is_tested():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    scripts = sorted((ROOT / "analysis").glob("*.py"))
    assert scripts
    assert [path.stem for path in scripts if f'"{path.stem}"' not in tests and f'"{path.name}"' not in tests] == []

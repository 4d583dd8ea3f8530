"""The wheel: everything of the package is in it, and it works where no checkout is."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.long  # it builds a wheel and starts four processes; `make wheel` tries it in an environment of its own, too
def test_the_wheel_is_whole_and_works_alone(tmp_path):
    source = tmp_path / "source"  # a copy: files of an earlier build in build/lib would get into the wheel
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "toymodels", source / "toymodels", ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("toymodels/")}
    ours = (path for path in (ROOT / "toymodels").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert held == {path.relative_to(ROOT).as_posix() for path in ours}
    subprocess.run([*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def toymodels(*words):
        command = [sys.executable, "-m", "toymodels", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    where = [sys.executable, "-c", "import toymodels; print(toymodels.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert found.startswith(str(tmp_path / "site"))
    assert toymodels("--version") == f"toymodels {wheel.name.split('-')[1]}\n"
    sizes = ["--m", "12", "--d", "24", "--steps", "3", "--task", "and", "--minimax-pairs", "3", "--threads", "1"]
    assert "Genericity of U-AND" in toymodels("compare", *sizes, "--out", "run")
    assert "report: " in toymodels("report", "run")
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000

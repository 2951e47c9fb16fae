"""Type checkers read the installed package: a script of a user's, checked against the wheel."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from built_wheel import ROOT, install, ran, wheel

SCRIPT = ROOT / "tests" / "typed_script.py"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A virtual environment with the wheel, and what this one has besides."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv")
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join(others))
    install(wheel(folder), packages)
    return folder


def mypy(folder: Path) -> subprocess.CompletedProcess[str]:
    python = folder / "venv" / "bin" / "python"
    flags = ("--strict", "--python-executable", python, "--cache-dir", folder / "cache")
    return ran(sys.executable, "-m", "mypy", *flags, SCRIPT, cwd=folder)


@pytest.mark.slow
def test_mypy_reads_the_types_of_the_wheel(installed):
    done = mypy(installed)
    assert done.returncode == 0, done.stdout
    (marker,) = installed.glob("venv/lib/python*/site-packages/coterie/py.typed")
    marker.rename(marker.with_name("untyped"))
    try:
        assert "missing library stubs or py.typed marker" in mypy(installed).stdout
    finally:
        marker.with_name("untyped").rename(marker)


@pytest.mark.slow
def test_pyright_reads_the_types_of_the_wheel(installed):
    (installed / "pyrightconfig.json").write_text(
        json.dumps({
            "include": [SCRIPT.name], "typeCheckingMode": "standard",
            "enableTypeIgnoreComments": False, "reportUnnecessaryTypeIgnoreComment": True,
        })
    )  # fmt: skip
    (installed / SCRIPT.name).write_text(SCRIPT.read_text())
    python = installed / "venv" / "bin" / "python"
    done = ran(sys.executable, "-m", "pyright", "--pythonpath", python, cwd=installed)
    assert done.returncode == 0, done.stdout
    assert "0 errors, 0 warnings" in done.stdout


@pytest.mark.slow
def test_the_script_runs_on_the_wheel(installed):
    python = installed / "venv" / "bin" / "python"
    done = ran(python, SCRIPT, installed / "run", cwd=installed)
    assert done.returncode == 0, done.stderr
    assert "eval/return/team_mean" in done.stdout
    advice = "from coterie.extras import how_to_install; print(how_to_install('video'))"
    (made,) = installed.glob("*.whl")
    assert ran(python, "-c", advice, cwd=installed).stdout == (
        f"pip install 'coterie[video] @ {made.as_uri()}'\n"
    )

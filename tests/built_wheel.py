"""The package as users install it: a wheel, in virtual environments of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def ran(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command that knows nothing of this clone."""
    given = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=given, capture_output=True, text=True,
        timeout=250,
    )  # fmt: skip


def wheel(folder: Path) -> Path:
    """The wheel of this clone, built in a folder."""
    options = ("--no-deps", "--no-build-isolation", "-q")
    built = ran(sys.executable, "-m", "pip", "wheel", *options, "-w", folder, ROOT, cwd=folder)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


def install(made: Path, packages: Path) -> None:
    """The wheel alone into a ``site-packages``, without what it needs."""
    target = ("--no-deps", "-q", "--target", packages)
    done = ran(sys.executable, "-m", "pip", "install", *target, made, cwd=made.parent)
    assert done.returncode == 0, done.stderr

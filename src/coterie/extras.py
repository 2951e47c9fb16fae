"""Extras: how this installation of Coterie gets them, in the words of messages. Imports no JAX."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def how_to_install(extra: str) -> str:
    """The command that adds an extra to this installation: from a clone, another address, an index.

    Args:
        extra: its name in ``pyproject.toml``, such as ``jaxmarl``; empty for Coterie alone.
    """
    folder, address, extras = clone(), _address(), f"[{extra}]" if extra else ""
    if folder is not None:
        return f"pip install -e {_quoted(_short(folder) + extras)}"
    if address.startswith("file:") and Path(_path(address)).is_dir():
        return f"pip install {_quoted(_short(Path(_path(address))) + extras)}"
    place = f" @ {address}" if address else ""
    return f"pip install {_quoted(f'coterie{extras}{place}')}"


def clone() -> Path | None:
    """The root of the clone whose files run (an editable installation); None if they are copies."""
    root = Path(__file__).parents[2]
    is_clone = Path(__file__).parent == root / "src" / "coterie"
    return root if is_clone and (root / "pyproject.toml").is_file() else None


def origin() -> str:
    """Where the code that runs comes from, as the end of a sentence."""
    if (folder := clone()) is not None:
        return f"the clone {folder}"
    return _address() or "an index or a copy"


def _address() -> str:
    """The address that the package was installed from; empty where it was an index."""
    from importlib import metadata  # it takes a while, and worker processes should start at once

    try:
        found = json.loads(metadata.distribution("coterie").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError, OSError):
        return ""
    if not isinstance(found, dict) or not isinstance(address := found.get("url"), str):
        return ""
    about = found.get("vcs_info")
    if not isinstance(about, dict):
        return address
    revision = about.get("requested_revision")
    return f"{about.get('vcs', 'git')}+{address}" + (f"@{revision}" if revision else "")


def _path(address: str) -> str:
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    return url2pathname(urlsplit(address).path)


def _short(folder: Path) -> str:
    """A dot for the current directory."""
    try:
        return "." if folder.samefile(os.getcwd()) else str(folder)
    except OSError:
        return str(folder)


def _quoted(requirement: str) -> str:
    return f'"{requirement}"' if sys.platform == "win32" else f"'{requirement}'"

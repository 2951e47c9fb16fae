"""What MkDocs calls: adds the pages that are made from the code, and leads links out of docs/."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
from links import indexed, led
from pages import made

ROOT = Path(__file__).parents[1]
REFERENCE = ("api", "commands")
"""Pages that name everything, and whose sections would be found before those that explain it."""


def source() -> str:
    """Where files of the repository can be read that are no pages."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    return f"{urls['Homepage']}/blob/main"


def on_config(config: Any) -> Any:
    """Puts the pages that are made into the navigation, at the end of their section."""
    sections = {title: pages for entry in config.nav for title, pages in entry.items()}
    for page in made():
        sections[page.section].append({page.title: page.path})
    return config


def on_files(files: Files, config: Any) -> Files:
    for page in made():
        files.append(File.generated(config, page.path, content=page.text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    path = page.file.src_uri
    if path == "index.md":
        page.meta["hide"] = ["navigation"]
    if path.startswith(REFERENCE):
        page.meta["search"] = {"boost": 0.5}
    place = PurePosixPath("docs") / path
    origins = {written.path: PurePosixPath(written.origin) for written in made()}
    return indexed(led(markdown, place, origins.get(path, place), source()))

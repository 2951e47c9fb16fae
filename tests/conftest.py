"""Every test runs typed: shapes and types of each signature are checked as it is called.

And compiled quickly (see ``quick``); other processes that tests start compile as users' do, unless
they are told otherwise. Files run in a random order, so that none comes to rely on another.
"""

import ctypes
import gc
import os
import random

import jax
import pytest
from jaxtyping import install_import_hook
from quick import compile_quickly, trace_quickly

ORDER = os.environ.setdefault("COTERIE_TEST_ORDER", str(random.randrange(10_000)))
"""Seed of the order of files. Worker processes of pytest-xdist inherit it, so they agree."""
pytest_plugins = ["browser"]
os.environ["COTERIE_COMPILATION_CACHE"] = "off"  # tests share programs where they say so


def pytest_sessionstart(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter:
        reporter.write_line(f"files in random order: COTERIE_TEST_ORDER={ORDER} repeats it")


def pytest_collection_modifyitems(items):
    """A file's place does not depend on which others run; within a file, tests keep their order."""
    items.sort(key=lambda item: random.Random(f"{ORDER} {item.path.name}").random())


@pytest.fixture(scope="module", autouse=True)
def programs_of_this_file_only():
    """JAX keeps every program compiled so far, gigabytes by the end, and glibc what is freed."""
    yield
    jax.clear_caches()
    gc.collect()
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


install_import_hook("coterie", "beartype.beartype")
compile_quickly()
trace_quickly()

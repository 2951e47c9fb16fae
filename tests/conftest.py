"""Every test runs typed: shapes and types of each signature are checked as it is called.

And compiled quickly (see ``quick``); other processes that tests start compile as users' do, unless
they are told otherwise.
"""

from jaxtyping import install_import_hook
from quick import compile_quickly, trace_quickly

LONG = (
    "test_verdicts", "test_resume", "test_contract", "test_hosted_training", "test_learned_tables",
    "test_runs", "test_igm", "test_failures", "test_crashes",
)  # fmt: skip
"""Files that take longest begin first, so that processes that share the tests end together."""


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


install_import_hook("coterie", "beartype.beartype")
compile_quickly()
trace_quickly()

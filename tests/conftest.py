"""Every test runs typed: shapes and types of each signature are checked as it is called.

And compiled quickly (see ``quick``); other processes that tests start compile as users' do, unless
they are told otherwise.
"""

from jaxtyping import install_import_hook
from quick import compile_quickly, trace_quickly

install_import_hook("coterie", "beartype.beartype")
compile_quickly()
trace_quickly()

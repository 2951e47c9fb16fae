"""Every test runs typed: shapes and types of each signature are checked as it is called."""

from jaxtyping import install_import_hook

install_import_hook("coterie", "beartype.beartype")

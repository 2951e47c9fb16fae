"""Every test runs typed: shapes and types of each signature are checked as it is called."""

import pytest
from jaxtyping import install_import_hook

install_import_hook("coterie", "beartype.beartype")

# Written ahead of runs.py: what these ask for is not built yet. Each names its test function; a
# function that passes must leave this list.
AHEAD = {
    "test_ctrl_c_keeps_everything_and_resume_goes_on",
    "test_an_environment_without_a_family_is_its_own_task",
    "test_config_names_everything_that_decides_a_run",
    "test_act_refuses_what_does_not_fit",
    "test_load_says_what_there_is",
    "test_what_comes_after_an_end_is_not_counted",
    "test_evaluation_elsewhere_needs_a_place_that_fits",
    "test_evaluation_refuses_impossible_numbers",
    "test_refused_before_anything_is_written",
    "test_a_path_through_a_file_is_refused",
    "test_broken_configurations_are_named",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(item, "originalname", item.name) in AHEAD:
            item.add_marker(pytest.mark.xfail(reason="asked of runs.py, not built yet"))

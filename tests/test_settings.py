"""What can be asked for can be kept: each setting's values, through every way in and back again."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from quick import FLAGS

from coterie.errors import UsageError
from coterie.settings import Range, check, span

HERE = Path(__file__).parent
PATHS = os.pathsep.join(map(str, (HERE.parent / "src", HERE)))


@pytest.mark.slow
def test_whatever_is_accepted_is_read_again_and_all_else_refused_by_name(tmp_path):
    """Hundreds of values of algorithms', environments', runs' and commands' settings."""
    done = subprocess.run(
        [sys.executable, HERE / "settings_worker.py", tmp_path],
        env=os.environ | {"PYTHONPATH": PATHS, "XLA_FLAGS": FLAGS},
        stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert [wrong for part in found.values() for wrong in part["wrong"]] == []
    assert sum(part["accepted"] + part["refused"] for part in found.values()) > 1000
    for name, part in found.items():
        assert part["accepted"] >= 8, name
        assert part["refused"] >= 30, name


@dataclasses.dataclass(frozen=True)
class Kinds:
    share: Annotated[float, Range(0, 1)] = 0.5
    part: Annotated[float, Range(0, 1, above=True)] | None = None
    count: Annotated[int, Range(1, 10**9)] = 3
    sizes: Annotated[tuple[Annotated[int, Range(1, 9)], ...], Range(1, 2)] = (4,)
    word: Literal["a", "b"] = "a"
    on: bool = False

    def __post_init__(self):
        check(self)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"share": 1.5}, "share must be a number from 0 to 1; got 1.5"),
        ({"part": 0.0}, "part must be a number above 0, at most 1 or None; got 0.0"),
        ({"count": 0}, "count must be a whole number from 1 to 1e9; got 0"),
        (
            {"count": 10**40},
            "count must be a whole number from 1 to 1e9; got a number of 41 digits",
        ),
        ({"sizes": ()}, "sizes must be 1 to 2 values, each a whole number from 1 to 9; got ()"),
        ({"sizes": (4, 10)}, "sizes must be 1 to 2 values, each a whole number from 1 to 9; got"),
        ({"share": float("nan")}, "share must be a number from 0 to 1; got nan"),
    ],
)
def test_a_range_is_said_in_words(values, sentence):
    with pytest.raises(UsageError) as error:
        Kinds(**values)
    assert str(error.value).startswith(sentence)


def test_help_shows_what_somebody_might_exceed():
    assert span(Annotated[float, Range(0, 1)]) == "0 to 1"
    assert span(Annotated[float, Range(0, 1, above=True)] | None) == "above 0 to 1"
    assert span(Annotated[int, Range(1, 10**9)]) == ""
    assert span(bool) == ""

"""Each setting's least and greatest value, trained with: the run can be read, or there is none."""

import dataclasses
import inspect
import json
import typing
from typing import Annotated

import pytest
from probes import small
from quick import quick_compilation

import coterie
from coterie.algorithms import algorithms
from coterie.errors import NotFinite, UsageError
from coterie.settings import Range, hints
from coterie.training import loop as training

ENDLESS = {"epochs"}
"""So many passes over a rollout are one call of the program; it would be sat out."""


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")) as patch:
        patch.setattr(training, "CHUNK_STEPS", 16)
        yield


def declared(hint) -> Range | None:
    """The range of a number's declaration, inside of unions and tuples too."""
    if typing.get_origin(hint) is Annotated:
        kind, *more = typing.get_args(hint)
        if kind in (int, float):
            return next(m for m in more if isinstance(m, Range))
        return declared(typing.get_args(kind)[0])
    options = (declared(o) for o in typing.get_args(hint) if o is not type(None))
    return next(options, None)


def ends(limits: Range, kind: type) -> list:
    least = 1e-300 if limits.above else limits.least
    return [kind(least), kind(limits.most)]


def extremes() -> list[tuple[str, str, object]]:
    """(algorithm, setting, value), of each base's settings once."""
    found, seen = [], set()
    for name, cls in algorithms().items():
        for field in dataclasses.fields(cls):
            home = next(c for c in cls.__mro__ if field.name in inspect.get_annotations(c))
            limits = declared(hints(cls)[field.name])
            if limits is None or (home, field.name) in seen:
                continue
            seen.add((home, field.name))
            whole = "float" not in str(hints(cls)[field.name])
            for value in ends(limits, int if whole else float):
                if not (field.name in ENDLESS and value > 1):
                    several = field.name == "hidden"
                    found.append((name, field.name, (value,) if several else value))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "field", "value"), extremes())
def test_a_run_with_an_extreme_setting_is_read_or_refused(tmp_path, name, field, value):
    out, refused = tmp_path / "run", False
    try:
        algorithm = small(name, **{field: value})
        coterie.train(
            algorithm, "matrix/climbing", 64, out=out, reward="sum", evaluations=1,
            evaluation_episodes=2, final_episodes=2,
        )  # fmt: skip
    except UsageError:
        refused = True
    except NotFinite:
        pass
    assert out.exists() != refused
    if refused:
        return
    run = coterie.open_run(out)
    kept = getattr(algorithm, field)
    assert run.config["settings"][field] == json.loads(json.dumps(kept))
    assert run.evaluate(episodes=2)

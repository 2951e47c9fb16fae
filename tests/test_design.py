"""What a class says of itself: abstract, replaceable or final methods, at most three classes."""

import ast
import dataclasses
import inspect
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from coterie.algorithms import algorithms
from coterie.learners import parts
from coterie.learners.actor_critic import ActorCritic
from coterie.learners.contract import Algorithm
from coterie.learners.value_based import ValueBased

EXAMPLES = Path(__file__).parent.parent / "examples"
PARTS = (
    parts.LearnerSettings,
    parts.TargetSettings,
    parts.ValueSettings,
    parts.PolicySettings,
    parts.VectorSettings,
    parts.ProximalSettings,
    parts.CounterfactualSettings,
)


@pytest.fixture(scope="module", autouse=True)
def examples():
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


def own_algorithms():
    import qtran
    import seac

    return [*algorithms().values(), qtran.QTRAN, seac.SEAC]


def methods(cls):
    """What the source of a class defines by itself, without what dataclasses make."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def wrongly_overridden(cls):
    """Methods of a class and its bases that take the place of one that is final."""
    family = [c for c in cls.__mro__ if issubclass(c, Algorithm)]
    pairs = [
        (sub, base, name)
        for k, sub in enumerate(family)
        for base in family[k + 1 :]
        for name in methods(sub) & base.__dict__.keys()
    ]
    open_marks = ("__isabstractmethod__", "__replaceable__")
    return [
        f"{sub.__name__}.{name} overrides {base.__name__}'s"
        for sub, base, name in pairs
        if not any(getattr(base.__dict__[name], mark, False) for mark in open_marks)
    ]


def test_only_abstract_and_replaceable_methods_are_overridden():
    assert [sentence for cls in own_algorithms() for sentence in wrongly_overridden(cls)] == []


def test_no_method_calls_the_one_that_it_replaces():
    for cls in own_algorithms():
        for sub in cls.__mro__:
            if issubclass(sub, Algorithm) and sub is not Algorithm:
                assert "super()" not in inspect.getsource(sub), sub


def test_an_algorithm_is_at_most_three_classes_and_parts_that_hold_settings_only():
    for cls in own_algorithms():
        family = [c for c in cls.__mro__ if issubclass(c, Algorithm)]
        assert len(family) <= 3, family
        others = set(cls.__mro__) - set(family) - {object} - set(PARTS)
        assert {c.__name__ for c in others} <= {"ABC"}, others
    for part in PARTS:
        assert methods(part) == set()


def test_bases_are_abstract_and_algorithms_are_not():
    assert all(inspect.isabstract(base) for base in (Algorithm, ActorCritic, ValueBased))
    assert not any(inspect.isabstract(cls) for cls in own_algorithms())
    names = {cls.__name__ for cls in own_algorithms()}
    for cls in own_algorithms():
        assert all(sub.__name__ not in names for sub in cls.__mro__[1:]), "finals stay final"


def test_the_rule_is_seen_where_it_is_broken():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wrong(algorithms()["ia2c"]):
        def returns(self, steps, next_values):
            return next_values

    found = wrongly_overridden(Wrong)
    assert "Wrong.returns overrides ActorCritic's" in found


def test_each_setting_is_declared_once():
    """A class that gives a setting another default does not say again what it means."""
    from coterie.flags import field_docs, flags

    for cls in own_algorithms():
        docs = field_docs(cls)
        assert {f.name for f in dataclasses.fields(cls)} <= docs.keys(), cls
        assert all(flag.help for flag in flags(cls))
    said = [text for cls in (*PARTS, ActorCritic) for text in own_docs(cls).values()]
    assert len(said) == len(set(said))


def own_docs(cls):
    from coterie.flags import field_docs

    inherited = {}
    for base in cls.__mro__[1:]:
        if dataclasses.is_dataclass(base):
            inherited |= field_docs(base)
    return {k: v for k, v in field_docs(cls).items() if inherited.get(k) != v}


@pytest.mark.parametrize("name", ["central_q", "central_a2c"])
def test_central_learners_have_no_settings_of_sharing(name):
    cls = algorithms()[name]
    assert {"sharing", "groups"}.isdisjoint(f.name for f in dataclasses.fields(cls))
    with pytest.raises(TypeError):
        cls(sharing="shared")


def test_what_an_algorithm_reports_has_names_of_its_own():
    for cls in own_algorithms():
        names = (*cls.metrics, *cls.diagnostics)
        assert len(names) == len(set(names))
        assert "updates" in cls.metrics


ROOT = EXAMPLES.parent
WITHOUT_ARRAYS = ["--config", "lint.ignore=[]", "--output-format", "json"]


def test_no_name_is_undefined():
    """The linter takes axes in the types of arrays for names; these have one letter."""
    folders = [str(ROOT / name) for name in ("src", "benchmarks", "examples", "website")]
    command = [sys.executable, "-m", "ruff", "check", "--select", "F821", *WITHOUT_ARRAYS, *folders]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    names = {each["message"].split("`")[1] for each in json.loads(found.stdout)}
    assert {"T", "M"} <= names  # it has looked
    assert sorted(name for name in names if len(name) > 1) == []

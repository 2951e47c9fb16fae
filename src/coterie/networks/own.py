"""Networks of the user's own: what builds one, and its parameters as plain arrays by name.

A torso of one's own is an Equinox module that maps one observation to a vector of features:

    torso(space, key)                       # what builds it, such as its class
    __call__(observation)                   # [O] to [J], floats
    __call__(observation, hidden_state)     # to (features, hidden state), if it has
    initial_hidden_state()                  # any PyTree of floats

A head of one's own maps features to the outputs that an algorithm asks for:

    head(inputs, outputs, key)
    __call__(features)                      # [inputs] to [outputs], floats

Both are written for one agent and one step; axes of time, environments, agents and seeds are added
by ``jax.vmap``. Parameters are kept by name and not as the module itself, so that trees of one
network are alike whatever else the module holds, and files hold arrays only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Num

from coterie.errors import UsageError
from coterie.module_paths import importable, in_a_sentence, needed, path_of
from coterie.ops.observations import split
from coterie.settings import LONGEST, Kind, fitted
from coterie.spec import ObservationSpace
from coterie.types import PRNGKey, PyTree


class OwnNetwork(Kind):
    """What builds a network of the user's own, and the path under which runs record it.

    Two are equal if their paths are.

    Attributes:
        path: ``module:Name``; not always one that can be imported (see ``importable``).
        build: called with the arguments of the contract; None where only the path is known, as in
            a run's files, because nothing is imported that a file names.
    """

    words = "module:Name of a network of your own"
    placeholder = "MODULE:NAME"

    def __init__(self, path: str, build: Callable[..., Any] | None = None):
        self.path, self.build = path, build

    @classmethod
    def read(cls, value: Any) -> OwnNetwork | None:
        """From a path, or from what builds the network; None if it is neither."""
        if isinstance(value, OwnNetwork):
            return value
        if isinstance(value, str):
            module, _, name = value.partition(":")
            return cls(value) if module and name and len(value) <= LONGEST else None
        if isinstance(value, eqx.Module) and any(map(eqx.is_array, jax.tree.leaves(value))):
            name = type(value).__name__
            raise UsageError(
                f"a network is built by Coterie, one for each agent and seed: give the class {name}"
                f", or a function that returns one, and not a {name}"
            )
        return cls(path_of(value), value) if callable(value) else None

    @property
    def importable(self) -> bool:
        """Whether another process finds it under its path."""
        return importable(self.path)

    def __call__(self, *arguments: Any) -> Any:
        """Builds the network.

        Raises:
            UsageError: only its path is known.
        """
        if self.build is None:
            raise UsageError(needed({"torso": self.path}))
        return self.build(*arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnNetwork) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        return f"OwnNetwork({self.path})"

    def __deepcopy__(self, memo: dict[int, Any]) -> OwnNetwork:
        return self


NetworkSetting = Annotated[str | Callable[..., Any], OwnNetwork]
"""A setting that holds an ``OwnNetwork``, given as what builds it or as its path."""
HeadSetting = Literal["linear"] | NetworkSetting
"""The last layer of a network: weights and biases, or a network of the user's own."""


# What a network is made of -----------------------------------------------------------------------


@dataclass(frozen=True)
class Blueprint:
    """All of a network of the user's but its parameters; equal where what builds it is.

    Attributes:
        arguments: what it is built with before the key.
        names: of its parameters, in the order of its leaves; None for what else it holds.
        others: its leaves, None in the place of parameters.
        tree: its structure.
        outputs: length of the vector that it returns.
        hidden_size: length of its hidden state as a vector; 0 if it has none.
    """

    path: str = field(compare=False)
    build: Callable[..., Any] = field(hash=False)
    arguments: tuple[Any, ...]
    names: tuple[str | None, ...] = field(compare=False)
    others: tuple[Any, ...] = field(compare=False)
    tree: Any = field(compare=False)
    outputs: int = field(compare=False)
    hidden_size: int = field(compare=False)

    def parameters(self, key: PRNGKey) -> dict[str, Any]:
        """Initial parameters, by name."""
        module = self.build(*self.arguments, key)
        names, _, _ = _taken_apart(module)
        if tuple(names) != self.names:
            raise UsageError(
                f"{self.path} built networks of different parameters from the same arguments"
            )
        leaves = jax.tree.leaves(module)
        return {n: jnp.asarray(x) for n, x in zip(names, leaves, strict=True) if n is not None}

    def module(self, parameters: dict[str, Any]) -> Any:
        """The network itself."""
        leaves = [
            other if name is None else parameters[name]
            for name, other in zip(self.names, self.others, strict=True)
        ]
        return jax.tree.unflatten(self.tree, leaves)


def blueprint(
    network: OwnNetwork, arguments: tuple[Any, ...], inputs: int, sees: str = "observation"
) -> Blueprint:
    """What a network is made of, found by building it and calling it without numbers.

    Args:
        arguments: what it is built with before the key.
        inputs: length of the vector that it takes.
        sees: what this vector is.

    Raises:
        UsageError: only its path is known; it raises; it is no Equinox module; it holds or returns
            what it must not.
    """
    path = network.path
    with in_a_sentence(path, "was built"):
        module = eqx.filter_eval_shape(network, *arguments, jax.random.key(0))
    if not isinstance(module, eqx.Module) or not callable(module):
        raise UsageError(
            f"{path} must build an Equinox module (equinox.Module) with the method __call__; "
            f"it built a {type(module).__name__}"
        )
    names, others, tree = _taken_apart(module)
    for name in {n for n in names if n is not None and names.count(n) > 1}:
        raise UsageError(f"{path} holds two parameters whose path is {name}: rename one of them")
    for name, leaf in zip(names, jax.tree.leaves(module), strict=True):
        if name is not None and leaf.dtype != jnp.float32:
            raise UsageError(
                f"{path} holds {name}, an array of {leaf.dtype}: arrays are its parameters and "
                "must be of float32; make constants in __call__, where they are used"
            )
    outputs, hidden_size = _called(path, module, inputs, sees)
    parts = tuple(names), tuple(others), tree
    return Blueprint(path, network.build or network, arguments, *parts, outputs, hidden_size)


def _taken_apart(module: Any) -> tuple[list[str | None], list[Any], Any]:
    """Names of its parameters (None for other leaves), other leaves (None for these), structure."""
    found, tree = jax.tree_util.tree_flatten_with_path(module)
    names: list[str | None] = []
    others: list[Any] = []
    for path, leaf in found:
        learned = eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
        names.append(jax.tree_util.keystr(path, simple=True, separator="/") if learned else None)
        others.append(None if learned else leaf)
    return names, others, tree


def _called(path: str, module: Any, inputs: int, sees: str) -> tuple[int, int]:
    """Lengths of what a network returns and of its hidden state, which is 0 if it has none."""
    x = jax.ShapeDtypeStruct((inputs,), jnp.float32)
    article = "an" if sees == "observation" else "a"
    what = f"was called with {article} {sees}, float32 ({inputs},)"
    if not hasattr(module, "initial_hidden_state"):
        with in_a_sentence(path, what):
            returned = eqx.filter_eval_shape(lambda m, x: m(x), module, x)
        return _length(path, returned, sees), 0
    with in_a_sentence(path, "was asked for its initial hidden state"):
        initial = eqx.filter_eval_shape(lambda m: m.initial_hidden_state(), module)
    leaves = jax.tree.leaves(initial)
    if not leaves or not all(getattr(x, "dtype", None) == jnp.float32 for x in leaves):
        raise UsageError(
            f"{path} must return arrays of float32 from initial_hidden_state; it returned "
            f"{_in_words(initial)}"
        )
    with in_a_sentence(path, f"{what} and its hidden state"):
        returned = eqx.filter_eval_shape(lambda m, x, h: m(x, h), module, x, initial)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise UsageError(
            f"{path} has a hidden state, so it must return (features, hidden state); it returned "
            f"{_in_words(returned)}"
        )
    features, after = returned
    if _in_words(after) != _in_words(initial):
        raise UsageError(
            f"{path} must return a hidden state like its initial one, {_in_words(initial)}; it "
            f"returned {_in_words(after)}"
        )
    return _length(path, features, sees), sum(x.size for x in leaves)


def _length(path: str, returned: Any, sees: str) -> int:
    """Length of a vector of floats; UsageError if it is something else."""
    shape = getattr(returned, "shape", ())
    if len(shape) != 1 or not shape[0] or not jnp.issubdtype(returned.dtype, jnp.floating):
        raise UsageError(
            f"{path} must return one vector of floats for one {sees}, (J,) without other "
            f"axes; it returned {_in_words(returned)}"
        )
    return shape[0]


def _in_words(returned: Any) -> str:
    """What came out, in a sentence: "float32 (2, 3)"."""
    if hasattr(returned, "shape") and hasattr(returned, "dtype"):
        return f"{returned.dtype} {tuple(returned.shape)}"
    if isinstance(returned, tuple | list):
        name = type(returned).__name__
        return f"a {name} of {', '.join(map(_in_words, returned)) or 'nothing'}"
    if leaves := jax.tree.leaves(returned):
        return f"a {type(returned).__name__} with {', '.join(map(_in_words, leaves))}"
    return repr(returned)[:60]


# In use ------------------------------------------------------------------------------------------


class OwnTorso(eqx.Module):
    """A torso of the user's own: features of flat observations, agents' ids behind them.

    Attributes:
        parameters: those of the user's module, by name.
        space: of the observations that come in; the module sees them as floats, pixels as numbers
            from 0 to 1.
        ids: as many numbers follow an observation, which join the features as they are.
    """

    parameters: dict[str, Any]
    blueprint: Blueprint = eqx.field(static=True)
    space: ObservationSpace = eqx.field(static=True)
    ids: int = eqx.field(static=True)

    def __init__(
        self, space: ObservationSpace, network: NetworkSetting, key: PRNGKey, ids: int = 0
    ):
        self.space, self.ids = space, ids
        seen = as_floats(space)
        self.blueprint = blueprint(fitted("torso", network, NetworkSetting), (seen,), seen.size)
        self.parameters = self.blueprint.parameters(key)

    @property
    def name(self) -> str:
        """What files say of it."""
        return self.blueprint.path

    @property
    def features(self) -> int:
        """Length of the vector that comes out."""
        return self.blueprint.outputs + self.ids

    @property
    def hidden_size(self) -> int:
        """Length of the hidden state as a vector; 0 if there is none."""
        return self.blueprint.hidden_size

    def initial_hidden_state(self) -> Float[Array, " H"]:
        """Hidden state before the first observation, as a vector."""
        return ravel_pytree(self._module().initial_hidden_state())[0]

    def __call__(self, observations: Num[Array, "*S O"]) -> Float[Array, "*S J"]:
        """Features where there is no hidden state."""
        x, ids = self._apart(observations)
        features = _over_leading_axes(self._module(), x)
        return jnp.concatenate([features.astype(jnp.float32), ids], axis=-1)

    def step(
        self, hidden_state: Float[Array, "*S H"], observations: Num[Array, "*S O"]
    ) -> tuple[Float[Array, "*S J"], Float[Array, "*S H"]]:
        """Features, and the hidden state after them."""
        module, (x, ids) = self._module(), self._apart(observations)
        _, restored = ravel_pytree(module.initial_hidden_state())

        def one(x: Array, h: Array) -> tuple[Array, Array]:
            features, after = module(x, restored(h))
            return features.astype(jnp.float32), ravel_pytree(after)[0]

        features, after = _over_leading_axes(one, x, hidden_state)
        return jnp.concatenate([features, ids], axis=-1), after

    def _module(self) -> Any:
        return self.blueprint.module(self.parameters)

    def _apart(
        self, observations: Num[Array, "*S O"]
    ) -> tuple[Float[Array, "*S F"], Float[Array, "*S D"]]:
        """Observations as floats, and the ids behind them."""
        ids = ObservationSpace(((self.ids,),)) if self.ids else None
        arrays = split(observations, self.space + ids if ids else self.space)
        flat = [x.reshape(*observations.shape[:-1], -1) for x in arrays]
        seen = jnp.concatenate(flat[: len(self.space.shapes)], axis=-1)
        return seen, flat[-1] if ids else jnp.zeros((*seen.shape[:-1], 0))


class OwnHead(eqx.Module):
    """A head of the user's own in the place of the last layer.

    Attributes:
        parameters: those of the user's module, by name.
    """

    parameters: dict[str, Any]
    blueprint: Blueprint = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, network: NetworkSetting, key: PRNGKey):
        """``inputs`` and ``outputs`` are the numbers of features and of what comes out.

        Raises:
            UsageError: it returns another number, or has a hidden state.
        """
        own: OwnNetwork = fitted("head", network, NetworkSetting)
        self.blueprint = blueprint(own, (inputs, outputs), inputs, "vector of features")
        if self.blueprint.hidden_size:
            raise UsageError(f"{own.path} has a hidden state, which only a torso may have")
        if self.blueprint.outputs != outputs:
            raise UsageError(
                f"{own.path} must return {outputs} numbers, its argument outputs; it returned "
                f"{self.blueprint.outputs}"
            )
        self.parameters = self.blueprint.parameters(key)

    @property
    def name(self) -> str:
        """What files say of it."""
        return self.blueprint.path

    def __call__(self, features: Float[Array, "*S J"]) -> Float[Array, "*S K"]:
        found = _over_leading_axes(self.blueprint.module(self.parameters), features)
        return found.astype(jnp.float32)


def as_floats(space: ObservationSpace) -> ObservationSpace:
    """The space as a network of the user's sees it: the same arrays, all of float32."""
    return ObservationSpace(space.shapes, ("float32",) * len(space.shapes), space.names)


def _over_leading_axes(function: Callable[..., PyTree], *arrays: Array) -> PyTree:
    """A function of vectors, over all axes but the last."""
    lead = arrays[0].shape[:-1]
    rows = [x.reshape(-1, x.shape[-1]) for x in arrays]
    found = jax.vmap(function)(*rows)
    return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), found)

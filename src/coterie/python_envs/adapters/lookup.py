"""Finding a Python environment by name: modules, ids, callables, and what is wrong with them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from coterie.errors import EnvironmentFault, UsageError, described, place
from coterie.naming import misnamed
from coterie.python_envs.adapters.refusals import missing_arguments
from coterie.python_envs.adapters.spaces import gymnasium
from coterie.python_envs.process import OutOfTime, advice, undisturbed
from coterie.text import clipped, did_you_mean

EXTRAS = {
    "gymnasium": "python-envs",
    "pettingzoo": "python-envs",
    "lbforaging": "lbforaging",
    "mpe2": "mpe",
}
FAMILIES = ("mpe2", *(f"pettingzoo.{part}" for part in ("butterfly", "classic", "sisl", "atari")))
"""Packages with PettingZoo's environments."""
UNREGISTERED = "; it is not registered"
MAKERS = ("parallel_env", "env", "raw_env")
"""What PettingZoo's modules call their environments; the first found is taken."""


def open_factory(source: Any, options: Mapping[str, Any] | None = None) -> Callable[[], Any]:
    """A factory of an environment as its author made it; looked up now, and it pickles if it can.

    Args:
        source: a name (see ``environment.make_factory``), a module of PettingZoo's kind,
            or a callable that returns an environment.
        options: keywords for what a name means: the callable, ``gymnasium.make``, or the module's
            ``parallel_env``.

    Raises:
        UsageError: there is no such module, id, callable or keyword, or a package is not installed.
    """
    if isinstance(source, str):
        return _factory_of_name(source, options or {})
    if isinstance(source, ModuleType):
        return functools.partial(
            _open_callable, source.__name__, source.__name__, _maker(source.__name__, source)
        )
    if callable(source):
        return source
    raise UsageError(
        f"{type(source).__name__} is no name, module or callable that gives an environment"
    )


def with_options(
    name: str, make: Callable[..., Any], options: Mapping[str, Any]
) -> Callable[[], Any]:
    """A user's callable with keywords.

    Raises:
        UsageError: it takes no such keywords, or needs others.
    """
    _check_options(name, options, _keywords(make))
    if sentence := missing_arguments(make, dict(options)):
        raise UsageError(sentence)
    return functools.partial(make, **options) if options else make


def title(source: Any) -> str:
    """What an environment is called in messages."""
    if isinstance(source, str):
        return source
    if isinstance(source, functools.partial):
        return title(source.func)
    named = getattr(source, "__qualname__", None) or getattr(source, "__name__", None)
    if named:
        return str(named)
    base = getattr(source, "unwrapped", source)
    about = getattr(base, "metadata", None)
    known = about.get("name") if isinstance(about, dict) else None
    return str(known or type(base).__name__)


def _factory_of_name(name: str, options: Mapping[str, Any]) -> Callable[[], Any]:
    kind, _, rest = name.partition(":")
    if sentence := misnamed(name):
        raise UsageError(sentence)
    if not rest:
        raise UsageError(
            f"{name!r} names no environment; a Python environment is gymnasium:id, "
            "gymnasium:module:id, pettingzoo:module, pettingzoo:id or package.module:callable"
        )
    if kind == "gymnasium":
        _check_gymnasium_id(name, rest)
        _check_options(name, options, _keywords_of_id(rest))
        return functools.partial(_open_gymnasium, name, rest, **options)
    if kind == "pettingzoo" and "/" in rest:
        return functools.partial(_open_registered, name, _registry_of(name, rest), rest, **options)
    module, attribute = kind, rest
    if kind == "pettingzoo":
        module, attribute = rest, _maker(name, _import(name, rest))
    make = find_callable(name, module, attribute)
    _check_options(name, options, _keywords(make, _import(name, module)))
    return functools.partial(_open_callable, name, module, attribute, **options)


def _check_options(name: str, options: Mapping[str, Any], known: list[str] | None) -> None:
    """UsageError for a keyword that is not among the known ones, as far as they are known."""
    for option in options:
        if known is not None and option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            hint = did_you_mean(option, known)
            raise UsageError(f"{name} has no keyword argument {option!r}{hint} ({takes})")


def _keywords(make: Callable[..., Any], module: ModuleType | None = None) -> list[str] | None:
    """Keyword arguments of what makes an environment; None where it takes any.

    PettingZoo's ``parallel_env`` passes any on to the ``raw_env`` beside it.
    """
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        raw = getattr(module, "raw_env", None)
        return _keywords(raw) if callable(raw) and raw is not make else None
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _keywords_of_id(rest: str) -> list[str] | None:
    """Keyword arguments of what a Gymnasium id makes, and those of ``gymnasium.make``."""
    package = gymnasium()
    make = package.spec(rest.rpartition(":")[2]).entry_point
    if isinstance(make, str):
        try:
            make = package.envs.registration.load_env_creator(make)
        except Exception:
            return None  # making the environment imports it again, and says what is wrong
    own = _keywords(make)
    usual = [p for p in inspect.signature(package.make).parameters if p not in ("id", "kwargs")]
    return None if own is None else [*own, *(p for p in usual if p not in own)]


def takes_render_mode(make: Callable[[], Any]) -> bool:
    """Whether what ``open_factory`` or a user gave can be called with a ``render_mode``."""
    inner: Any = make
    if isinstance(make, functools.partial):
        if make.func in (_open_gymnasium, _open_registered):
            return True
        inner = find_callable(*make.args) if make.func is _open_callable else make
    try:
        parameters = inspect.signature(inner).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.name == "render_mode" or p.kind is p.VAR_KEYWORD for p in parameters)


def _maker(name: str, module: ModuleType) -> str:
    for maker in MAKERS:
        if callable(getattr(module, maker, None)):
            return maker
    *most, last = MAKERS
    raise UsageError(f"{name}: {module.__name__} has no {', '.join(most)} or {last} to call")


def _open_gymnasium(name: str, identity: str, /, **options: Any) -> Any:
    package = gymnasium()
    try:
        # The checker knows one agent only, and warns of every list of rewards.
        return package.make(identity, **{"disable_env_checker": True, **options})
    except (ImportError, package.error.DependencyNotInstalled) as error:
        raise _not_importable(name, identity, error) from error


def _open_registered(name: str, kind: str, identity: str, /, **options: Any) -> Any:
    try:
        return _import(name, "pettingzoo").make(kind, identity, **options)
    except Exception as error:
        # PettingZoo wraps what an import lacks into an error of its own.
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        if isinstance(cause, ImportError):
            raise _not_importable(name, identity, cause) from error
        raise


def _open_callable(name: str, module: str, attribute: str, /, **options: Any) -> Any:
    make = find_callable(name, module, attribute)
    try:
        return make(**options)
    except ModuleNotFoundError as error:
        raise _not_importable(name, module, error) from error
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise  # from inside: the message names its file and line, as any other exception
        raise UsageError(f"{name} cannot make an environment: {error}") from error


def _check_gymnasium_id(name: str, rest: str) -> None:
    module, _, identity = rest.rpartition(":")
    package = gymnasium(EXTRAS.get(module, EXTRAS["gymnasium"]))
    if module:
        _import(name, module)
    try:
        package.spec(identity)
    except (package.error.Error, ValueError) as error:  # a version of thousands of digits
        prefix = f"gymnasium:{module}:" if module else "gymnasium:"
        hint = did_you_mean(identity, package.registry, UNREGISTERED, 0.7, prefix)
        if not module:
            hint += " (where a package registers the id: gymnasium:<package>:<id>)"
        identity = clipped(identity, 100)
        raise UsageError(f"Gymnasium has no environment {identity!r}{hint}") from error


def _registry_of(name: str, identity: str) -> str:
    """``parallel`` or ``aec``: where PettingZoo has registered the id."""
    package = _import(name, "pettingzoo")
    registries = {
        kind: getattr(package, f"{kind}_registry", None) or {} for kind in ("parallel", "aec")
    }
    for kind, registered in registries.items():
        if identity in registered:
            return kind
    known = [known for registered in registries.values() for known in registered]
    hint = did_you_mean(identity, known, UNREGISTERED, prefix="pettingzoo:")
    raise UsageError(f"PettingZoo has no environment {identity!r}{hint}")


def find_callable(name: str, module: str, attribute: str) -> Callable[..., Any]:
    """What ``module:attribute`` names, which is imported.

    Args:
        name: what messages call it.

    Raises:
        UsageError: there is no such module or attribute, or it is not callable.
        EnvironmentFault: the module raises as it is imported.
    """
    found: Any = _import(name, module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            hint = did_you_mean(part, dir(found))
            raise UsageError(f"{name}: {module} has no {attribute}{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{name}: {attribute} of {module} is not callable")
    return found


def _import(name: str, module: str) -> ModuleType:
    if not all(part.isidentifier() for part in module.split(".")):
        raise UsageError(f"{name}: {module!r} is not the name of a module")
    try:
        with undisturbed(), warnings.catch_warnings():
            # PettingZoo's modules advise to use its registry; both are fine here.
            warnings.filterwarnings(
                "ignore", "The old environment creation API", DeprecationWarning
            )
            return importlib.import_module(module)
    except ImportError as error:
        raise _not_importable(name, module, error) from error
    except (KeyboardInterrupt, OutOfTime):
        raise
    except BaseException as error:
        what = f"{module} raised as it was imported: {described(error)}"
        raise EnvironmentFault(what, name) from error


def _not_importable(name: str, module: str, error: Exception) -> UsageError:
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if missing in EXTRAS:
        return UsageError(f"{name} needs {missing}: {advice(missing, EXTRAS[missing])}")
    if missing and f"{module}.".startswith(f"{missing}."):
        return UsageError(f"{name}: there is no module {missing}{_beside(missing)}")
    if missing:
        return UsageError(f"{name}: {module} needs {missing}, which is not installed")
    said = " ".join(str(error).split())
    return UsageError(f"{name}: {module} cannot be imported: {said}{place(error)}")


def _family_of(module: str) -> str | None:
    """The package of PettingZoo's that a module is in, as far as they are installed."""
    for family in FAMILIES:
        with contextlib.suppress(ImportError):
            spec = importlib.util.find_spec(family)
            places = spec.submodule_search_locations if spec else ()
            if module in {found.name for found in pkgutil.iter_modules(places or ())}:
                return family
    return "mpe2" if module.startswith("simple_") else None  # which PettingZoo's pages list


def _beside(missing: str) -> str:
    """Suggests a module of the same package, such as another version of it, or of this folder."""
    package, dot, last = missing.rpartition(".")
    if not package and (family := _family_of(last)):
        return f"; did you mean {family}.{last}?"
    places = getattr(sys.modules.get(package), "__path__", ()) if package else [os.getcwd()]
    beside = [found.name for found in pkgutil.iter_modules(places)]
    return did_you_mean(last, beside, prefix=package + dot)

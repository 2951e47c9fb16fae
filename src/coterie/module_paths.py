"""``module:Name``: the path of code of the user's. In a run's files it is data, and nothing more.

Nothing is imported because a file names it: whoever opens a run passes its code explicitly.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coterie.errors import UsageError
from coterie.naming import is_code

MAIN = "__main__"


def path_of(made: Any) -> str:
    """``module:name`` of a class or callable, with brackets behind it where it is more than what
    has this name."""
    own: Any = made.func if isinstance(made, functools.partial) else made
    own = own if hasattr(own, "__qualname__") else type(own)
    path = f"{own.__module__}:{own.__qualname__}"
    found: Any = sys.modules.get(own.__module__)
    for part in own.__qualname__.split("."):
        found = getattr(found, part, None)
    return path if found is made or "<" in path else f"{path}(...)"


def importable(path: str) -> bool:
    """Whether another process finds it under its path, where it has the module."""
    return not is_code(path) or not (path.startswith(f"{MAIN}:") or "<" in path or "(" in path)


def options(paths: Mapping[str, str]) -> str:
    """Options of a command that name code: ``--torso module:Name``."""
    return shlex.join(word for what, path in paths.items() for word in (f"--{what}", path))


def needed(missing: Mapping[str, str]) -> str:
    """A sentence where code has to be passed explicitly, and was not.

    Args:
        missing: paths, by what is there: ``environment``, ``algorithm``, ``torso``, ``head``,
            ``python``.
    """
    (word, path), *others = missing.items()
    what = "".join([f"the {word} of the run is {path}", *(f", its {w} {p}" for w, p in others)])
    them, are = ("them", "are") if others else ("it", "is")
    if all(map(importable, missing.values())):
        used = "used" if "python" in missing else "imported"
        return f"{what}, which {are} {used} only if you name {them}: give {options(missing)}"
    given = ", ".join(f"{word}=..." for word in missing)
    return f"{what}, which cannot be imported by a path: give {them} in Python ({given})"


@contextlib.contextmanager
def in_a_sentence(path: str, when: str) -> Iterator[None]:
    """Says what code of the user's raises in one sentence, with the line of theirs it came from.

    Raises:
        UsageError: it raised.
    """
    try:
        yield
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{path} raised as it {when}: {_in_short(error)}") from error


@contextlib.contextmanager
def said_of(kind: type, when: str) -> Iterator[None]:
    """Says what methods of a user's class raise in one sentence, and what they return that does not
    fit; other errors stay as they are."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if _raised_in(kind, error):
            with in_a_sentence(path_of(kind), when):
                raise
        if _does_not_fit(kind, error):
            raise UsageError(
                f"{path_of(kind)} has a method that does not fit what calls it, or returns what "
                f"does not: {_in_short(error, anywhere=True)}"
            ) from error
        raise


def _own_bases(kind: type) -> list[type]:
    """A class and its bases, as far as they are the user's."""
    builtin = ("builtins", "abc", "typing")
    own = [base for base in kind.__mro__ if base.__module__ not in builtin]
    return [base for base in own if not f"{base.__module__}.".startswith("coterie.")]


def _does_not_fit(kind: type, error: BaseException) -> bool:
    """Whether learning with a user's class met a wrong number, type or shape of something."""
    if not isinstance(error, TypeError | ValueError | AttributeError | IndexError):
        return False
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    learning = (
        f"{os.sep}coterie{os.sep}learners{os.sep}",
        f"{os.sep}coterie{os.sep}training{os.sep}",
    )
    met = any(part in name for name in frames for part in learning)
    told = any(name.endswith(f"runs{os.sep}callbacks.py") for name in frames)
    return bool(_own_bases(kind)) and met and not told


def _raised_in(kind: type, error: BaseException) -> bool:
    """Whether an error comes out of a method of a class, or of a base of it, of the user's."""
    own = _own_bases(kind)
    files = {getattr(sys.modules.get(base.__module__), "__file__", None) for base in own}
    methods = tuple(f"{base.__qualname__}." for base in own)
    codes = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(c.co_filename in files and c.co_qualname.startswith(methods) for c in codes)


def _in_short(error: BaseException, anywhere: bool = False) -> str:
    said = " ".join(str(error).split())
    kind = type(error).__name__
    message = f"{kind}: {said}" if said else kind
    if len(message) > 300:
        message = f"{message[:297]}..."
    return message + _line_of(error, anywhere)


def _line_of(error: BaseException, anywhere: bool) -> str:
    """`` (file, line n)``: the last line outside of installed packages, and of this one unless it
    may be anywhere."""
    here = "\0" if anywhere else f"{Path(__file__).parent}{os.sep}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((here, "<frozen "))
        and "site-packages" not in frame.filename
    ]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""

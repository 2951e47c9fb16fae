"""Tables of payoffs: from lists and files, checked; names of players and actions."""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from coterie.errors import UsageError
from coterie.storage.files import parse_json

FILES = (".json", ".npy", ".npz")
_MAX_AXES = 32
MOST_BYTES = 2**28
"""Of a payoff file, and of all that is packed in it."""


def payoff_table(payoffs: Any, players: int | None = None) -> np.ndarray:
    """Any payoff table as float64 [A_1, ..., A_n, n].

    Args:
        payoffs: numbers, nested or an array: [A_1, ..., A_n, n], or [A_1, ..., A_n] where every
            agent gets the same.
        players: n, needed only where the shape can be read both ways.

    Raises:
        UsageError: ragged, not numeric, not finite, empty, or of an unclear or unfitting shape.
    """
    nested = isinstance(payoffs, (list, tuple))
    if nested:
        _rectangular(payoffs)
    table = np.asarray(payoffs, dtype=np.float64 if nested else None)
    if table.dtype.kind not in "iuf":
        raise UsageError(f"payoffs must be numbers; got an array of {table.dtype}")
    if table.ndim == 0 or table.size == 0:
        raise UsageError(f"every agent needs at least one action; got shape {table.shape}")
    table = table.astype(np.float64)
    if not (np.abs(table) <= np.finfo(np.float32).max).all():
        raise UsageError("payoffs must be finite numbers within single precision")
    if _players(table.shape, players) == table.ndim:
        return np.repeat(table[..., None], table.ndim, axis=-1)
    return table


def _players(shape: tuple[int, ...], players: int | None) -> int:
    """n, from the shape of a table and, where it is said, the number of players."""
    axes = len(shape)
    readings = [axes - 1] if axes > 1 and shape[-1] == axes - 1 else []
    readings += [axes]
    if players is None and len(readings) > 1:
        raise UsageError(
            f"payoffs of shape {shape} may be the own payoffs of {axes - 1} players or the common "
            f'payoff of {axes}: name the agents ("players" in a file, --env.players)'
        )
    n = readings[0] if players is None else players
    if n not in readings:
        raise UsageError(
            f"payoffs of shape {shape} do not fit {n} players: the shape must be "
            f"[A_1, ..., A_{n}, {n}], or [A_1, ..., A_{n}] for a common payoff"
        )
    return n


def _rectangular(nested: Any, where: str = "payoffs", depth: int = 0) -> tuple[int, ...]:
    """The shape of nested lists of numbers; says where they are not rectangular."""
    if hasattr(nested, "__array__") and np.asarray(nested).dtype.kind in "iuf":
        return np.shape(nested)
    if not isinstance(nested, (list, tuple)):
        number = isinstance(nested, (int, float)) and not isinstance(nested, bool)
        if not number or not _fits_float(nested):
            raise UsageError(f"{where} must be a finite number; got {_short(nested)}")
        return ()
    if depth == _MAX_AXES:
        raise UsageError(f"payoffs are nested more than {_MAX_AXES} lists deep")
    shapes = [_rectangular(x, f"{where}[{k}]", depth + 1) for k, x in enumerate(nested)]
    for k, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise UsageError(
                f"payoffs are ragged: {where}[{k}] has shape {list(shape)}, "
                f"{where}[0] has {list(shapes[0])}"
            )
    return (len(nested), *(shapes[0] if shapes else ()))


def _fits_float(number: Any) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a huge number"
    return text if len(text) <= 40 else text[:37] + "..."


def labelled(actions: Sequence[Any] | None, counts: tuple[int, ...]) -> tuple[tuple[str, ...], ...]:
    """Labels per agent, from one list for all, one list each, or A, B, C, ..."""
    if actions is None:
        return tuple(tuple(_letters(k) for k in range(count)) for count in counts)
    shared = all(isinstance(a, str) for a in actions)
    lists = [actions] * len(counts) if shared else actions
    texts = all(
        isinstance(own, (list, tuple)) and all(isinstance(a, str) and a for a in own)
        for own in lists
    )
    if not texts or len(lists) != len(counts):
        raise UsageError(
            "actions must be a list of names for all players, or one such list for each of the "
            f"{len(counts)} players; got {_short(actions)}"
        )
    for i, (own, count) in enumerate(zip(lists, counts, strict=True)):
        if len(own) != count or len(set(own)) != count:
            raise UsageError(
                f"player {i + 1} has {count} actions, so needs as many distinct names; "
                f"got {_short(list(own))}"
            )
    return tuple(tuple(own) for own in lists)


def _letters(k: int) -> str:
    """A, ..., Z, AA, AB, ... as a spreadsheet names its columns."""
    return (_letters(k // 26 - 1) if k >= 26 else "") + chr(ord("A") + k % 26)


def named_players(players: Any, asked: int | None) -> tuple[tuple[str, ...] | None, int | None]:
    """Names (if the file gives them) and number (if file or option give it) of the players."""
    names = None
    count = asked
    if isinstance(players, list) and all(isinstance(p, str) and p for p in players) and players:
        names, count = tuple(players), len(players)
    elif isinstance(players, int) and not isinstance(players, bool) and players > 0:
        count = players
    elif players is not None:
        raise UsageError(f'"players" must be a list of names or a number; got {_short(players)}')
    if asked is not None and asked != count:
        raise UsageError(f"it has {count} players, but --env.players says {asked}")
    return names, count


def read_json(text: bytes) -> dict[str, Any]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UsageError(f"it cannot be read as JSON ({_first_line(error)})") from None
    if not isinstance(content, dict) or "payoffs" not in content:
        raise UsageError('a payoff file holds an object with "payoffs", a nested list of numbers')
    return _known_keys(content)


def read_numpy(text: bytes) -> dict[str, Any]:
    """The array of a .npy file; of a .npz file, ``payoffs`` (or its only array), ``players``..."""
    if (size := _unpacked(text)) > MOST_BYTES:
        raise UsageError(f"it holds {size:,} bytes, more than {MOST_BYTES:,}")
    try:
        loaded = np.load(io.BytesIO(text), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"payoffs": loaded}
        content = {key: loaded[key] for key in loaded.files}
    except Exception as error:  # a damaged file raises what zipfile, zlib or tokenize please
        raise UsageError(f"it cannot be read as a NumPy file ({_first_line(error)})") from None
    if len(content) == 1:
        return {"payoffs": next(iter(content.values()))}
    if "payoffs" not in content:
        raise UsageError(f"it needs an array named payoffs; it has {', '.join(content) or 'none'}")
    rest = {k: v.tolist() for k, v in content.items() if k != "payoffs"}
    return _known_keys({"payoffs": content["payoffs"], **rest})


def _unpacked(text: bytes) -> int:
    """Bytes of all that an archive holds; 0 if it is none."""
    with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(text)) as archive:
        return sum(member.file_size for member in archive.infolist())
    return 0


def _known_keys(content: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(content.keys() - {"payoffs", "players", "actions"})
    if unknown:
        raise UsageError(f'unknown entry "{unknown[0]}"; known are payoffs, players and actions')
    if not isinstance(content.get("actions", []), list):
        raise UsageError(f'"actions" must be a list; got {_short(content["actions"])}')
    return content


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

"""One PyTree of arrays and a few JSON words in one safetensors file, with digests.

The format is in ``docs/formats.md``. Nothing in a file names code, and nothing is unpickled.
A file takes its name only when all of it is on the disk; every byte is covered by a digest, so
what ``read_tree`` returns is what ``write_tree`` was given.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coterie.storage.files import opened, replacing
from coterie.storage.formats import present_leaves
from coterie.types import PyTree

_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "F32": np.dtype(np.float32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_VERSION = "1"
_NO_DIGEST = "0" * 64
# The header's digest stands at a fixed place, so a header is verified before it is parsed.
_OPENING = b'{"__metadata__":{"digest":"'
_PIECE = 2**20
_HEADER_LIMIT = 100_000_000  # what the safetensors library itself accepts


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or cannot be trusted; the message says which and why."""


class CheckpointMismatch(CheckpointError):
    """The file is whole, but holds another tree than the one asked for."""


class _Tensor(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    """From the start of the data, not of the file."""
    digest: str = _NO_DIGEST

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class _Layout(NamedTuple):
    """A header: where each tensor lies, which of them are PRNG keys, and the metadata."""

    tensors: dict[str, _Tensor]
    keys: dict[str, str]
    meta: dict[str, Any]


def write_tree(path: Path, tree: PyTree, meta: dict[str, Any]) -> None:
    """Writes the array leaves of ``tree`` and ``meta`` to ``path``, all or nothing.

    Typed PRNG keys are stored as their words and the name of their implementation. Leaves that
    are not arrays (functions, Python numbers) are the template's business and are not written.
    At most one leaf at a time is copied to the host; on a CPU none is.

    Args:
        path: the file; an existing one is replaced only when the new one is on the disk.
        meta: what ``json.dumps`` takes.

    Raises:
        CheckpointError: two leaves share a name, a dtype has no safetensors code, or the disk
            refuses.
    """
    leaves = _array_leaves(tree)
    # Wide types first: every tensor then starts at a multiple of its item size.
    stored = sorted(
        ((name, *_stored(leaf)) for name, leaf in leaves.items()), key=lambda x: -x[1].itemsize
    )
    tensors: dict[str, _Tensor] = {}
    end = 0
    for name, dtype, shape in stored:
        if dtype not in _CODES:
            raise CheckpointError(f"cannot write {path}: {name} has dtype {dtype}, not storable")
        tensors[name] = _Tensor(dtype, shape, end)
        end += tensors[name].nbytes
    keys = {name: str(jax.random.key_impl(x)) for name, x in leaves.items() if _is_key(x)}
    layout = _Layout(tensors, keys, meta)
    with writing(path), replacing(path) as file:
        file.write(_header(layout))
        for name, tensor in tensors.items():
            digest = _write_sparse(file, _bytes_of(leaves[name]))
            tensors[name] = tensor._replace(digest=digest)
        file.truncate()
        # Digests have a fixed length, so the header now known falls into the same place.
        file.seek(0)
        file.write(_header(layout))
        file.flush()
        _verify(path, file)


def read_tree(
    path: Path,
    like: PyTree,
    optional: Callable[[str], bool] = lambda name: False,
    resizable: Callable[[str], bool] = lambda name: False,
) -> tuple[PyTree, dict[str, Any]]:
    """The tree and metadata of ``write_tree``, verified.

    Args:
        like: a tree of the same structure, of arrays or ``jax.ShapeDtypeStruct``. NumPy leaves
            come back as NumPy, all others on JAX's default device; leaves that are not arrays
            are passed through.
        optional: numbers that a file may lack, by name; they are NaN then.
        resizable: arrays, by name, whose axes may have other lengths than those of ``like``.

    Raises:
        CheckpointMismatch: names, shapes or dtypes are not those of ``like``.
        CheckpointError: no such file, or a damaged one.
    """
    wanted = _array_leaves(like)
    with reading(path) as file:
        layout, start = read_layout(path, file)
        layout = _under_present_names(layout, wanted)
        absent = {n for n in wanted if n not in layout.tensors and optional(n)}
        present = {n: leaf for n, leaf in wanted.items() if n not in absent}
        _match(path, layout, present, resizable)

        def restore(key_path: Any, leaf: Any) -> Any:
            if not _is_array(leaf):
                return leaf
            name = leaf_name(key_path)
            if name in absent:
                array = np if isinstance(leaf, np.ndarray) else jnp
                return array.full(leaf.shape, np.nan, leaf.dtype)
            data = _read_tensor(path, file, start, name, layout.tensors[name])
            return _as_leaf(path, name, data, leaf, layout.keys.get(name))

        tree = jax.tree_util.tree_map_with_path(restore, like)
    return tree, layout.meta


def _under_present_names(layout: _Layout, wanted: Iterable[str]) -> _Layout:
    """The layout with the present names of leaves that a former format called otherwise."""
    present = present_leaves(layout.tensors, wanted)
    return layout._replace(
        tensors={present.get(name, name): tensor for name, tensor in layout.tensors.items()},
        keys={present.get(name, name): impl for name, impl in layout.keys.items()},
    )


def read_arrays(
    path: Path, wanted: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All tensors by name, as NumPy arrays (PRNG keys as their words), and the metadata.

    Args:
        wanted: says of each name whether it is read.

    Raises:
        CheckpointError: no such file, or a damaged one.
    """
    with reading(path) as file:
        layout, start = read_layout(path, file)
        arrays = {
            name: _read_tensor(path, file, start, name, tensor)
            for name, tensor in layout.tensors.items()
            if wanted(name)
        }
    return arrays, layout.meta


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_dtype(impl: str | None) -> Any:
    """The dtype of typed PRNG keys of an implementation; ``None`` for no key, or none known."""
    with contextlib.suppress(ValueError):
        return impl and jax.eval_shape(lambda: jax.random.key(0, impl=impl)).dtype
    return None


def leaf_name(key_path: Any) -> str:
    """The name under which a leaf of a tree is stored: its path, joined by slashes."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/") or "value"


def _array_leaves(tree: PyTree) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = leaf_name(key_path)
        if not _is_array(leaf):
            continue
        if name in leaves or name == "__metadata__":
            raise CheckpointError(f"two leaves of the tree, or one and the header, are {name!r}")
        leaves[name] = leaf
    return leaves


def _stored(leaf: Any) -> tuple[np.dtype, tuple[int, ...]]:
    """Dtype and shape in the file: a typed PRNG key is stored as its words."""
    raw = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return np.dtype(raw.dtype), tuple(raw.shape)


def _bytes_of(leaf: Any) -> memoryview:
    """The bytes of a leaf, without a copy where it already lies in order on the host."""
    raw = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    return np.ascontiguousarray(raw).reshape(-1).view(np.uint8).data


def _as_leaf(path: Path, name: str, data: np.ndarray, like: Any, impl: str | None) -> Any:
    if isinstance(like, np.generic):
        return data[()]
    if isinstance(like, np.ndarray):
        return data
    if impl is not None:
        return jax.random.wrap_key_data(jnp.asarray(data), impl=impl)
    leaf = jnp.asarray(data)
    if leaf.dtype != like.dtype:
        raise CheckpointMismatch(f"{path}: {name} is {data.dtype}, which needs JAX_ENABLE_X64=1")
    return leaf


def _match(
    path: Path, layout: _Layout, wanted: dict[str, Any], resizable: Callable[[str], bool]
) -> None:
    for word, names in (
        ("lacks", [n for n in wanted if n not in layout.tensors]),
        ("has an unexpected", [n for n in layout.tensors if n not in wanted]),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointMismatch(f"{path} {word} {names[0]}{more}: it is of another run")
    for name, leaf in wanted.items():
        tensor, (dtype, shape) = layout.tensors[name], _stored(leaf)
        if resizable(name) and len(tensor.shape) == len(shape):
            shape = tensor.shape
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            raise CheckpointMismatch(
                f"{path}: {name} is {tensor.dtype} {list(tensor.shape)}, "
                f"where {dtype} {list(shape)} is expected"
            )
        if _key_dtype(layout.keys.get(name)) != (leaf.dtype if _is_key(leaf) else None):
            raise CheckpointMismatch(
                f"{path}: {name} is a PRNG key of {layout.keys.get(name)}, "
                f"where {leaf.dtype} is expected"
            )


def _header(layout: _Layout) -> bytes:
    """Length and JSON of the header; its digest is of itself with zeros in the digest's place."""
    metadata = {
        "digest": _NO_DIGEST,
        "format": f"coterie {_VERSION}",
        "digests": json.dumps({name: t.digest for name, t in layout.tensors.items()}),
        "keys": json.dumps(layout.keys),
        "meta": json.dumps(layout.meta),
    }
    tensors = {
        name: {
            "dtype": _CODES[t.dtype],
            "shape": list(t.shape),
            "data_offsets": [t.offset, t.offset + t.nbytes],
        }
        for name, t in layout.tensors.items()
    }
    text = json.dumps({"__metadata__": metadata, **tensors}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    text = text.replace(_NO_DIGEST.encode(), hashlib.sha256(text).hexdigest().encode(), 1)
    return len(text).to_bytes(8, "little") + text


def read_layout(path: Path, file: BufferedIOBase) -> tuple[_Layout, int]:
    """The verified header and where the data starts; allocates no more than the file holds."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _HEADER_LIMIT):
        raise CheckpointError(f"{path} is damaged: {size} bytes cannot hold its header")
    text = file.read(length)
    digest, rest = text[len(_OPENING) :][:64], text[len(_OPENING) + 64 :]
    if not text.startswith(_OPENING):
        raise CheckpointError(f"{path} is no checkpoint of Coterie, or its header is damaged")
    if hashlib.sha256(_OPENING + _NO_DIGEST.encode() + rest).hexdigest().encode() != digest:
        raise CheckpointError(f"{path} is damaged: its header differs from its digest")
    try:
        layout = _parse(text, size - 8 - length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its header is malformed ({error})") from error
    return layout, 8 + length


def _parse(text: bytes, room: int) -> _Layout:
    """The header's tensors, which must fill ``room`` bytes exactly and without gaps."""
    entries = json.loads(text)
    metadata = entries.pop("__metadata__")
    if metadata["format"] != f"coterie {_VERSION}":
        raise ValueError(f"format {metadata['format']!r}, this version reads {_VERSION}")
    digests, keys, meta = (json.loads(metadata[k]) for k in ("digests", "keys", "meta"))
    tensors: dict[str, _Tensor] = {}
    end = 0
    for name, entry in entries.items():
        shape = tuple(entry["shape"])
        # NumPy's limits: 64 axes, and 2^63 bytes even where one axis is empty.
        natural = len(shape) <= 64 and all(type(n) is int and 0 <= n < 2**48 for n in shape)
        if not natural or math.prod(max(n, 1) for n in shape) >= 2**56:
            raise ValueError(f"{name} has an impossible shape")
        tensors[name] = _Tensor(_DTYPES[entry["dtype"]], shape, end, digests.pop(name))
        end += tensors[name].nbytes
        if entry["data_offsets"] != [tensors[name].offset, end]:
            raise ValueError(f"{name} lies outside its place")
    if end != room:
        raise ValueError(f"{room} bytes of data, {end} expected")
    if digests or not keys.keys() <= tensors.keys():
        raise ValueError("metadata of other tensors")
    if not isinstance(meta, dict) or not all(isinstance(impl, str) for impl in keys.values()):
        raise ValueError("metadata of another kind")
    return _Layout(tensors, keys, meta)


def _read_tensor(
    path: Path, file: BufferedIOBase, start: int, name: str, tensor: _Tensor
) -> np.ndarray:
    raw = np.empty(tensor.nbytes, np.uint8)
    file.seek(start + tensor.offset)
    count = file.readinto(raw.data)
    if count != raw.size or hashlib.sha256(raw.data).hexdigest() != tensor.digest:
        raise CheckpointError(f"{path} is damaged: {name} differs from its digest")
    return raw.view(tensor.dtype).reshape(tensor.shape)


def _write_sparse(file: BufferedIOBase, data: memoryview) -> str:
    """Leaves holes for pieces of zeros: a replay not yet full takes neither time nor room.

    Returns:
        the digest of the data, taken piece by piece while each is in the cache.
    """
    digest = hashlib.sha256()
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        digest.update(piece)
        if len(piece) < _PIECE or np.frombuffer(piece, np.uint64).any():
            file.write(piece)
        else:
            file.seek(_PIECE, os.SEEK_CUR)
    return digest.hexdigest()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BufferedIOBase]:
    try:
        with BufferedReader(opened(path)) as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever the disk refuses is an error that names the file."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error


def _verify(path: Path, file: BufferedIOBase) -> None:
    """Reads a file again, in small pieces, and compares it with its digests."""
    file.seek(0)
    layout, _ = read_layout(path, file)
    buffer = memoryview(bytearray(2**20))
    for name, tensor in layout.tensors.items():
        digest, left = hashlib.sha256(), tensor.nbytes
        while left and (count := file.readinto(buffer[: min(left, len(buffer))])):
            digest.update(buffer[:count])
            left -= count
        if digest.hexdigest() != tensor.digest:
            raise CheckpointError(f"cannot write {path}: {name} reads back changed")

"""What is written is what is read, and nothing damaged is ever taken for good."""

import hashlib
import json
import logging
import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from coterie.errors import UsageError
from coterie.storage import tree_files as checkpoint
from coterie.storage.checkpoint import latest, save
from coterie.storage.tree_files import (
    CheckpointError,
    CheckpointMismatch,
    read_arrays,
    read_tree,
    write_tree,
)

META = {"env_steps": 2**40 + 1, "best": float("-inf"), "name": "Grüße", "list": [1, None, True]}


class Learner(eqx.Module):
    weight: jax.Array
    activation: object
    rate: float = 0.5


def all_kinds():
    return {
        "learner": Learner(jax.random.normal(jax.random.key(3), (5, 3)), jnp.tanh),
        "key": jax.random.key(7),
        "keys": jax.random.split(jax.random.key(8), (2, 3)),
        "rbg": jax.random.key(9, impl="rbg"),
        "half": jnp.asarray([1.5, -0.0, jnp.inf, jnp.nan], jnp.bfloat16),
        "f16": jnp.asarray([0.1], jnp.float16),
        "bits": (jnp.asarray([True, False, True]), jnp.zeros((), bool)),
        "words": jnp.asarray([[0, 2**32 - 1]], jnp.uint32),
        "small": jnp.asarray([-128, 127], jnp.int8),
        "scalar": jnp.asarray(-3, jnp.int32),
        "empty": jnp.zeros((0, 4), jnp.float32),
        "numpy": np.arange(6, dtype=np.int64).reshape(2, 3).T,
        "number": np.float64(0.1),
        "none": None,
        "plain": 3,
    }


def tiny():
    return {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray([3.0, 4.0]), "key": jax.random.key(1)}


def raw(leaf):
    if not hasattr(leaf, "dtype"):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(jax.random.key_impl(leaf)), np.asarray(jax.random.key_data(leaf)).tobytes()
    return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert raw(a) == raw(b)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.safetensors"


def test_read_gives_what_was_written(path: Path):
    tree = all_kinds()
    write_tree(path, tree, META)
    got, meta = read_tree(path, tree)
    assert meta == META
    assert_same(got, tree)
    assert isinstance(got["numpy"], np.ndarray)
    assert isinstance(got["number"], np.float64)
    assert got["learner"].activation is jnp.tanh
    # The restored key is a key: it draws what the written one draws.
    assert jax.random.bits(got["keys"][1, 2]) == jax.random.bits(tree["keys"][1, 2])


def test_a_template_of_shapes_is_enough(path: Path):
    tree = tiny()
    write_tree(path, tree, {})
    got, _ = read_tree(path, jax.eval_shape(tiny))
    assert_same(got, tree)


def test_read_arrays_needs_no_template(path: Path):
    write_tree(path, all_kinds(), META)
    arrays, meta = read_arrays(path)
    assert meta == META
    assert arrays["learner/weight"].shape == (5, 3)
    assert arrays["keys"].dtype == np.uint32
    assert "plain" not in arrays
    assert "learner/activation" not in arrays
    np.testing.assert_array_equal(arrays["numpy"], np.arange(6).reshape(2, 3).T)


def test_the_safetensors_library_reads_the_file(path: Path):
    tree = {k: v for k, v in all_kinds().items() if k != "half"}  # its NumPy side has no bfloat16
    write_tree(path, tree, META)
    arrays, _ = read_arrays(path)
    theirs = safetensors.numpy.load_file(path)
    assert theirs.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(theirs[name], array)


def test_a_single_leaf_is_a_tree(path: Path):
    write_tree(path, jnp.arange(3), {})
    assert list(read_arrays(path)[0]) == ["value"]
    assert_same(read_tree(path, jnp.zeros(3, int))[0], jnp.arange(3))


@pytest.mark.slow
def test_every_flipped_byte_is_detected(path: Path):
    write_tree(path, tiny(), {"step": 1})
    good = path.read_bytes()
    assert len(good) < 2000
    for position in range(len(good)):
        for bit in (0x01, 0x20, 0x80):  # 0x20 turns a hexadecimal digit into a capital
            bad = bytearray(good)
            bad[position] ^= bit
            path.write_bytes(bad)
            with pytest.raises(CheckpointError):
                read_arrays(path)


def test_every_truncation_and_any_extra_byte_is_detected(path: Path):
    write_tree(path, tiny(), {"step": 1})
    good = path.read_bytes()
    for bad in [*(good[:n] for n in range(len(good))), good + b"\0"]:
        path.write_bytes(bad)
        with pytest.raises(CheckpointError):
            read_arrays(path)


def split(path: Path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def forge(path: Path, header: dict, data: bytes):
    """A file whose header digest is right, as a deliberate forger could write it."""
    header["__metadata__"]["digest"] = "0" * 64
    text = json.dumps(header, separators=(",", ":")).encode()
    digest = hashlib.sha256(text).hexdigest().encode()
    text = text.replace(b"0" * 64, digest, 1)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_the_forger_of_these_tests_writes_good_files(path: Path):
    write_tree(path, tiny(), {})
    forge(path, *split(path))
    assert_same(read_tree(path, tiny())[0], tiny())


def test_swapped_tensors_are_detected(path: Path):
    write_tree(path, tiny(), {})
    header, data = split(path)
    forge(path, header, data[8:16] + data[:8] + data[16:])
    with pytest.raises(CheckpointError, match=r"state\.safetensors is damaged: a differs"):
        read_tree(path, tiny())
    header["a"], header["b"] = header["b"], header["a"]
    forge(path, header, data)
    with pytest.raises(CheckpointError, match="outside its place"):
        read_tree(path, tiny())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", [2**62]),
        ("shape", [-2]),
        ("shape", [2.0]),
        ("shape", [True, 2]),
        ("shape", "2"),
        ("dtype", "F8"),
        ("dtype", ["F32"]),
        ("data_offsets", [0, 2**60]),
        ("data_offsets", [8, 0]),
        ("data_offsets", None),
    ],
)
def test_absurd_headers_are_refused(path: Path, field: str, value: object):
    write_tree(path, tiny(), {})
    header, data = split(path)
    header["a"][field] = value
    forge(path, header, data)
    with pytest.raises(CheckpointError, match="malformed"):
        read_arrays(path)


@pytest.mark.parametrize("shape", [[0, 2**40, 2**40], [2**70, 0], [0] * 65])
def test_absurd_empty_shapes_are_refused(path: Path, shape: list[int]):
    write_tree(path, {"a": jnp.zeros((0, 2))}, {})
    header, data = split(path)
    header["a"]["shape"] = shape
    forge(path, header, data)
    with pytest.raises(CheckpointError, match="damaged"):
        read_arrays(path)


def test_other_metadata_is_refused(path: Path):
    write_tree(path, tiny(), {})
    for field, value in [
        ("meta", "[]"),
        ("meta", "[" * 100_000),
        ("keys", '{"c": "threefry2x32"}'),
        ("keys", "[]"),
        ("keys", '{"key": 7}'),
        ("digests", "{}"),
        ("digests", '{"a": 1, "b": 2, "key": 3}'),
        ("format", "coterie 2"),
    ]:
        write_tree(path, tiny(), {})
        header, data = split(path)
        header["__metadata__"][field] = value
        forge(path, header, data)
        with pytest.raises(CheckpointError):
            read_arrays(path)


@pytest.mark.parametrize("length", [2**64 - 1, 2**40, 10**8 + 1, 300])
def test_header_length_bombs_are_refused_before_reading(path: Path, length: int):
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    os.truncate(path, 308 if length > 300 else 100)
    with pytest.raises(CheckpointError, match="cannot hold its header"):
        read_arrays(path)


def test_a_huge_sparse_file_is_not_read_as_a_header(path: Path):
    path.write_bytes((10**9).to_bytes(8, "little"))
    os.truncate(path, 2 * 10**9)
    with pytest.raises(CheckpointError, match="cannot hold its header"):
        read_arrays(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {**t, "c": jnp.zeros(2)}, "lacks c"),
        (lambda t: {"a": t["a"], "key": t["key"]}, "unexpected b"),
        (lambda t: {**t, "a": jnp.zeros(3)}, r"a is float32 \[2\], where float32 \[3\]"),
        (lambda t: {**t, "a": jnp.zeros(2, int)}, r"a is float32 \[2\], where int32 \[2\]"),
        (lambda t: {**t, "key": jax.random.key(0, impl="rbg")}, "key is uint32"),
        (lambda t: {**t, "key": jax.random.key_data(t["key"])}, "key is a PRNG key of threefry"),
        (lambda t: {**t, "b": jax.random.key(0)}, "b is"),
    ],
)
def test_another_tree_is_refused_by_name(path: Path, change, message: str):
    write_tree(path, tiny(), {})
    with pytest.raises(CheckpointMismatch, match=message) as caught:
        read_tree(path, change(tiny()))
    assert str(path) in str(caught.value)


def test_words_are_not_taken_for_a_key(path: Path):
    write_tree(path, {"k": jnp.zeros(2, jnp.uint32)}, {})
    with pytest.raises(CheckpointMismatch, match="k is a PRNG key of None"):
        read_tree(path, {"k": jax.random.key(0)})


def test_trees_that_cannot_be_stored_are_refused(path: Path):
    for tree, message in [
        ({"a/b": jnp.zeros(1), "a": {"b": jnp.ones(1)}}, "'a/b'"),
        ({"__metadata__": jnp.zeros(1)}, "__metadata__"),
        ({"c": jnp.zeros(1, complex)}, "c has dtype complex64"),
        ({"o": np.asarray([object()])}, "o has dtype object"),
        ({"e": np.zeros(2, ">f4")}, "e has dtype >f4"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            write_tree(path, tree, {})
    with pytest.raises(TypeError):
        write_tree(path, tiny(), {"set": {1}})
    assert not list(path.parent.iterdir())


class Killed(BaseException):
    """Stands for a kill: nothing in the program handles it."""


def test_a_kill_before_the_rename_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch):
    def kill(*_: object) -> None:
        raise Killed

    write_tree(path, tiny(), {"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(Killed):
            write_tree(path, jax.tree.map(jnp.copy, tiny()), {"step": 2})
    assert read_tree(path, tiny())[1] == {"step": 1}
    assert len(list(path.parent.iterdir())) == 2  # what the killed one left
    write_tree(path, tiny(), {"step": 3})
    assert read_tree(path, tiny())[1] == {"step": 3}
    assert list(path.parent.iterdir()) == [path]


def test_the_name_is_taken_after_the_bytes_and_before_the_directory_are_synced(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    events = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        events.append(("fsync", Path(target).name, os.fstat(descriptor).st_size))
        fsync(descriptor)

    def note_replace(old: Path, new: Path) -> None:
        events.append(("replace", Path(new).name))
        read_arrays(Path(old))  # complete already
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_tree(path, tiny(), {})
    size = path.stat().st_size
    assert events[:2] == [("fsync", "state.safetensors.tmp", size), ("replace", path.name)]
    assert [e[:2] for e in events[2:]] == [("fsync", path.parent.name)]


def test_a_disk_that_changes_bytes_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch):
    write_tree(path, tiny(), {"step": 1})
    verify = checkpoint._verify

    def damage_then_verify(where, file):
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
        verify(where, file)

    monkeypatch.setattr(checkpoint, "_verify", damage_then_verify)
    with pytest.raises(CheckpointError, match="key reads back changed"):
        write_tree(path, tiny(), {"step": 2})
    assert read_tree(path, tiny())[1] == {"step": 1}
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_one_sentence(path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=f"^cannot write {path}: No space left on device$"):
        write_tree(path, tiny(), {})
    assert not list(path.parent.iterdir())


def test_no_file_is_one_sentence(path: Path):
    with pytest.raises(CheckpointError, match=r"cannot read .*No such file"):
        read_tree(path, tiny())
    with pytest.raises(CheckpointError, match="Is a directory"):
        read_arrays(path.parent)


def tree_of(step: int):
    return {"a": jnp.full(3, step, jnp.float32)}


def steps_on_disk(run_dir: Path) -> list[int]:
    return sorted(int(p.name) for p in (run_dir / "checkpoints").iterdir())


def test_save_keeps_two_and_latest_is_the_newest(tmp_path: Path):
    for step in (5, 10, 100, 20):
        save(tmp_path, step, tree_of(step), {"step": step})
    # 100 is not older than 20, so it is not the business of saving 20.
    assert steps_on_disk(tmp_path) == [10, 20, 100]
    restored = latest(tmp_path, tree_of(0))
    assert (restored.step, restored.meta) == (100, {"step": 100})
    assert_same(restored.tree, tree_of(100))
    save(tmp_path, 200, tree_of(200), {}, keep=3)
    assert steps_on_disk(tmp_path) == [20, 100, 200]
    with pytest.raises(UsageError, match="at least 2"):
        save(tmp_path, 300, tree_of(300), {}, keep=1)


def test_old_checkpoints_go_only_after_the_new_one_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def kill(*_: object) -> None:
        raise Killed

    for step in (1, 2):
        save(tmp_path, step, tree_of(step), {})
    for target in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, target, kill)
            with pytest.raises(Killed):
                save(tmp_path, 3, tree_of(3), {})
        assert latest(tmp_path, tree_of(0), warn=pytest.fail).step == 2
        assert {1, 2} <= set(steps_on_disk(tmp_path))
    save(tmp_path, 4, tree_of(4), {})
    assert steps_on_disk(tmp_path) == [2, 3, 4]
    save(tmp_path, 5, tree_of(5), {})
    assert steps_on_disk(tmp_path) == [4, 5]


def state(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / str(step) / "state.safetensors"


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_a_damaged_newest_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for step in (1, 2):
        save(tmp_path, step, tree_of(step), {})
    damage(state(tmp_path, 2))
    warnings: list[str] = []
    restored = latest(tmp_path, tree_of(0), warn=warnings.append)
    assert restored.step == 1
    assert_same(restored.tree, tree_of(1))
    assert len(warnings) == 1
    assert str(state(tmp_path, 2)) in warnings[0]
    assert " a " in warnings[0]
    with caplog.at_level(logging.WARNING):
        latest(tmp_path, tree_of(0))
    assert str(state(tmp_path, 2)) in caplog.text


def test_a_truncated_checkpoint_does_not_count_among_the_kept(tmp_path: Path):
    for step in (1, 2):
        save(tmp_path, step, tree_of(step), {})
    os.truncate(state(tmp_path, 2), 40)
    save(tmp_path, 3, tree_of(3), {})
    assert steps_on_disk(tmp_path) == [1, 2, 3]
    os.truncate(state(tmp_path, 3), 40)
    assert latest(tmp_path, tree_of(0), warn=lambda _: None).step == 1


def test_all_bad_and_none_are_errors(tmp_path: Path):
    with pytest.raises(CheckpointError, match="there is no checkpoint in"):
        latest(tmp_path, tree_of(0))
    for step in (1, 2):
        save(tmp_path, step, tree_of(step), {})
        damage(state(tmp_path, step))
    with pytest.raises(CheckpointError, match=r"is good: .*2/state.*1/state"):
        latest(tmp_path, tree_of(0), warn=lambda _: None)


def test_another_tree_does_not_fall_back_to_an_older_checkpoint(tmp_path: Path):
    save(tmp_path, 1, {"a": jnp.zeros(4)}, {})
    save(tmp_path, 2, {"a": jnp.zeros(3)}, {})
    with pytest.raises(CheckpointMismatch, match="2/state"):
        latest(tmp_path, {"a": jnp.zeros(4)}, warn=pytest.fail)


def test_other_names_among_the_checkpoints_are_ignored(tmp_path: Path):
    save(tmp_path, 1, tree_of(1), {})
    for name in ("notes", "02", "٢", "-3", "²"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert latest(tmp_path, tree_of(0)).step == 1
    save(tmp_path, 2, tree_of(2), {})
    assert state(tmp_path, 1).exists()  # "02" is not a second step 2


@pytest.mark.parametrize("size", [2**18, 2**18 + 3, 5])
def test_zeros_take_no_room_and_are_read_back(path: Path, size: int):
    """Pieces of a megabyte: nothing but zeros, something at their very end, less than one."""
    tree = {
        "zeros": jnp.zeros(3 * size),
        "last": jnp.zeros(2 * size).at[-1].set(1.0),
        "first": jnp.zeros(2 * size).at[0].set(-0.0),
        "trailing": np.zeros(3 * size, np.uint8),
    }
    write_tree(path, tree, {})
    assert_same(read_tree(path, tree)[0], tree)
    with open(path, "rb") as file:
        assert file.seek(0, os.SEEK_END) == path.stat().st_size
    if size >= 2**18:
        assert path.stat().st_blocks * 512 < path.stat().st_size / 2

"""Loads hostile and mutated files while an audit hook watches; prints what happened.

``python hostile_worker.py FOLDER``.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import pickle
import random
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory import forget_peak, megabytes

import coterie
from coterie.errors import UsageError
from coterie.runs.api import open_run, resume
from coterie.runs.environments import sizes
from coterie.runs.policy_files import describe, load_policy, save_policies
from coterie.storage.checkpoint import latest, save
from coterie.storage.config_file import identity
from coterie.storage.files import read_sealed, seal
from coterie.storage.run_directory import RunDirectory
from coterie.storage.tree_files import CheckpointError, CheckpointMismatch, read_arrays
from coterie.views.game import Game

FORBIDDEN = ("exec", "compile", "import", "pickle.find_class", "marshal.loads", "subprocess.Popen",
             "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.__new__",
             "socket.connect", "ctypes.dlopen", "shutil.rmtree", "os.symlink")  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
REFUSED = (UsageError, CheckpointError)
PLACE = Path(sys.argv[1]).resolve()
RAN = PLACE / "ran"


class Caught(BaseException):
    """Something happened that no file may bring about."""


class Watch:
    """Raises ``Caught`` while it is on, at what is forbidden and at writes outside of PLACE."""

    on = False

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, int):  # seen when it was opened by its name
                return
            writes = bool((flags or 0) & WRITES) or (
                isinstance(mode, str) and set(mode) & set("wax+")
            )
            inside = isinstance(path, str | Path) and Path(path).resolve().is_relative_to(PLACE)
            if writes and not inside:
                raise Caught(event)
        elif event in FORBIDDEN:
            raise Caught(event)

    def __enter__(self) -> None:
        self.on = True

    def __exit__(self, *_: Any) -> None:
        self.on = False


watch = Watch()
sys.addaudithook(watch)


def hook_catches() -> list[str]:
    """What the hook is seen to stop."""
    stop: dict[str, Callable[[], Any]] = {
        "exec": lambda: exec("1"),
        "import": lambda: __import__("this"),
        "open": lambda: Path("/tmp/coterie-outside").write_text(""),
        "pickle.find_class": lambda: pickle.loads(pickle.dumps(Path)),
        "subprocess.Popen": lambda: subprocess.run(["true"], check=True),
        "socket.__new__": socket.socket,
    }
    caught = []
    for name, work in stop.items():
        try:
            with watch:
                work()
        except Caught:
            caught.append(name)
    return sorted(caught)


# A good run, made by hand: nothing is compiled ---------------------------------------------------


def config() -> dict[str, Any]:
    algorithm = coterie.VDN(hidden=(8,), environments=4, buffer_size=64, batch_size=8,
                            learning_starts=16, update_ratio=1 / 4).resolve(1000)  # fmt: skip
    env = coterie.make("matrix/climbing")
    return {
        "format": 2, "coterie": "0.1.0", "command": None,
        "algorithm": "vdn", "settings": algorithm.settings(),
        "environment": "matrix/climbing", "environment_options": {}, "reward": "sum",
        "central": "none", "steps": 1000, "seeds": 1, "seed": 0, "evaluations": 2,
        "final_episodes": 0, "sizes": sizes(env.spec()), "lanes": 1, "versions": {},
    }  # fmt: skip


def make_run(run: Path) -> None:
    directory = RunDirectory.create(run)
    settings = config()
    directory.write_config(settings)
    directory.log([{"seed": 0, "env_steps": 0}])
    algorithm = coterie.VDN(**settings["settings"])
    game = Game(coterie.make("matrix/climbing"), "none", "sum")
    policy = algorithm.policy(algorithm.init(jax.random.key(0), game))
    name = identity(settings)
    about = describe(policy, game, algorithm) | {"run": name}
    directory.write_json("policy/policy.json", seal(about))
    stacked = jax.tree.map(lambda x: np.asarray(x)[None], policy)
    for which in ("best", "last"):
        save_policies(run, which, stacked, name, [20])
    size, digest = directory.sync_log()
    meta = {"run": name, "iteration": 5, "env_steps": 20, "seconds": 1.0, "log_bytes": size,
            "log_digest": digest, "log_lines": 1, "evaluations": {}}  # fmt: skip
    save(run, 20, {"a": jnp.arange(64.0), "key": jax.random.key(1)}, meta)


LIKE = {"a": jnp.arange(64.0), "key": jax.random.key(1)}


def load_everything(run: Path) -> None:
    """All that reads a run directory, up to where training would begin."""
    open_run(run)
    resume(run)


# Hostile files -----------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return os.system, (f"touch {RAN}",)


def pickled() -> bytes:
    return pickle.dumps(Bomb())


def forged(header: dict[str, Any], data: bytes = b"") -> bytes:
    """A safetensors file whose header's digest is right."""
    metadata = {
        "digest": "0" * 64,
        "format": "coterie 1",
        "digests": "{}",
        "keys": "{}",
        "meta": "{}",
    }
    text = json.dumps({"__metadata__": metadata | header.pop("__metadata__", {}), **header},
                      separators=(",", ":")).encode()  # fmt: skip
    digest = hashlib.sha256(text).hexdigest().encode()
    text = text.replace(b"0" * 64, digest, 1)
    return len(text).to_bytes(8, "little") + text + data


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", pickled())
    return file.getvalue()


def tensor(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes}


CHECKPOINTS: dict[str, Callable[[], bytes]] = {
    "a pickle": pickled,
    "an archive of a pickle": zipped,
    "nothing": lambda: b"",
    "text": lambda: b"import os; os.system('true')",
    "an endless header": lambda: (2**63).to_bytes(8, "little") + b"{}",
    "a deep header": lambda: forged({"a": json.loads("[" * 500 + "]" * 500)}),
    "no tensor": lambda: forged({}),
    "a huge tensor": lambda: forged(tensor(shape=[10**12], data_offsets=[0, 4 * 10**12])),
    "a tensor of many axes": lambda: forged(tensor(shape=[1] * 10_000)),
    "a negative shape": lambda: forged(tensor(shape=[-1], data_offsets=[0, -4])),
    "another dtype": lambda: forged(tensor(dtype="OBJECT")),
    "overlapping tensors": lambda: forged(tensor() | {"b": tensor()["a"]}, b"1234"),
    "a key of no kind": lambda: forged(
        tensor() | {"__metadata__": {"keys": '{"a": "os.system"}', "digests": '{"a": "0"}'}},
        b"1234",
    ),
    "words of another format": lambda: forged({"__metadata__": {"format": "pickle"}}),
    "a meta that is a list": lambda: forged({"__metadata__": {"meta": "[1]"}}),
}

CONFIGS: dict[str, dict[str, Any]] = {
    "an environment that names code": {"environment": "os:system"},
    "one with a path": {"environment": "../../evil:make"},
    "a Python environment": {"environment": "gymnasium:evil/Env-v0"},
    "a module of PettingZoo": {"environment": "pettingzoo:evil"},
    "a file": {"environment": f"matrix/{PLACE}/payoffs.npy"},
    "an algorithm that is a module": {"algorithm": "__init__"},
    "one elsewhere": {"algorithm": "../evil"},
    "one with a dot": {"algorithm": "vdn.os"},
    "a word for a class": {"settings": {"__class__": "os.system"}},
    "a huge layer": {"settings": {"hidden": [10**9, 10**9]}},
    "a layer beyond all": {"settings": {"hidden": [10**30]}},
    "a million layers": {"settings": {"hidden": [8] * 10**5}},
    "a billion seeds": {"seeds": 10**9, "lanes": 10**9},
    "a billion seeds together": {"seeds": 10**9, "lanes": 1},
    "a huge replay": {"settings": {"buffer_size": 10**12}},
    "as many environments": {"settings": {"environments": 10**9, "buffer_size": 10**10}},
    "an endless game": {
        "environment": "matrix/climbing",
        "environment_options": {"rounds": 10**40},
    },
    "a rate that is a list": {"settings": {"lr": [1]}},
    "a rate that is a bool": {"settings": {"lr": True}},
    "a reward that is code": {"reward": "__import__('os')"},
    "a list of settings": {"settings": []},
    "processes for a compiled game": {"hosting": {"workers": 10**6}},
    "a list of processes": {"hosting": [1]},
    "other words for processes": {"hosting": {"make": "os.system"}},
}


def hostile_runs() -> Iterator[tuple[str, Callable[[Path], None]]]:
    """What is done to a good run."""
    for name, content in CHECKPOINTS.items():
        yield (
            name,
            lambda run, c=content: (run / "checkpoints/20/state.safetensors").write_bytes(c()),
        )
        yield (
            f"{name} as policy",
            lambda run, c=content: (run / "policy/seed-0/best.safetensors").write_bytes(c()),
        )
    for name, change in CONFIGS.items():

        def reseal(run: Path, change: dict = change) -> None:
            good = config()
            if isinstance(change.get("settings"), dict):
                change = change | {"settings": good["settings"] | change["settings"]}
            (run / "config.json").write_text(json.dumps(seal(good | change)))

        yield name, reseal
    yield "a link for a log", lambda run: replaced_by_link(run / "metrics.jsonl")
    yield "a link for checkpoints", lambda run: replaced_by_link(run / "checkpoints")


def replaced_by_link(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to("/etc/passwd")


def hostile(good: Path) -> tuple[int, list[str]]:
    """How many were tried, and those that were taken."""
    (PLACE / "payoffs.npy").write_bytes(pickled())
    accepted, count = [], 0
    for name, change in hostile_runs():
        run = PLACE / "hostile"
        shutil.copytree(good, run)
        change(run)
        count += 1
        try:
            with watch:
                load_everything(run)
            accepted.append(name)
        except REFUSED:
            pass
        assert not RAN.exists(), name
        shutil.rmtree(run)
    return count, accepted


# Mutated files -----------------------------------------------------------------------------------


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, pieces cut, doubled, moved or overwritten, numbers made large."""
    data = bytearray(content)
    kind = chance.randrange(6)
    at, width = chance.randrange(len(data)), chance.randrange(1, 64)
    if kind == 0:
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        del data[at : at + width]
    elif kind == 3:
        data[at:at] = data[at : at + width]
    elif kind == 4:
        data[at : at + width] = chance.randbytes(width)
    else:
        data[at:at] = b"9" * width
    return bytes(data)


def meaning(name: str, path: Path) -> Any:
    """What a reader takes from a file."""
    if name in ("config", "policy"):
        return read_sealed(path)
    arrays, meta = read_arrays(path)
    return {k: v.tobytes() for k, v in arrays.items()}, meta


def mutate(good: Path) -> tuple[dict[str, int], list[Any]]:
    files = {
        "checkpoint": ("checkpoints/20/state.safetensors", 4000),
        "config": ("config.json", 3000),
        "policy": ("policy/policy.json", 1500),
        "network": ("policy/seed-0/best.safetensors", 1500),
    }
    chance, silent = random.Random(0), []
    for name, (where, count) in files.items():
        content, right = (good / where).read_bytes(), meaning(name, good / where)
        path = PLACE / f"mutated-{name}"
        for k in range(count):
            path.write_bytes(changed := mutated(content, chance))
            try:
                with watch:
                    found = meaning(name, path)
                # White space and the like: nothing that is read has changed.
                if found != right and changed != content:
                    silent.append([name, k])
            except REFUSED:
                pass
    return {name: count for name, (_, count) in files.items()}, silent


def main() -> None:
    good = PLACE / "good"
    make_run(good)
    # What is imported and compiled on first use is not a file's doing.
    load_policy(good, 0, "best")
    open_run(good)
    latest(good, LIKE)
    for change in itertools.islice(hostile_runs(), 0, None, 9):
        run = PLACE / "warm"
        shutil.copytree(good, run)
        change[1](run)
        with contextlib.suppress(REFUSED):
            load_everything(run)
        shutil.rmtree(run)
    with watch:  # the good run itself is read, and only its state is not what VDN wants
        open_run(good)
        with pytest.raises(CheckpointMismatch, match="lacks"):
            resume(good)
    caught = hook_catches()
    forget_peak()
    before = megabytes()
    count, accepted = hostile(good)
    mutations, silent = mutate(good)
    more = megabytes() - before
    print(json.dumps({
        "hook": caught, "hostile": count, "accepted": accepted, "mutated": mutations,
        "silent": silent, "megabytes": more,
    }))  # fmt: skip


if __name__ == "__main__":
    main()

"""What works in this installation and on this machine, for a bug report. Imports no JAX itself."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import coterie
from coterie.errors import UsageError
from coterie.extras import how_to_install, origin
from coterie.machine import available_memory, total_memory, usable_cores
from coterie.runs.jax_probe import IMPORTED
from coterie.storage.files import only_writer, replacing

State = Literal["ok", "missing", "warning", "broken"]
PATIENCE = 120.0
"""Seconds in which JAX must find its devices and multiply two matrices on each."""
LITTLE_DISK = 1_000_000_000
LITTLE_MEMORY = 2_000_000_000
_FOR_DEVELOPERS = ("test", "bench", "hosted")
"""Extras that are not listed: for work on Coterie, and a former name."""
_TELLING = ("JAX_", "XLA_", "COTERIE_", "CUDA_", "NVIDIA_", "PJRT_", "TF_GPU_", "OMP_NUM_THREADS",
            "PYTHONPATH", "LD_LIBRARY_PATH")  # fmt: skip
"""Beginnings of names of environment variables that change how JAX or Coterie works."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: ``software``, ``extras``, ``machine`` or ``files``.
        name: what it is.
        value: what was found; the user's home directory is written ``~``.
        state: ``broken`` if nothing can be trained or kept, ``warning`` if something works badly,
            ``missing`` for an extra that is not installed, which is no fault.
        advice: one sentence or command that helps; empty where nothing is to be done.
    """

    group: str
    name: str
    value: str
    state: State = "ok"
    advice: str = ""


def examine(folder: Path = Path()) -> list[Check]:
    """Looks at everything, in a few seconds; what is wrong is found and not raised.

    Args:
        folder: where runs would be written; files in it, or in the nearest folder above it that
            exists, are written and removed again.
    """
    return [
        Check(each.group, each.name, _anonymous(each.value), each.state, _anonymous(each.advice))
        for part in (_software, _extras, _machine, _jax, partial(_files, folder))
        for each in part()
    ]


def works(checks: list[Check]) -> bool:
    """Whether nothing is broken."""
    return all(each.state != "broken" for each in checks)


def to_dict(checks: list[Check]) -> dict[str, Any]:
    """As JSON."""
    listed = [asdict(each) for each in checks]
    return {"coterie": coterie.__version__, "ok": works(checks), "checks": listed}


def _anonymous(text: str) -> str:
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text


# Packages ----------------------------------------------------------------------------------------


def _software() -> Iterator[Check]:
    check = partial(Check, "software")
    yield check("coterie", f"{coterie.__version__}, from {origin()}", *_own_metadata())
    yield check("python", f"{platform.python_version()} ({sys.executable})")
    yield check("system", platform.platform())
    fine = []
    for requirement in _requirements():
        found = _installed(requirement)
        wanted = f"needs {requirement.name}{requirement.specifier}"
        if found is None:
            yield check(requirement.name, "not installed", "broken", f"{wanted}: {_reinstall()}")
        elif not _fits(requirement, found):
            yield check(requirement.name, found, "broken", f"{wanted}: {_reinstall()}")
        elif requirement.name == "jax":
            yield check("jax", f"{found}, jaxlib {_version('jaxlib') or 'not installed'}")
        else:
            fine.append(f"{requirement.name} {found}")
    yield check("packages", ", ".join(fine))
    if told := [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(_TELLING)]:
        yield check("variables", " ".join(told))


def _own_metadata() -> tuple[State, str]:
    """Whether what is installed under our name is what runs."""
    installed = _version("coterie")
    if installed is None:
        return "warning", f"it is not installed, so what it needs is not known: {_reinstall()}"
    if installed != coterie.__version__:
        return "warning", f"version {installed} is installed, another one runs: {_reinstall()}"
    return "ok", ""


def _reinstall() -> str:
    return how_to_install("")


def _extras() -> Iterator[Check]:
    for extra in _names_of_extras():
        own = _requirements(extra)
        found = {r.name: _installed(r) for r in own}
        wrong = [r for r in own if (v := found[r.name]) and not _fits(r, v)]
        lacking = [name for name, version in found.items() if version is None]
        value = ", ".join(f"{name} {version}" for name, version in found.items() if version)
        check = partial(Check, "extras", extra)
        if wrong:
            wanted = ", ".join(f"{r.name}{r.specifier}" for r in wrong)
            yield check(value, "warning", f"needs {wanted}: {how_to_install(extra)}")
        elif lacking:
            yield check("not installed", "missing", how_to_install(extra))
        else:
            yield check(value)


def _names_of_extras() -> list[str]:
    try:
        named = metadata.metadata("coterie").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return []
    return [name for name in named if name not in _FOR_DEVELOPERS]


def _requirements(extra: str = "", package: str = "coterie") -> list[Any]:
    """What a package needs, or what an extra of it adds, on this system; not what that needs."""
    from packaging.requirements import Requirement

    try:
        every = [Requirement(text) for text in metadata.requires(package) or []]
    except metadata.PackageNotFoundError:
        return []
    found = []
    for each in every:
        always = each.marker is None or each.marker.evaluate({"extra": ""})
        now = each.marker is None or each.marker.evaluate({"extra": extra})
        if not now or (extra and always):
            continue
        found += [each] if each.name != "coterie" else []
        found += [r for other in sorted(each.extras) for r in _requirements(other, each.name)]
    return found


def _installed(requirement: Any) -> str | None:
    return _version(requirement.name)


def _fits(requirement: Any, version: str) -> bool:
    """Whether a version is one of those needed; what is no version, as a branch, may be."""
    from packaging.version import InvalidVersion, Version

    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


# The machine -------------------------------------------------------------------------------------


def _machine() -> Iterator[Check]:
    check = partial(Check, "machine")
    cores, usable = os.cpu_count() or 1, usable_cores()
    few = usable < cores
    yield check("cores", f"{cores}, of which this process may use {usable}" if few else f"{cores}")
    total, free = total_memory(), available_memory()
    if total is None or free is None:
        yield check("memory", "unknown")
        return
    words = f"{total / 1e9:.1f} GB, of which {free / 1e9:.1f} GB are free"
    if free < LITTLE_MEMORY:
        yield check("memory", words, "warning", "close other programs: large runs may not fit")
    else:
        yield check("memory", words)


def _jax() -> Iterator[Check]:
    answer, problem = _probed()
    if answer is None:
        yield Check("machine", "devices", "JAX does not work", "broken", problem)
        return
    devices = answer["devices"]
    for index, device in enumerate(devices):
        memory = f", {device['memory'] / 1e9:.1f} GB" if device["memory"] else ""
        name = "devices" if len(devices) == 1 else f"device {index}"
        value = f"{device['platform']}: {device['kind']}{memory}"
        if device["correct"]:
            yield Check("machine", name, value)
        else:
            wrong = "it multiplies matrices wrongly: update its driver, or set JAX_PLATFORMS=cpu"
            yield Check("machine", name, value, "broken", wrong)
    if _has_nvidia() and all(device["platform"] == "cpu" for device in devices):
        yield _unused_gpu()
    yield _cache(answer["cache"])


def _unused_gpu() -> Check:
    """Why JAX does not use the GPU whose driver is there: the user's wish, or a package lacks."""
    there, off = "an NVIDIA driver is there", _hidden_by()
    if off:
        return Check("machine", "GPU", f"{there}, and {off} hides it: unset that to use it")
    advice = f"JAX does not use it: {how_to_install('cuda')}"
    return Check("machine", "GPU", there, "warning", advice)


def _hidden_by() -> str:
    """The environment variable that keeps JAX from NVIDIA's GPUs, as ``NAME=value``; or nothing."""
    for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
        if (asked := os.environ.get(name)) and not {"cuda", "gpu"} & {*asked.lower().split(",")}:
            return f"{name}={asked}"
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if seen is not None and (not seen.strip() or seen.strip().startswith("-1")):
        return f"CUDA_VISIBLE_DEVICES={seen}"
    return ""


def _has_nvidia() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _cache(found: dict[str, Any]) -> Check:
    name = "compiled programs"
    if found["problem"]:
        return Check("files", name, "not kept", "warning", found["problem"])
    taken = found["bytes"]
    return Check("files", name, found["where"] + (f", {taken / 1e6:.0f} MB" if taken else ""))


def _probed() -> tuple[dict[str, Any] | None, str]:
    """What ``jax_probe`` answers, or what is wrong with JAX and what would help."""
    source = str(Path(coterie.__file__).parents[1])
    paths = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    # -P: no file of the current directory may take the place of a package.
    command = [sys.executable, "-P", "-m", "coterie.runs.jax_probe"]
    try:
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": paths}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        late = f"it did not answer within {PATIENCE:g} seconds"
        return None, f"{late}; try JAX_PLATFORMS=cpu, which leaves accelerators alone"
    except OSError as error:
        return None, f"{sys.executable} cannot be started: {error.strerror}"
    try:
        return json.loads(done.stdout.splitlines()[-1]), ""
    except (ValueError, IndexError):
        said = [line for line in done.stderr.splitlines() if line.strip()]
        reason = said[-1].strip() if said else f"its process ended with status {done.returncode}"
        asked = os.environ.get("JAX_PLATFORMS")
        helps = f"install jax and jaxlib anew: {_reinstall()}"
        if asked not in (None, "", "cpu") and IMPORTED in done.stdout.splitlines():
            helps = f"JAX_PLATFORMS={asked} asks for what is not there: unset it"
        return None, f"{reason[:300]}; {helps}"


# Files -------------------------------------------------------------------------------------------


def _files(folder: Path) -> Iterator[Check]:
    check = partial(Check, "files")
    elsewhere = "choose another folder for runs (--out)"
    try:
        folder = folder.absolute()
    except OSError:
        yield check("writing", str(folder), "broken", f"the current directory is gone: {elsewhere}")
        return
    wanted = folder
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent  # a run makes what is missing
    place = str(folder) if folder == wanted else f"{wanted}, which a run would make in {folder}"
    try:
        free = shutil.disk_usage(folder).free
        with tempfile.TemporaryDirectory(dir=folder, prefix=".coterie-doctor-") as scratch:
            _write_and_read(Path(scratch))
            locks = _locks(Path(scratch))
    except (OSError, UsageError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        yield check("writing", place, "broken", f"{said}: {elsewhere}")
        return
    space = f"{place}, {free / 1e9:.1f} GB free"
    if free < LITTLE_DISK:
        yield check("writing", space, "warning", f"the disk is nearly full: {elsewhere}")
    else:
        yield check("writing", space)
    if locks:
        yield check("locks", "a second writer is kept out")
    else:
        alone = "this file system has no locks: never let two processes write to one run"
        yield check("locks", "a second writer is not kept out", "warning", alone)


def _write_and_read(folder: Path) -> None:
    """OSError unless a file comes back as it was written."""
    path, content = folder / "file", os.urandom(100_000)
    with replacing(path) as file:
        file.write(content)
    if path.read_bytes() != content:
        raise OSError(5, "what is written is not what is read")


def _locks(folder: Path) -> bool:
    """Whether a second writer is refused, which needs locks of the file system."""
    with only_writer(folder):
        try:
            with only_writer(folder):
                return False
        except UsageError:
            return True

"""``coterie doctor`` and the advice that installs what is missing."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import coterie
from coterie import extras
from coterie.cli.entry import main
from coterie.extras import how_to_install
from coterie.runs import doctor
from coterie.runs.doctor import Check, examine, works

SOURCE = str(Path(coterie.__file__).parents[1])


def asked(*arguments, cwd, **env):
    """``coterie doctor --json`` in a process of its own."""
    command = [sys.executable, "-m", "coterie", "doctor", *map(str, arguments), "--json"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": SOURCE, **env}, cwd=cwd, capture_output=True,
        text=True, timeout=100,
    )  # fmt: skip
    return done.returncode, {each["name"]: each for each in json.loads(done.stdout)["checks"]}


def test_what_works_is_said_and_nothing_is_left_behind(tmp_path):
    cache = tmp_path / "cache"
    (tmp_path / "jax.py").write_text("raise SystemExit('taken for JAX')")
    status, found = asked(
        tmp_path / "not" / "yet", cwd=tmp_path, COTERIE_COMPILATION_CACHE=str(cache)
    )
    assert status == 0
    assert {each["state"] for each in found.values()} <= {"ok", "missing", "warning"}
    assert found["coterie"]["value"].startswith(f"{coterie.__version__}, from the clone ")
    assert found["jax"]["value"].startswith(metadata.version("jax"))
    assert found["devices"]["value"].startswith("cpu: ")
    place = f"{tmp_path}/not/yet, which a run would make in {tmp_path}, "
    assert found["writing"]["value"].startswith(place)
    assert found["locks"]["value"] == "a second writer is kept out"
    assert found["compiled programs"]["value"].startswith(str(cache))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "jax.py"]


def test_a_jax_that_does_not_start_is_found(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise ImportError('no jaxlib for this system')")
    found = json.loads(
        subprocess.run(
            [sys.executable, "-c", JAX_IS_BROKEN, SOURCE, str(tmp_path)],
            capture_output=True, text=True, timeout=100, check=True,
        ).stdout
    )  # fmt: skip
    assert not found["ok"]
    assert [c["name"] for c in found["checks"] if c["state"] == "broken"] == ["devices"]
    advice = next(c["advice"] for c in found["checks"] if c["name"] == "devices")
    assert advice.startswith("ImportError: no jaxlib for this system; install jax and jaxlib anew")


JAX_IS_BROKEN = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import coterie.runs.doctor as doctor
assert "jax" not in sys.modules
os.environ["PYTHONPATH"] = sys.argv[2]
print(json.dumps(doctor.to_dict(doctor.examine())))
"""


def probing(monkeypatch, tmp_path, **variables) -> dict[str, Check]:
    """What is said of the machine, beside a command nvidia-smi."""
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return {each.name: each for each in doctor._jax()}


def test_a_jax_that_is_broken_is_not_blamed_on_the_platform(monkeypatch, tmp_path):
    (tmp_path / "jax.py").write_text("raise ImportError('libfoo is not there')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(coterie, "__file__", str(tmp_path / "a" / "b.py"))
    (tmp_path / "coterie").symlink_to(Path(SOURCE) / "coterie")
    found = probing(monkeypatch, tmp_path, JAX_PLATFORMS="cuda")["devices"]
    assert found.advice.startswith("ImportError: libfoo is not there; install jax and jaxlib anew")


def test_a_platform_that_is_not_there_is_named(monkeypatch, tmp_path):
    found = probing(monkeypatch, tmp_path, JAX_PLATFORMS="nosuch")["devices"]
    assert found.advice.endswith("; JAX_PLATFORMS=nosuch asks for what is not there: unset it")


FOUND = {"devices": [], "cache": {"problem": "", "where": "x", "bytes": 0}}


@pytest.mark.parametrize("variable", [("JAX_PLATFORMS", "cpu"), ("CUDA_VISIBLE_DEVICES", "")])
def test_a_gpu_that_the_user_hides_is_not_missing(monkeypatch, tmp_path, variable):
    name, value = variable
    monkeypatch.setattr(doctor, "_probed", lambda: (FOUND, ""))
    said = f"an NVIDIA driver is there, and {name}={value} hides it: unset that to use it"
    found = probing(monkeypatch, tmp_path, **{name: value})["GPU"]
    assert (found.state, found.value) == ("ok", said)


def test_a_gpu_that_jax_does_not_use_needs_the_extra(monkeypatch, tmp_path):
    for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "_probed", lambda: (FOUND, ""))
    found = probing(monkeypatch, tmp_path)["GPU"]
    assert (found.state, found.advice) == (
        "warning", f"JAX does not use it: {how_to_install('cuda')}"
    )  # fmt: skip


@pytest.fixture
def without_jax(monkeypatch):
    """The process that asks JAX takes two seconds."""
    monkeypatch.setattr(doctor, "_jax", lambda: iter(()))


def states(folder: Path) -> dict[str, tuple[str, str]]:
    return {each.name: (each.state, each.advice) for each in examine(folder)}


def test_a_place_that_cannot_be_written_is_broken(without_jax, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["doctor", str(tmp_path / "file")]) == 1
    out = capsys.readouterr().out
    assert re.search(rf"^✗ writing +{re.escape(str(tmp_path))}/file$", out, re.M)
    assert "Not a directory: choose another folder for runs (--out)" in out
    assert out.splitlines()[-1] == "broken: writing; the table says what helps"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_that_is_gone_is_broken(without_jax, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert states(Path())["writing"][1].startswith("the current directory is gone: ")


def test_a_file_system_without_locks_is_a_warning(without_jax, tmp_path, monkeypatch):
    monkeypatch.setattr("coterie.storage.files._lock", lambda descriptor: True)
    assert states(tmp_path)["locks"][0] == "warning"


def test_packages_that_do_not_fit_are_named(without_jax, tmp_path, monkeypatch):
    real, given = metadata.version, {"optax": "0.1.0", "nashpy": "0.0.1"}
    wanted = ["optax<0.3,>=0.2.8", "absent>=1", "nashpy>=0.0.43; extra == 'analysis'",
              "nothing; extra == 'video'", "coterie[analysis]; extra == 'both'"]  # fmt: skip
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(metadata, "version", lambda name: given.get(name) or real(name))
    found = states(tmp_path)
    assert found["optax"][0] == "broken"
    assert found["optax"][1].startswith("needs optax<0.3,>=0.2.8: pip install -e '")
    assert found["absent"] == ("broken", f"needs absent>=1: {how_to_install('')}")
    assert found["analysis"] == ("warning", f"needs nashpy>=0.0.43: {how_to_install('analysis')}")
    assert found["video"] == ("missing", how_to_install("video"))
    assert not works(examine(tmp_path))


def test_what_is_no_version_is_not_judged(without_jax, tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ["optax>=1", "x>=1; extra == 'video'"])
    monkeypatch.setattr(metadata, "version", lambda name: "main-branch")
    assert {states(tmp_path)[name][0] for name in ("packages", "video")} == {"ok"}


def test_the_home_directory_is_not_told(without_jax, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = {each.name: each for each in examine(tmp_path)}
    assert found["writing"].value.startswith("~, ")
    assert str(tmp_path) not in " ".join(each.value + each.advice for each in found.values())


def test_only_what_is_broken_fails():
    fine = [Check("software", "a", "1"), Check("extras", "b", "none", "missing")]
    assert works([*fine, Check("files", "c", "slow", "warning", "hurry")])
    assert not works([*fine, Check("files", "c", "gone", "broken", "look")])


# Advice ------------------------------------------------------------------------------------------


def installed_from(monkeypatch, tmp_path, address: str | None) -> None:
    """As if this package lay in ``site-packages``, installed from an address or an index."""

    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return address

    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site-packages" / "coterie" / "x.py"))
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())


def test_in_a_clone_extras_come_from_the_clone(monkeypatch):
    root = Path(SOURCE).parent
    monkeypatch.chdir(root)
    assert how_to_install("video") == "pip install -e '.[video]'"
    monkeypatch.chdir(root / "docs")
    assert how_to_install("video") == f"pip install -e '{root}[video]'"


@pytest.mark.parametrize(
    ("address", "command"),
    [
        (None, "'coterie[video]'"),
        ("{", "'coterie[video]'"),
        ("[]", "'coterie[video]'"),
        ('{"url": 1}', "'coterie[video]'"),
        ('{"url": "file:///gone/coterie.whl", "archive_info": {}}',
         "'coterie[video] @ file:///gone/coterie.whl'"),
        ('{"url": "https://a.b/c", "vcs_info": {"vcs": "git", "requested_revision": "v1"}}',
         "'coterie[video] @ git+https://a.b/c@v1'"),
    ],
)  # fmt: skip
def test_a_copy_gets_extras_from_where_it_came(monkeypatch, tmp_path, address, command):
    installed_from(monkeypatch, tmp_path, address)
    assert how_to_install("video") == f"pip install {command}"


def test_a_folder_is_named_by_its_path(monkeypatch, tmp_path):
    folder = tmp_path / "my coterie"
    folder.mkdir()
    installed_from(monkeypatch, tmp_path, json.dumps({"url": folder.as_uri(), "dir_info": {}}))
    assert how_to_install("video") == f"pip install '{folder}[video]'"
    monkeypatch.chdir(folder)
    assert how_to_install("video") == "pip install '.[video]'"


def test_no_message_spells_out_how_an_extra_is_installed():
    """What is true in a clone is not true of an index: ``how_to_install`` knows."""
    sources = (Path(coterie.__file__).parent).rglob("*.py")
    spelt = [p.name for p in sources if "pip install 'coterie" in p.read_text(encoding="utf-8")]
    assert set(spelt) <= {"extras.py"}

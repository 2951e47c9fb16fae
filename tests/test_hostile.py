"""Whatever stands in a run directory, reading it runs nothing, writes nothing and takes no memory.

An audit hook, in a process of its own because a hook cannot be taken off, ends the process at
whatever a hostile file would want to do.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATHS = os.pathsep.join(map(str, (HERE.parent / "src", HERE)))


@pytest.mark.slow
def test_hostile_and_mutated_files_run_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, str(HERE / "hostile_worker.py"), str(tmp_path)], text=True,
        env=os.environ | {"PYTHONPATH": PATHS}, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["hook"] == ["exec", "import", "open", "pickle.find_class", "socket.__new__",
                             "subprocess.Popen"]  # fmt: skip
    assert found["hostile"] >= 30
    assert found["accepted"] == []
    assert found["mutated"] == {"checkpoint": 4000, "config": 3000, "policy": 1500, "network": 1500}
    assert found["silent"] == []
    assert found["megabytes"] < 200

"""Runs every file of tests alone, each in a fresh process: none may need what another leaves.

    python tests/alone.py                       (all files, slow tests too)
    python tests/alone.py tests/test_cli.py -m "not slow" --jobs 2

Prints a line for each file as it ends and the end of what a failing one printed; exit status 1 if
any failed.
"""

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from cost import Cost, measure

HERE = Path(__file__).parent
NO_TESTS = 5
"""Exit status of pytest where all tests of a file are left out."""
RESULTS = {0: "passed", NO_TESTS: "empty", None: "too long"}


def run(file: Path, marks: str, limit: float) -> tuple[Cost, str]:
    """What a file's tests cost, and what pytest printed."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-m", marks, str(file)]
    with tempfile.TemporaryFile("w+") as output:
        cost = measure(command, limit, cwd=HERE.parent, stdout=output, stderr=subprocess.STDOUT)
        output.seek(0)
        return cost, output.read()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="all, if none is named")
    parser.add_argument("-m", dest="marks", default="", help="as pytest's")
    parser.add_argument("--jobs", type=int, default=1, help="files at a time")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for each file")
    chosen = parser.parse_args()
    files = [file.resolve() for file in chosen.files] or sorted(HERE.rglob("test_*.py"))
    failed = 0
    with ThreadPoolExecutor(chosen.jobs) as pool:
        begun = {pool.submit(run, file, chosen.marks, chosen.limit): file for file in files}
        for ended in as_completed(begun):
            cost, output = ended.result()
            file, result = begun[ended].relative_to(HERE), RESULTS.get(cost.status, "FAILED")
            print(f"{result:8} {cost}  {file}", flush=True)
            if result not in ("passed", "empty"):
                failed += 1
                print(*output.splitlines()[-25:], sep="\n", flush=True)
    print(f"{len(files)} files alone, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

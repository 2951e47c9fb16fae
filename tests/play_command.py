"""``coterie play NAME WORKERS`` plays in a Python environment, without JAX, and answers."""

import contextlib
import sys

from coterie.cli import entry as cli
from coterie.cli import printing, table
from coterie.cli.commands import listing
from coterie.python_envs.opening import find_factory, make_one, open_python_env
from coterie.python_envs.workers.pool import make_vector_env
from coterie.python_envs.workers.worker import RESET, STEP, Limits


def play(names, parsed, args):
    name, workers = names
    make = find_factory(name, {})
    hosted = open_python_env(name, make, made=make_one(name, make))
    with contextlib.closing(
        make_vector_env(hosted, [range(2)], Limits(60.0), int(workers))
    ) as vector_env:
        for command in (RESET, STEP, STEP):
            vector_env.rows.command[:] = command
            vector_env.start(0)
            assert vector_env.wait(0) == []
    printing.answer_json({"played": name})
    return 5


table.COMMANDS["play"] = table.Command(play, listing.ListArgs, "coterie play NAME WORKERS", (2, 2))
if __name__ == "__main__":
    sys.exit(cli.main())

"""``coterie play NAME WORKERS`` plays in a Python environment, without JAX, and answers."""

import contextlib
import sys

from coterie import cli
from coterie.envs._seat import RESET, STEP, Limits
from coterie.envs.fleet import make_fleet
from coterie.hosting import find_factory, make_one, open_hosted


def play(names, parsed, args):
    name, workers = names
    make = find_factory(name, {})
    hosted = open_hosted(name, make, made=make_one(name, make))
    with contextlib.closing(make_fleet(hosted, [range(2)], Limits(60.0), int(workers))) as fleet:
        for command in (RESET, STEP, STEP):
            fleet.rows.command[:] = command
            fleet.start(0)
            assert fleet.wait(0) == []
    cli._print_json({"played": name})
    return 5


cli.COMMANDS["play"] = cli.Command(play, cli.ListArgs, "coterie play NAME WORKERS", (2, 2))
if __name__ == "__main__":
    sys.exit(cli.main())

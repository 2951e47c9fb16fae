"""``coterie game``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.cli.printing import answer_json, say

if TYPE_CHECKING:
    from coterie.envs.matrix import MatrixGame


@dataclass(frozen=True)
class GameArgs:
    """Shows payoffs, equilibria and optima of a matrix game; for a run, also what its teams
    learned."""

    json: bool = False
    """Print one JSON document."""


def command_game(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie import envs
    from coterie.envs.matrix import MatrixGame
    from coterie.show.terminal.games import render_game
    from coterie.storage.run_directory import RunDirectory

    if RunDirectory(Path(names[0])).holds_a_run():
        return _game_of_run(names[0], parsed)
    env = envs.make(names[0] if names[0].startswith("matrix/") else f"matrix/{names[0]}")
    assert isinstance(env, MatrixGame)
    if parsed.run.json:
        return answer_json(_described(env))
    return say(render_game(env), width=120)


def _described(env: MatrixGame) -> dict[str, Any]:
    from coterie.games import solution_concepts as games

    return games.describe(env.payoffs, env.agents, env.action_labels).to_dict()


def _game_of_run(name: str, parsed: Any) -> None:
    """The game a run was trained on, and what its teams learned of it."""
    from coterie.analysis.learned import single_shot
    from coterie.runs.api import open_run
    from coterie.show.terminal.games import render_game
    from coterie.show.terminal.learned import render_learned, to_dict

    run = open_run(name, **asdict(parsed.code))
    env = single_shot(run)
    if parsed.run.json:
        return answer_json({"game": _described(env), **to_dict(run)})
    return say(render_game(env), render_learned(run), width=120)

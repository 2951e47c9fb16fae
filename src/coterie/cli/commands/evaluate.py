"""``coterie evaluate``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coterie.cli.printing import answer_json, by_policy, say
from coterie.settings import Episodes, Seed, Workers


@dataclass(frozen=True)
class EvaluateArgs:
    """Evaluates the teams of all seeds: returns of the best and of the last policies.

    Stochastic policies are evaluated twice: sampled, as they act in training, and greedy.
    """

    episodes: Episodes = 320
    """Episodes of the team of each seed."""
    which: Literal["best", "last"] | None = None
    """Evaluate only the policies with the best evaluation in training, or only the last ones; by
    default both."""
    greedy: bool = False
    """Show greedy returns only."""
    metric: str | None = None
    """Show this metric, such as eval/length; by default returns and lengths of episodes."""
    environment: str | None = None
    """Evaluate in another environment, such as gymnasium:lbforaging:Foraging-8x8-2p-3f-v3. Required
    if the environment of the run is a Python environment or defined in your own code."""
    seed: Seed = 0
    """Random seed of the episodes."""
    workers: Workers | None = None
    """Worker processes for Python environments; by default as many as in training."""
    json: bool = False
    """Print one JSON document."""


def command_evaluate(names: list[str], parsed: Any, args: list[str]) -> None:
    from coterie.module_paths import is_code
    from coterie.python_envs.settings import PythonEnvSettings
    from coterie.runs import api
    from coterie.runs import config as configs
    from coterie.show.numbers import plural
    from coterie.show.terminal.returns import asked_metrics, check_metric, render_returns
    from coterie.storage.run_directory import RunDirectory

    own = parsed.run
    again = is_code(RunDirectory.open(Path(names[0])).config()["environment"])
    code = dataclasses.asdict(parsed.code)
    python = None if again else code.pop("python")
    run = api.open_run(names[0], own.environment if again else None, **code)
    elsewhere = None if again else own.environment
    python_env = None
    if own.workers is not None or python:
        trained = configs.python_env_of(run.config) or PythonEnvSettings()
        workers = trained.workers if own.workers is None else own.workers
        python_env = dataclasses.replace(trained, workers=workers, python=python)
    asked = [own.which] if own.which else run.both()
    check_metric(run, own.metric, own.greedy)
    results: dict[str, Any] = {}
    for which in asked:
        if results and run.last_is_best:
            results[which] = results[asked[0]]
        else:
            metrics = run.evaluate(own.episodes, which, elsewhere, own.seed, python_env)
            results[which] = asked_metrics(metrics, own.metric, own.greedy)
    where, which = own.environment or run.config["environment"], own.which or run.which
    if own.json:
        facts = {"run": names[0], "environment": where, "episodes": own.episodes, "which": which}
        facts |= {"policies": by_policy(run, results)}
        return answer_json({"metrics": results[which], **facts})
    title = f"{where} · {plural(own.episodes, 'episode')} of each seed's team"
    return say(title, render_returns(run, results, own.metric, own.greedy))

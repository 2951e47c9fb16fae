"""The host's loop around the compiled program: log, evaluations, checkpoints, a clean stop."""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from coterie.errors import Interrupted, NotFinite
from coterie.runs.callbacks import Callbacks, Event
from coterie.runs.continuation import resume_command
from coterie.runs.environments import Opened
from coterie.runs.evaluation import interests_conflict, team_return
from coterie.runs.policy_files import describe, save_policies
from coterie.runs.run import Run, play_finally
from coterie.runs.user_code import recorded_code
from coterie.storage import checkpoint as checkpoints
from coterie.storage.config_file import identity
from coterie.storage.evaluations import EvaluationFile
from coterie.storage.files import seal
from coterie.storage.run_directory import RunDirectory
from coterie.training.devices import Devices, States
from coterie.training.evaluate import info_metrics, played_metrics, return_metrics
from coterie.training.finite import check_returns, without_replay
from coterie.types import PyTree, tree_bytes

if TYPE_CHECKING:
    from coterie.python_envs.training import HostDevice


LOG_POINTS, CHECKPOINTS = 100, 4
"""Per run."""
LARGE, SAVING_RATE, SAVING_SHARE, SAVING_SECONDS = 32e6, 250e6, 0.01, 900
"""States of more bytes than this are saved no more often than is a hundredth of the time if a disk
takes so many bytes a second; and all are saved at the latest after so many seconds."""
CALL_SECONDS = 2.0
"""A call of the compiled program that takes longer is followed by one of half as many iterations:
whoever asks a run to stop does not wait for long."""
Report = Callable[[str, dict[str, Any]], None]
DISPLAYS: list[Callable[[], Report]] = []
"""What shows the progress of a training that is given no report: nothing, but in a notebook."""


def shown_by(report: Report | None) -> Report:
    """Who is told of the progress of a training."""
    if report is None and DISPLAYS:
        return DISPLAYS[0]()
    return report or (lambda event, facts: None)


class Loop:
    """Drives a program from the host: log, evaluations, checkpoints, a clean stop."""

    def __init__(
        self,
        devices: Devices | HostDevice,
        config: dict[str, Any],
        directory: RunDirectory | None,
        environment: Opened | None,
        here: dict[str, Any],
        report: Report,
        callbacks: Callbacks,
        meta: dict[str, Any] | None = None,
    ):
        self.environment, self.here, self.callbacks = environment, here, callbacks
        self.devices, self.program = devices, devices.program
        self.config, self.directory, self.report = config, directory, report
        meta = meta or {}
        self.seconds_before = self.clock = meta.get("seconds", 0.0)
        devices.go_on_from(meta.get("tallies", {}), meta.get("totals", {}))
        self.evaluations = EvaluationFile(
            config["environment"], config["algorithm"], meta.get("evaluations")
        )
        self.total = devices.program.iterations(config["steps"])
        self.reached, self.ended = 0, False
        self.stop = False
        self.patience = 1
        self.saved_at = self.seconds_before
        self.last: dict[str, Any] = {}

    def _marks(self, count: int) -> set[int]:
        """Iterations after which something happens ``count`` times in a run, the end included."""
        count = min(count, self.total)
        return {-(-self.total * j // count) for j in range(1, count + 1)}

    def run(self, begin: Callable[[], States], iteration: int) -> Run:
        """Goes on from the states that ``begin`` makes, which are those of ``iteration``."""
        self.reached = iteration
        try:
            return self._finish(*self._train(begin, iteration))
        except BaseException:
            self._tell("end", None, self.reached)
            raise

    def _train(self, begin: Callable[[], States], iteration: int) -> tuple[States, int]:
        points = self._marks(self.config["evaluations"])
        log = self._marks(LOG_POINTS) | points
        saves = self._marks(CHECKPOINTS)
        self.started = time.perf_counter()
        with _Interrupt(self):
            state, saved = begin(), iteration
            if not iteration:
                self._save(state, iteration)  # from here on a killed run can be resumed
            self._tell("start", state, iteration)
            if not self.evaluations.content:
                state = self._evaluate(state, 0)
            while self._goes_on(iteration):
                until = min(m for m in log if m > iteration)
                state, iteration = self._advance(state, iteration, until)
                if iteration == until:
                    state = self._log(state, iteration)
                if iteration in points or (self.callbacks.stop and iteration == until):
                    state = self._evaluate(state, iteration)
                if self._is_due(state, iteration, saves):
                    self._save(state, saved := iteration)
            if saved != iteration:
                self._save(state, iteration)
            if self.callbacks.error is None and not self.stop and iteration < self.total:
                self._end_early(iteration)
        return state, iteration

    def _goes_on(self, iteration: int) -> bool:
        asked = self.stop or self.callbacks.error or (self.callbacks.stop and iteration)
        return iteration < self.total and not asked

    def _end_early(self, iteration: int) -> None:
        """Makes the steps so far the run's length: a callback asked to end it."""
        self.config["asked_steps"] = self.config["steps"]
        self.config["steps"], self.total = self._steps(iteration), iteration
        if self.directory:
            self.directory.write_config(self.config)

    def _tell(
        self,
        kind: Literal["start", "train", "evaluation", "end"],
        state: States | None,
        iteration: int,
        lines: Sequence[dict[str, Any]] = (),
        results: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        if self.callbacks and not self.ended:
            self.ended = kind == "end"
            path = self.directory.path if self.directory else None
            made: list[Callable[[], Run]] = []
            if state is not None:
                made.append(functools.cache(functools.partial(self._run, state, iteration)))
            steps = self._steps(iteration)
            event = Event(
                kind, steps, lines, {**self.config}, path, results is not None, results or {}, made
            )
            self.callbacks.tell(event)

    def _advance(self, state: States, iteration: int, until: int) -> tuple[States, int]:
        while iteration < until and not self.stop:
            count = min(self.program.chunk, self.patience, until - iteration)
            begun = time.perf_counter()
            try:
                state = self.devices.advance(state, iteration, count)
            except NotFinite as bad:
                raise NotFinite(bad.what, self.config["seed"] + bad.seed, bad.step) from None
            self.reached = iteration = iteration + count
            self._wait_longer(time.perf_counter() - begun, count)
            self.report(
                "progress",
                {
                    "env_steps": self._steps(iteration),
                    "seconds": self._seconds(),
                    **self.devices.tallies(),
                    **self.last,
                },
            )
        return state, iteration

    def _wait_longer(self, took: float, count: int) -> None:
        """More iterations in the next call after a short one, fewer after a long one."""
        if took > CALL_SECONDS:
            self.patience = max(1, count // 2)
        elif count == self.patience:
            self.patience = min(2 * count, self.program.chunk)

    def _steps(self, iteration: int) -> int:
        return iteration * self.program.steps_per_iteration

    def _seconds(self) -> float:
        """Wall clock of the run so far; it never goes back, whatever the system's clock does."""
        self.clock = max(self.clock, self.seconds_before + time.perf_counter() - self.started)
        return self.clock

    def _log(self, state: States, iteration: int) -> States:
        agents = self.program.game.players.agents
        episodes, losses = self.devices.gather(state, lambda s: (s.episodes, s.losses))
        seconds, steps = self._seconds(), self._steps(iteration)
        rate = steps / max(seconds, 1e-9)
        info = self.devices.info(state)
        scheduled, lines = self.program.algorithm.logged_schedules(max(iteration - 1, 0)), []
        for k in range(self.config["seeds"]):
            line: dict[str, Any] = {"seed": self.config["seed"] + k, "env_steps": steps}
            if (count := float(episodes.count[k])) > 0:
                line |= return_metrics(
                    "train", agents, episodes.returns[k] / count, episodes.lengths[k] / count
                )
            line |= info_metrics("train", info, k)
            updates = float(losses["updates"][k])
            line |= {f"train/{n}": float(v[k]) / updates for n, v in losses.items()
                     if n != "updates" and updates > 0 and np.isfinite(v[k])}  # fmt: skip
            line |= {f"train/{n}": value for n, value in scheduled.items()}
            line |= {
                "updates": self.program.algorithm.updates(iteration),
                "seconds": seconds,
                "steps_per_second": rate,
                "steps_per_second_total": rate * self.config["seeds"],
                **self.devices.tallies(),
            }
            lines.append(line)
        if self.directory:
            self.directory.log(lines)
        self._note("train", lines)
        state = self.devices.clear_totals(state)
        self._tell("train", state, iteration, lines)
        return state

    def _evaluate(self, state: States, iteration: int) -> States:
        agents = self.program.game.players.agents
        state, played = self.devices.evaluate(state, iteration)
        steps, lines = self._steps(iteration), []
        returns, lengths, _ = played[self._prefix]
        for k in range(self.config["seeds"]):
            line: dict[str, Any] = {"seed": self.config["seed"] + k, "env_steps": steps}
            for prefix, games in played.items():
                check_returns(agents, games.returns[k], line["seed"], steps)
                line |= played_metrics(prefix, agents, games, k)
            lines.append(line)
            self.evaluations.add(
                self.config["seed"] + k, steps, self._seconds(),
                returns[k].sum(-1).tolist(), lengths[k].tolist(),
            )  # fmt: skip
        for prefix in played:
            self._note(prefix, lines)
        if self.directory:
            self.directory.log(lines)
            self.directory.write_evaluations(self.evaluations.content)
            self._save_policies(state, iteration)
        self.report("evaluation", {"env_steps": steps, **self.last})
        self._tell("evaluation", state, iteration, lines)
        return state

    @property
    def _prefix(self) -> str:
        """Of the play that policies are chosen and reported by."""
        return "eval_sampled" if self.program.algorithm.stochastic else "eval"

    def _note(self, prefix: str, lines: list[dict[str, Any]]) -> None:
        name = f"{prefix}/{team_return(self.program.game.players)}"
        values = [line[name] for line in lines if name in line]
        if values:
            self.last[name] = float(np.mean(values))
            self.last["per_seed"] = self.last.get("per_seed", {}) | {name: values}

    def _policies(
        self, state: States, iteration: int
    ) -> tuple[dict[str, PyTree], dict[str, list[int]]]:
        """Best and last policies [S, ...], and [S] the environment steps each was trained for."""
        algorithm = self.program.algorithm
        last, best = self.devices.gather(state, lambda s: (algorithm.policy(s.learner), s.best))
        low, high = best.iteration.astype(np.int64).T
        found = low + (high << 32)
        none = found == 0  # nothing trained was evaluated yet

        def choose(of_best: Any, of_last: Any) -> Any:
            return np.where(none.reshape(-1, *[1] * (of_last.ndim - 1)), of_last, of_best)

        policies = {"best": jax.tree.map(choose, best.policy, last), "last": last}
        reached = {"best": np.where(none, iteration, found), "last": np.full_like(found, iteration)}
        steps = {w: [self._steps(k) for k in i.tolist()] for w, i in reached.items()}
        return policies, steps

    def _save_policies(self, state: States, iteration: int) -> None:
        assert self.directory is not None
        policies, steps = self._policies(state, iteration)
        name, game = identity(self.config), self.program.game
        default = "last" if interests_conflict(game) else "best"
        about = describe(policies["last"], game, self.program.algorithm)
        self.directory.write_json(
            "policy/policy.json", seal(about | {"run": name, "default": default})
        )
        for which, stacked in policies.items():
            save_policies(self.directory.path, which, stacked, name, steps[which])

    def _save(self, state: States, iteration: int) -> None:
        if not self.directory:
            return
        size, digest = self.directory.sync_log()
        meta = {
            "run": identity(self.config),
            "iteration": iteration,
            "env_steps": self._steps(iteration),
            "seconds": self._seconds(),
            "log_bytes": size,
            "log_digest": digest,
            "log_lines": self.directory.logged,
            "evaluations": self.evaluations.content,
            "tallies": self.devices.tallies(),
            "totals": self.devices.totals(),
            **self.here,
        }
        self.report("saving", meta)
        checkpoints.save(self.directory.path, self._steps(iteration), state, meta)
        self.saved_at = self._seconds()

    def _is_due(self, state: States, iteration: int, marks: set[int]) -> bool:
        """Whether to save now: at the marks, large states not too often, and none too seldom."""
        size, since = tree_bytes(state), self._seconds() - self.saved_at
        pause = size / SAVING_RATE / SAVING_SHARE if size > LARGE else 0.0
        return iteration == self.total or since >= (pause if iteration in marks else SAVING_SECONDS)

    def _run(self, state: States, iteration: int) -> Run:
        """The run as it stands."""
        policies, steps = self._policies(state, iteration)
        path = self.directory.path if self.directory else None
        return Run(
            self.config, self.program.game, policies, path, self._steps(iteration), steps,
            algorithm=self.program.algorithm,
        )  # fmt: skip

    def _finish(self, state: States, iteration: int) -> Run:
        if self.stop:
            raise self._interrupted(state, iteration) from self.callbacks.error
        if error := self.callbacks.error:
            error.add_note(str(self._interrupted(state, iteration)))
            raise error
        run = self._run(state, iteration)
        run.learner = self.devices.gather(state, lambda s: without_replay(s.learner))
        run.complete = True
        if self.config["final_episodes"]:
            try:
                self._absolute(run)
            except KeyboardInterrupt:  # all is saved; going on evaluates again
                raise self._interrupted(state, iteration) from None
        facts = {"stopped": False, "seconds": self._seconds(), "env_steps": run.steps}
        self.report("end", facts)
        self._tell("end", state, iteration, results=run.results)
        if self.callbacks.error:
            raise self.callbacks.error
        return run

    def _interrupted(self, state: States, iteration: int) -> Interrupted:
        """What to raise after a request to stop; policies are saved as they are."""
        steps, again, path = self._steps(iteration), None, None
        if self.directory:
            self._save_policies(state, iteration)
            path = self.directory.path
            if iteration < self.total or self.config["final_episodes"]:
                again = resume_command(path, recorded_code(self.config), self.environment)
        facts = {"stopped": True, "seconds": self._seconds(), "env_steps": steps}
        self.report("end", facts | {"resume": again})
        self._tell("end", state, iteration)
        return Interrupted(path, steps, self.config["steps"], again)

    def _absolute(self, run: Run) -> None:
        """The final evaluation; those that stand for the run give marl-eval's absolute metric."""
        played = play_finally(run)
        returns, lengths, _ = played[run.which][self._prefix]
        for k in range(self.config["seeds"]):
            self.evaluations.absolute(
                self.config["seed"] + k, returns[k].sum(-1).tolist(), lengths[k].tolist()
            )
        if self.directory:
            self.directory.write_evaluations(self.evaluations.content)
            self.directory.write_result(self.config, run.results)


class _Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the current chunk."""

    def __init__(self, loop: Loop):
        self.loop = loop

    def __enter__(self) -> None:
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        del frame
        self.loop.stop = True
        for each, handler in self.previous.items():  # the second one ends the process at once
            signal.signal(each, handler)
        self.loop.report("stopping", {})

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

"""A trained team that plays with NumPy alone; `team.npz` stands beside this file.

from team import Team

team = Team()
hidden_state = team.initial_hidden_state()
actions, hidden_state = team.act(observations, hidden_state)
"""

import json
from pathlib import Path

import numpy as np


class Team:
    """Acts greedily: the likeliest, or most valued, legal action of each agent.

    Attributes:
        agents, observation_sizes, action_counts: of each agent, in their order.
    """

    def __init__(self, path=None):
        path = Path(__file__).with_name("team.npz") if path is None else path
        with np.load(path, allow_pickle=False) as file:
            self._arrays = {name: file[name] for name in file.files}
        about = json.loads(str(self._arrays.pop("about")))
        if about["format"] != "coterie-team 1":
            raise ValueError(f"{path} is no team that this file can play: {about['format']}")
        self.agents = tuple(about["agents"])
        self.observation_sizes = tuple(about["observation_sizes"])
        self.action_counts = tuple(about["action_counts"])
        self._hidden_size, self._activation = about["hidden_size"], about["activation"]
        self._layers = sum(name.startswith("layer_") for name in self._arrays) // 2

    def initial_hidden_state(self):
        """[N, H], before the first observation of an episode."""
        return np.zeros((len(self.agents), self._hidden_size), np.float32)

    def act(self, observations, hidden_state, action_masks=None):
        """One action for each agent, and the hidden state after it.

        Args:
            observations: a vector for each agent; None of one that is not in the episode.
            action_masks: legal actions, a flag for each; all are legal without any.

        Returns:
            actions, counted from 0, None where the observation is, and the hidden state.

        Raises:
            ValueError: something has another shape; the sentence names it.
        """
        self._check(observations, hidden_state, action_masks)
        alive = np.array([own is not None for own in observations])
        seen = np.zeros((len(self.agents), max(self.observation_sizes)), np.float32)
        mask = self._arrays["available"].copy()
        for i, own in enumerate(observations):
            if own is not None:
                seen[i, : self.observation_sizes[i]] = own
            if action_masks is not None and action_masks[i] is not None:
                mask[i, : self.action_counts[i]] &= np.asarray(action_masks[i], bool)
        outputs, hidden_state = self.outputs(seen, hidden_state)
        actions = np.argmax(np.where(mask, outputs, -np.inf), axis=-1)
        each = zip(actions.tolist(), alive, strict=True)
        return [action if there else None for action, there in each], hidden_state

    def _check(self, observations, hidden_state, action_masks):
        names = ", ".join(self.agents)
        expected = len(self.agents), self._hidden_size
        if np.shape(hidden_state) != expected:
            raise ValueError(
                f"hidden_state must have the shape {expected}; got {np.shape(hidden_state)}: give "
                "what act returned, or initial_hidden_state() at the start of an episode"
            )
        for word, given, sizes in (
            ("observations", observations, self.observation_sizes),
            ("action_masks", action_masks, self.action_counts),
        ):
            if given is None and word == "action_masks":
                continue
            if not isinstance(given, (list, tuple, np.ndarray)) or len(given) != len(sizes):
                raise ValueError(f"{word} must be a list with one for each of {names}, in order")
            for agent, own, size in zip(self.agents, given, sizes, strict=True):
                if own is not None and np.shape(own) != (size,):
                    raise ValueError(
                        f"{word}: {agent} takes a vector of {size}; got the shape {np.shape(own)}"
                    )

    def outputs(self, observations, hidden_state):
        """Logits or Q-values [N, A] of padded observations [N, O], and the hidden state [N, H]."""
        a, x = self._arrays, observations
        if "mean" in a:
            x = np.clip((x - a["mean"]) / a["std"], -10, 10)
        if "ids" in a:
            x = np.concatenate([x, a["ids"]], axis=-1)
        for k in range(self._layers - 1):
            x = self._linear(f"layer_{k}", x)
            if f"norm_{k}_scale" in a:
                x = x - x.mean(axis=-1, keepdims=True)
                x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + np.float32(1e-5))
                x = x * a[f"norm_{k}_scale"] + a[f"norm_{k}_shift"]
            x = np.tanh(x) if self._activation == "tanh" else np.maximum(x, 0)
        if self._hidden_size:
            x = hidden_state = self._gru(x, hidden_state)
        return self._linear(f"layer_{self._layers - 1}", x), hidden_state

    def _linear(self, name, x):
        weight, bias = self._arrays[f"{name}_weight"], self._arrays[f"{name}_bias"]
        return np.matmul(x[:, None], weight)[:, 0] + bias

    def _gru(self, x, h):
        reset_x, update_x, new_x = np.split(self._linear("gru_input", x), 3, axis=-1)
        reset_h, update_h, new_h = np.split(self._linear("gru_hidden", h), 3, axis=-1)
        update = _sigmoid(update_x + update_h)
        new = np.tanh(new_x + _sigmoid(reset_x + reset_h) * new_h)
        return (1 - update) * new + update * h


def _sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))

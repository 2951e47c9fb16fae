"""Networks, advantages and losses once more: NumPy, float64, loops, nothing shared with Coterie."""

import itertools

import jax
import numpy as np


def in_numpy(networks):
    """The same tree with float64 leaves of NumPy."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), networks)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step(networks, i, hidden_state, see):
    """Outputs [B, J] and memory [B, H] of agent i, of networks made by ``in_numpy``."""
    own = jax.tree.map(lambda x: x[networks.index[i]], networks.networks)
    if any(networks.identify):
        one_hot = np.eye(len(networks.index))[i] * networks.identify[i]
        see = np.concatenate([see, np.broadcast_to(one_hot, (len(see), len(one_hot)))], -1)
    for layer in own.body.layers[:-1]:
        see = np.tanh(see @ layer.weight + layer.bias)
    if own.gru is not None:
        by_input = np.split(see @ own.gru.inputs.weight + own.gru.inputs.bias, 3, -1)
        by_memory = np.split(hidden_state @ own.gru.hidden.weight + own.gru.hidden.bias, 3, -1)
        reset, update = (sigmoid(x + y) for x, y in zip(by_input[:2], by_memory[:2], strict=True))
        new = np.tanh(by_input[2] + reset * by_memory[2])
        see = hidden_state = (1 - update) * new + update * hidden_state
    last = own.body.layers[-1]
    return see @ last.weight + last.bias, hidden_state


def unroll(networks, hidden_state, see, start):
    """Outputs [T, B, N, J] and memories after every step [T, B, N, H]; starts are [T, B]."""
    steps, agents = see.shape[0], see.shape[2]
    outputs, hidden_states = [], []
    hidden_state = np.array(hidden_state, np.float64)
    for t in range(steps):
        hidden_state = np.where(start[t][:, None, None], 0, hidden_state)
        each = [step(networks, i, hidden_state[:, i], see[t, :, i]) for i in range(agents)]
        outputs.append(np.stack([out for out, _ in each], 1))
        hidden_state = np.stack([after for _, after in each], 1)
        hidden_states.append(hidden_state)
    return np.stack(outputs), np.stack(hidden_states)


def after(networks, hidden_states, see):
    """Outputs [T, B, N, J] one step after each of those memories; no episode begins there."""
    agents = see.shape[2]
    each = lambda t, i: step(networks, i, hidden_states[t, :, i], see[t, :, i])[0]  # noqa: E731
    return np.stack([np.stack([each(t, i) for i in range(agents)], 1) for t in range(len(see))])


def log_policy(scores, mask):
    """log π over the legal actions, -inf elsewhere; over all of them where none is legal."""
    mask = mask | ~mask.any(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        p = np.exp(scores - np.where(mask, scores, -np.inf).max(-1, keepdims=True)) * mask
        return np.log(p / p.sum(-1, keepdims=True))


def entropy(log_probs, mask):
    p = np.exp(log_probs)
    return -np.where(mask & (p > 0), p * np.where(p > 0, log_probs, 0), 0).sum(-1)


def take(values, actions):
    return np.take_along_axis(values, actions[..., None], -1)[..., 0]


def joint_actions(counts):
    """All joint actions in the order in which a joint critic numbers them."""
    return list(itertools.product(*(range(k) for k in counts)))


def legal_joint(mask, joint):
    """Whether all agents [N, A] may do their part; the dead, who may do nothing, do action 0."""
    return all(mask[i, a] or (not mask[i].any() and a == 0) for i, a in enumerate(joint))


def returns(rewards, next_values, terminated, ended, gamma, n=None, lam=None):
    """Targets [T, B, N], n-step or λ, each from its definition."""
    y = np.zeros(rewards.shape)
    steps = len(rewards)
    for where in np.ndindex(*rewards.shape):
        t, rest = where[0], where[1:]
        longest = next(s for s in range(t, steps) if ended[(s, *rest)] or s == steps - 1) - t + 1

        def n_step(n, t=t, rest=rest):
            g = sum(gamma**k * rewards[(t + k, *rest)] for k in range(n))
            last = (t + n - 1, *rest)
            return g + (0 if terminated[last] else gamma**n * next_values[last])

        if lam is None:
            y[where] = n_step(min(n, longest))
        else:
            y[where] = lam ** (longest - 1) * n_step(longest) + sum(
                (1 - lam) * lam ** (n - 1) * n_step(n) for n in range(1, longest)
            )
    return y


def mean_over_living(losses, alive):
    """Σ over agents of the mean over the steps in which each is alive."""
    return sum(
        losses[..., i][alive[..., i]].mean() if alive[..., i].any() else 0.0
        for i in range(losses.shape[-1])
    )

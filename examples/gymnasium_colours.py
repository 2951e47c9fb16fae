"""Your own environment with Gymnasium's interface of Tuple spaces, checked, trained with VDN."""

import gymnasium
from gymnasium.spaces import Discrete, MultiDiscrete, Tuple

import coterie


class Colours(gymnasium.Env):
    """A customer wants a hue in one of two tones: a painter observes the hue, a helper the tone.

    The painter chooses a hue, the helper chooses a tone and whether to varnish. Both get 1 if hue
    and tone are what the customer wants, and it is varnished.
    """

    def __init__(self):
        self.observation_space = Tuple((Discrete(3), Discrete(2)))
        self.action_space = Tuple((Discrete(3), MultiDiscrete([2, 2])))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.order(), {}

    def step(self, actions):
        hue, (tone, varnish) = actions
        reward = float((hue, tone) == self.wanted and varnish == 1)
        self.t += 1
        # One value for each agent: observations, rewards, terminated, truncated.
        return self.order(), [reward, reward], [False, False], [self.t == 10] * 2, {}

    def order(self):
        self.wanted = (int(self.np_random.integers(3)), int(self.np_random.integers(2)))
        return self.wanted


if __name__ == "__main__":
    report = coterie.check_env(Colours)
    print(*report.findings or ["nothing is wrong with it"], sep="\n")
    assert report.ok

    algorithm = coterie.VDN(
        environments=8, learning_starts=1_000, epsilon_steps=4_000, hidden=(32,)
    )
    run = coterie.train(algorithm, Colours, steps=16_000, evaluations=2, final_episodes=100)
    for name, metric in run.metrics.items():
        print(f"{name:30} {metric['mean']:6.2f}")
    # Ten orders an episode; random play fulfils one in twelve.
    assert run.metrics["eval/return/team_mean"]["mean"] > 8

"""Text that others wrote (names, paths, settings, errors of their code): shown, never obeyed.

What a medium would obey beside control characters is that medium's own business: markup of the
terminal in ``show/terminal/console.py``, letters of a picture in ``show/lettering.py``, HTML in
``show/report/html.py``.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Iterable

_JOINERS = "\u200c\u200d"
"""Invisible characters that scripts and emoji are written with."""
_FILE_NAME = 120
"""Bytes of a file's name; file systems allow about twice as many."""


def visible(text: object) -> str:
    r"""One line of text in which every character can be seen.

    Control characters (so escape sequences and line breaks too), lone surrogates, and what is
    invisible or turns the direction of writing are written as Python writes them: ``\x1b``.
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_visible, text))


def visible_lines(text: object) -> str:
    """The same where line breaks are meant as such; tabs become blanks."""
    return "\n".join(visible(line.expandtabs()) for line in str(text).split("\n"))


def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    if not hidden or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode()


def clipped(text: str, most: int) -> str:
    """At most so many characters: the middle gives way, as names often differ at their ends."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def file_name(text: str) -> str:
    """Text as the name of a file or folder; what is cut off counts by its digest."""
    name = re.sub(r"[^\w.-]+", "-", text)
    if len(name.encode()) <= _FILE_NAME:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
    head = name.encode()[: _FILE_NAME - len(digest) - 1].decode(errors="ignore")
    return f"{head}-{digest}"


SYNONYMS = {
    "learning_rate": "lr", "actor_lr": "lr", "step_size": "lr", "discount": "gamma",
    "discount_factor": "gamma", "num_envs": "environments", "n_envs": "environments",
    "num_environments": "environments", "total_timesteps": "steps", "timesteps": "steps",
    "total_steps": "steps", "num_steps": "rollout_steps", "n_seeds": "seeds", "num_seeds": "seeds",
    "replay_size": "buffer_size", "buffer_capacity": "buffer_size", "memory_size": "buffer_size",
    "minibatch_size": "batch_size", "tau": "target_tau", "target_update_interval":
    "target_interval", "target_network_frequency": "target_interval", "ent_coef": "entropy",
    "entropy_coef": "entropy", "clip_coef": "clip", "clip_range": "clip", "clip_eps": "clip",
    "clip_epsilon": "clip", "update_epochs": "epochs", "num_minibatches": "minibatches",
    "lambda": "gae_lambda", "hidden_sizes": "hidden", "hidden_dim": "hidden", "grad_clip":
    "max_grad_norm", "warmup_steps": "learning_starts", "start_epsilon": "epsilon_start",
    "end_epsilon": "epsilon_end", "eps_start": "epsilon_start", "eps_end": "epsilon_end",
    "eval_episodes": "evaluation_episodes", "output": "out", "out_dir": "out",
}  # fmt: skip
"""What other libraries call settings, and the names that these have here."""


def did_you_mean(
    word: str,
    known: Iterable[str],
    otherwise: str = "",
    cutoff: float = 0.6,
    prefix: str = "",
    suffix: str = "",
) -> str:
    """ "; did you mean vdn?", or ``otherwise``, where nothing known is like the word.

    Args:
        cutoff: how much alike they must be, from 0 to 1.
        prefix, suffix: stand before and behind the word that is meant.
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {prefix}{near[0]}{suffix}?" if near else otherwise


def setting_meant(word: str, known: Iterable[str]) -> str:
    """``did_you_mean`` of a setting or its flag, which may be called as another library does."""
    known, bare = list(known), word.lstrip("-")
    for each in known:
        if each.lstrip("-").replace("-", "_") == SYNONYMS.get(bare.replace("-", "_")):
            return f"; did you mean {each}?"
    dashes = "--" if word.startswith("--") else ""  # which make all flags look alike
    return did_you_mean(bare, [each.removeprefix(dashes) for each in known], prefix=dashes)

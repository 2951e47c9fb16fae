"""What a shell completes: commands, names, flags and their choices."""

import subprocess
import sys

import pytest

from coterie.algorithms import algorithms
from coterie.cli.commands.completion import SCRIPTS
from coterie.cli.completion import complete
from coterie.cli.entry import main


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], ["train"]),
        (["--v"], ["--version"]),
        (["train", "q"], ["qmix"]),
        (["train", "vdn", "matrix/cl"], ["matrix/climbing"]),
        (["train", "vdn", "matrix/climbing", "--env."], ["--env.rounds", "--env.players"]),
        (["train", "qmix", "--mixer"], ["--mixer-embedding", "--mixer-scale"]),
        (["train", "idqn", "--mixer"], []),
        (["train", "vdn", "matrix/climbing", "--sharing", ""], ["own", "shared"]),
        (["train", "vdn", "matrix/climbing", "--sharing", "s"], ["shared"]),
        (["evaluate", "runs/x", "--which", "l"], ["last"]),
        (["train", "vdn", "matrix/climbing", "--out", ""], []),
        (["train", "vdn", "matrix/climbing", "--json", "--sha"], ["--sharing"]),
        (["lecture", "clim"], ["climbing"]),
        (["completion", ""], list(SCRIPTS)),
        (["evaluate", "ru"], []),
        (["nothing", ""], []),
        (["train", "vnd", "matrix/climbing", "--l"], []),
    ],
)
def test_words_become_what_can_follow(words, expected):
    assert complete(words) == expected


def test_all_algorithms_are_offered():
    assert set(complete(["train", ""])) == set(algorithms())


def test_bash_completes(tmp_path):
    command = tmp_path / "coterie"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m coterie "$@"\n')
    command.chmod(0o755)
    script = f"""
        PATH={tmp_path}:$PATH; eval "$(coterie completion bash)"
        COMP_WORDS=(coterie train vdn matrix/climbing --sha); COMP_CWORD=4; _coterie
        echo "${{COMPREPLY[@]}}"; complete -p coterie
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["--sharing", "complete -o default -F _coterie coterie"]


def test_other_shells_are_refused(capsys):
    assert main(["completion", "csh"]) == 2
    sentence = "coterie: there is no completion for 'csh', only for bash, zsh, fish\n"
    assert capsys.readouterr().err == sentence

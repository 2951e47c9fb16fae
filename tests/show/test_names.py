"""Names, paths and messages of others are text: whatever they hold is shown, and never obeyed."""

import ast
import io
import itertools
import json
import re
import sys
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from quick import quick_compilation

import coterie
from coterie.cli import entry as cli
from coterie.cli import printing, table
from coterie.cli.entry import main
from coterie.envs.matrix import MatrixGame
from coterie.envs.scene import Label, Scene
from coterie.errors import EnvironmentFault
from coterie.lecture.base.display import LectureDisplay
from coterie.runs.run import Run
from coterie.show import curves
from coterie.show.curves import Curve
from coterie.show.film.encode import picture
from coterie.show.film.recording import Frame, Recording
from coterie.show.metrics import in_words
from coterie.show.report.blocks import Command, Matrix, Section, Settings, Table, Viewer
from coterie.show.report.blocks import Text as Paragraphs
from coterie.show.report.html import inline, quoted
from coterie.show.report.page import write_report
from coterie.show.terminal.console import Terminal, line
from coterie.show.terminal.games import render_game
from coterie.show.terminal.progress import TrainDisplay
from coterie.show.terminal.returns import render_returns
from coterie.text import clipped, file_name, visible, visible_lines
from coterie.views.game import Game

NAMES = (
    "ship[/blue]", "[bold]x", "[red on blue]", "\\[x]", ":smile:", "a$b$", r"$\frac{", "a_b^{c}",
    "_hidden", "\x1b[2Jgone", "\x9b31m", "\x1b]0;title\x07", "\u202etxt", "\u2066x\u2069",
    "🚢 café 船", "👩\u200d🚀", "two\nlines", "tab\there", "nul\x00", "back\x08\x08\rspace",
    "\x7fdel", "\udc80raw", "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>', "a`b`c", "**stars**",
    "{x}", "%s%n", "--flag", "zero\u200bwidth", "line\u2028end", "&amp;", "L" + 498 * "o" + "g",
)  # fmt: skip
SHORT = NAMES[:-1]
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def shown(name: str) -> str:
    """What a reader should see of it: Python's own codes for what cannot be seen."""
    seen = "".join(repr(c)[1:-1] if unicodedata.category(c) in UNSEEN else c for c in name)
    return seen.replace("\\u200d", "\u200d")


def harmless(text: str) -> bool:
    """Nothing in it but line breaks does anything to a terminal or to the order of letters."""
    return all(c in "\n\u200c\u200d" or unicodedata.category(c) not in UNSEEN for c in text)


def printed(*parts) -> str:
    page = io.StringIO()
    Terminal(page, 5000).print(*parts, sep="\n")
    text = page.getvalue()
    assert harmless(text)
    return text


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")):
        yield


# Text --------------------------------------------------------------------------------------------


def test_every_character_is_shown_once_and_none_is_obeyed():
    for first in (*range(0, 0x20000, 4096), 0xE0000):
        text = "".join(map(chr, range(first, first + 4096)))
        hidden = (unicodedata.category(c) in UNSEEN and c not in "\u200c\u200d" for c in text)
        codes = [repr(c)[1:-1] if hide else c for c, hide in zip(text, hidden, strict=True)]
        assert visible(text) == "".join(codes)
        assert visible(text).encode()
    assert [visible(name) for name in NAMES] == [shown(name) for name in NAMES]
    assert visible_lines("a\n\tb\x1b") == "a\n        b\\x1b"
    assert visible(3) == "3"


def test_the_middle_of_long_names_gives_way():
    assert clipped("agent_0_of_many_left", 11) == "agent…_left"
    for most, name in itertools.product((1, 2, 9, 30, 600), NAMES):
        assert len(clipped(name, most)) == min(most, len(name))


def test_file_names_are_short_distinct_and_plain():
    names = [file_name(f"vdn-matrix/{name}") for name in (*NAMES, NAMES[-1] + "x", 300 * "船")]
    for name in names:
        assert re.fullmatch(r"vdn-[\w.-]+", name)
        assert len(name.encode()) <= 120
    assert names[-3] != names[-2]
    assert file_name("vdn-lbf/8x8-2p-3f") == "vdn-lbf-8x8-2p-3f"


# The terminal ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_terminal_tables_and_lines_show_names(name, capsys):
    game = MatrixGame([[1, 2], [3, 0]], agents=(name, "other"), actions=(name, "B"), name=name)
    m = {"mean": 1.25, "iqm": 1.0, "ci95": [0.5, 1.5], "per_seed": [0.5, 1.5], "seeds": 2}
    metric = f"eval/return/agent/{name}"
    printing.say(
        name,
        render_returns(
            Run({}, Game(game), {}, None, 0, algorithm=coterie.VDN()), {"last": {metric: m}}, metric
        ),
    )
    out, _ = capsys.readouterr()
    assert harmless(out)
    assert out.count(shown(name)) == 2
    assert "1.25" in out
    text = printed(render_game(game))
    # in the heading, the corner, as a row and a column, and in what is said below
    assert text.count(shown(name)) > 5
    assert shown(name) in printed(line(("warning", "red"), f": {name}", style="dim"))
    assert shown(name) in printed(name)
    assert cli._fail(f"no {name}", 2) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"coterie: no {shown(name)}\n")


class Agents:
    central, reward = "none", "sum"

    def __init__(self, n):
        self.players = type("Players", (), {"n_agents": n})


@pytest.mark.parametrize("terminal", [False, True])
def test_displays_show_names(terminal):
    for name, display in itertools.product(NAMES, (TrainDisplay(), LectureDisplay())):
        console = Terminal(page := io.StringIO(), 5000)
        console._force_terminal = terminal
        display.console = display.bar.live.console = console
        display.live = False
        facts = {"algorithm": "vdn", "environment": name, "seeds": 1, "steps": 10, "bytes": 1,
                 "mode": "m", "game": Agents(2)}  # fmt: skip
        display("start", facts)
        display("note", {"sentence": name})
        display("warning", {"sentence": name})
        again = f"coterie resume {name}"
        display("end", {"resume": again, "env_steps": 1, "seconds": 1.0, "stopped": True})
        said = re.sub(r"\x1b\[[\d;]*m", "", page.getvalue())
        assert harmless(said)
        by_itself = not isinstance(display, LectureDisplay)  # a lecture goes on as a whole
        assert said.count(shown(name)) == 3 + by_itself
        if isinstance(display, LectureDisplay):
            display.tell("training", {"command": f"coterie train vdn {name}"})
            assert shown(f"$ coterie train vdn {name}") in page.getvalue()


def test_nothing_is_printed_past_the_terminal():
    """Only one file makes rich's consoles and texts, and none reads markup."""
    for path in Path(coterie.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        calls = {node.func.id for node in ast.walk(tree)
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
        taken = {
            f"{node.module}.{name.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich")
            for name in node.names
        }
        assert "rich.markup.escape" not in taken, path
        if path.name != "console.py":
            assert "rich.console.Console" not in taken, path
            assert not ("rich.text.Text" in taken and "Text" in calls), path


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_errors_of_others_are_shown_on_one_line(name, capsys, monkeypatch):
    raised: list[Exception] = []

    def fail(*_):
        raise raised[-1]

    command = table.COMMANDS["list"]
    monkeypatch.setitem(table.COMMANDS, "list", table.Command(fail, command.options, "", (0, 0)))
    fault = EnvironmentFault("raised", "e", name, 3, original=f"Traceback\n  {name}\n")
    rest = (coterie.UsageError(name), RuntimeError(f"x {name}"), OSError(2, "no", name))
    for error in (fault, *rest):
        raised.append(error)
        assert main(["list"]) in (1, 2)
        out, err = capsys.readouterr()
        assert out == ""
        assert harmless(err)
        last = err.splitlines()[-1]
        letters = re.sub(r"\\[xu]\w+|\\.|\s", "", shown(name))[:400]
        assert letters in re.sub(r"\\[xu]\w+|\\.|\s", "", last)


def test_refused_arguments_are_shown(capsys):
    train = ["train", "vdn", "matrix/climbing"]
    places = ([], ["train", "vdn"], ["train"], ["evaluate"], ["plot"], ["report"], ["game"],
              ["lecture"], ["watch", "x", "--out"], ["list", "--steps"], [*train, "--lr"],
              [*train, "--reward"], ["resume"])  # fmt: skip
    for k, name in enumerate(SHORT):
        # every place sees several names, and every name a place
        for place in places if k == 0 else (places[k % len(places)],):
            assert main([*place, name.replace("\0", "")]) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert harmless(err)
            assert re.fullmatch(r"coterie: [^\n]+\n", err), (place, err)


# Pictures ----------------------------------------------------------------------------------------


def a_curve(label):
    values = np.linspace(0, 1, 3)
    return Curve(label, values, values, values, values, np.stack([values, values]))


def test_plots_show_names(tmp_path, recwarn):
    panels = {name: [a_curve(name)] for name in NAMES}
    titles = dict.fromkeys(panels, in_words(f"eval/return/agent/{NAMES[0]}"))
    figure = curves.draw(panels, titles, NAMES[0], dict.fromkeys(NAMES[:3], 0.5))
    figure.set_layout_engine(None)  # it takes long, and is not asked for
    figure.savefig(tmp_path / "curves.png", dpi=10)
    assert not recwarn
    assert shown(NAMES[0]) in figure.get_suptitle()
    assert shown(NAMES[0]) in figure.axes[0].get_ylabel()
    for name, ax in zip(NAMES, figure.axes, strict=False):
        legend = ax.get_legend()
        assert legend is not None
        entries = [text.get_text() for text in legend.get_texts()]
        assert entries[1:] == [shown(reference) for reference in NAMES[:3]]
        for text, most in ((ax.get_title(loc="left"), 60), (entries[0], 28)):
            for c in shown(name) if len(shown(name)) < most else f"{name[:9]}…{name[-9:]}":
                assert c in text or f"\\U{ord(c):08x}" in text or f"\\u{ord(c):04x}" in text
        assert not any(text.get_parse_math() for text in legend.get_texts())
        assert not ax.title.get_parse_math()


def test_long_names_leave_room_for_the_curves(tmp_path, recwarn):
    name = NAMES[-1]
    figure = curves.draw({name: [a_curve(name)]}, {name: in_words(name)}, name, {name: 0.5})
    figure.savefig(tmp_path / "curves.png", dpi=20)
    width, _ = figure.get_size_inches()
    assert figure.axes[0].get_position().width * width > 2.5
    assert not recwarn


def test_plots_of_names_differ_from_formulas():
    def pixels(label):
        figure = curves.draw({"e": [a_curve(label)]}, {"e": "y"})
        figure.savefig(file := io.BytesIO(), format="png", dpi=60)
        return np.asarray(Image.open(file))

    # Read as a formula both are an italic b.
    assert (pixels("a$b$") != pixels("a$ b$")).any()
    assert (pixels("_hidden") != pixels("_hiddem")).any()


def a_recording(name):
    scene = Scene((Label(0.5, 0.5, name, 0.2),), 1, 1)
    frames = (
        Frame(scene, (), (0.0,), (0.0,)),
        Frame(scene, (name,), (1.0,), (1.0,), "terminated"),
    )
    return Recording(f"vdn on {name}", (name,), (frames,))


def test_films_show_names():
    blank = a_recording("")
    plain = np.asarray(picture(blank, blank.episodes[0][1], "step 1"))
    for name in NAMES:
        recording = a_recording(name)
        image = picture(recording, recording.episodes[0][1], "step 1")
        assert (np.asarray(image) != plain).any()
        game = MatrixGame([[1, 2], [3, 0]], agents=(name, "other"), actions=(name, "B"))
        state, _ = game.reset(jax.random.key(0))
        scene = game.scene(state)
        assert scene.width / scene.height < 10
        labels = [shape.text for shape in scene.shapes if isinstance(shape, Label)]
        assert labels.count(clipped(shown(name), 24)) == 3


# Pages -------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """What a page's reader sees, and what it holds."""

    def __init__(self):
        super().__init__()
        self.text, self.scripts, self.tags, self.inside = "", [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag
        assert not [a for a, _ in attrs if a.startswith("on")]

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside != "style":
            self.text += data


def test_pages_show_names(tmp_path):
    for name in NAMES:
        blocks = [
            Paragraphs(f"**{quoted(name)}** and {quoted(name)}"),
            Table(("run",), [[quoted(name)]], quoted(name)),
            Matrix([[1.0]], [name], [name], texts=[[name]], agents=(name, name)),
            Command(name), Settings({name: name}, name), Viewer(a_recording(name)),
        ]  # fmt: skip
        out = write_report(tmp_path / "p.html", name, [Section(quoted(name), blocks)], quoted(name))
        text = out.read_text(encoding="utf-8")
        assert harmless(text)
        reader = Reader()
        reader.feed(text)
        assert reader.text.count(shown(name)) >= 16
        data = json.loads(reader.scripts[0])
        assert data["agents"] == [shown(name)]
        assert reader.tags.count("script") == 2
        assert "img" not in reader.tags


def test_quoting_takes_the_meaning_from_every_text():
    assert inline("a `b*` **c** \\ d") == "a <code>b*</code> <strong>c</strong> \\ d"
    for text in map("".join, itertools.product("\\`*a", repeat=5)):
        assert inline(quoted(text)) == text
        assert inline(f"**{quoted(text)}**") == f"<strong>{text}</strong>"
    for hard in ("\\", "`\\", "**", "**a", "*"):  # no text takes long to read
        assert len(inline(3000 * hard)) >= 1500 * len(hard)


# From the file to the eye ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a payoff file whose players and actions have all those names, and its path, too."""
    folder = tmp_path_factory.mktemp("names")
    names = ["\x1b[2J[/blue] $x$ *y* `z`", *NAMES][:30]
    payoffs: object = 1.0
    for _ in names:
        payoffs = [payoffs]
    file = folder / "[b]pay$off\u202e\x1b[1m*s*.json"
    table = {"players": names, "actions": [[name] for name in names], "payoffs": payoffs}
    file.write_text(json.dumps(table))
    out = folder / "run[/dim]$\x9b*x*"
    line_ = ["train", "ippo", f"matrix/{file}", "--steps", "64", "--environments", "4", "--hidden",
             "8", "--evaluations", "1", "--final-episodes", "4"]  # fmt: skip
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", said)
        patch.setattr(sys, "stderr", said)
        assert main([*line_, "--out", str(out)]) == 0
    return out, names, said.getvalue()


def test_what_training_prints(run):
    out, _, said = run
    assert harmless(said)
    assert "return per agent (mean), sampled" in said
    assert "[/dim]" in said
    assert shown(f"kept in '{out}'") in said


@pytest.mark.parametrize("command", ["evaluate", "watch", "plot", "report", "html"])
def test_what_is_made_of_a_run(run, tmp_path, capsys, command):
    path, names, _ = run
    file = tmp_path / ("x\x1b[1m" + {"watch": ".gif", "plot": ".png"}.get(command, ".html"))
    line_ = [command if command != "html" else "watch", str(path)]
    line_ += [] if command == "evaluate" else ["--out", str(file)]
    one = ["--metric", f"eval/return/agent/{names[0]}"]
    line_ += one if command in ("plot", "evaluate") else []
    assert main(line_) == 0
    out, err = capsys.readouterr()
    assert harmless(out)
    assert err == ""
    if command == "evaluate":
        assert f"return of {shown(names[0])}, greedy " in out
    else:
        assert out == shown(f"{file}") + "\n"
    if command in ("report", "html"):
        page = file.read_text(encoding="utf-8")
        assert harmless(page)
        reader = Reader()
        reader.feed(page)
        data = next(json.loads(s) for s in reader.scripts if '"episodes"' in s)
        assert data["agents"] == [shown(name) for name in names]
        assert shown("[b]pay$off\u202e\x1b[1m*s*.json") in reader.text

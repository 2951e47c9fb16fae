"""Pages: what they say, that nothing in them is obeyed, and how they behave in a browser."""

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from quick import quick_compilation
from sealing import evaluations, logged, rewrite

from coterie import UsageError
from coterie.cli.entry import main
from coterie.envs.scene import Circle, Label, Line, Polygon, Rect, Scene
from coterie.errors import DamagedFile
from coterie.show.curves import Curve
from coterie.show.film.recording import Frame, Recording
from coterie.show.numbers import decimals, written
from coterie.show.report.blocks import (
    Command,
    Curves,
    Grid,
    Matrix,
    Section,
    Settings,
    Table,
    Text,
    Viewer,
)
from coterie.show.report.html import inline, render
from coterie.show.report.of_runs import Source, report
from coterie.show.report.page import write_report

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>`**'


def curve(label, values, seeds=5, spread=1.0):
    mean = np.asarray(values, float)
    wide = np.full_like(mean, spread if seeds > 1 else np.nan)
    samples = mean + spread * np.linspace(-1, 1, seeds)[:, None] if seeds > 1 else mean[None]
    return Curve(label, 1000.0 * np.arange(len(mean)), mean, mean - wide, mean + wide, samples)


def recording(steps=5, agents=("speaker_0", EVIL), title="mappo on mpe"):
    frames = []
    for t in range(steps + 1):
        shapes = (
            Rect(0, 0, 10, 10, "board"), Line(5, 5, 5 + t, 5, "ink", 0.1, head=True),
            Circle(t, 5, 0.5, "agent"), Polygon((1, 1, 2, 1, 1, 2), "food"),
            Circle(8, 8, 1, "goal", 0.2), Label(5, 9, EVIL if t == 2 else f"t{t}", 1),
        )  # fmt: skip
        actions = () if t == 0 else ("says 2", f"go {t}")
        rewards = (0.0, 0.0) if t == 0 else (-0.25, 1.0)
        end = "truncated" if t == steps else None
        frames.append(Frame(Scene(shapes, 10, 10), actions, rewards, (-0.25 * t, 1.0 * t), end))
    return Recording(title, agents, (tuple(frames), tuple(frames[:3])))


def everything():
    """A page with every kind of block, in sections of every verdict."""
    rows = [["vdn", 2.5, 10, "a9"], ["qmix", -11.25, None, "a10"], [EVIL, 100.0, 9, None]]
    lines = [curve("mappo", np.linspace(-300, -7, 21)), curve(EVIL, np.linspace(-90, -15, 21), 1)]
    payoffs = Matrix(
        [[11, -30, 0], [-30, 7, 0], [0, 6, 5]], "ABC", "ABC", title="Climbing",
        notes=[["20 of 20 seeds", "", ""], ["", "Nash", ""], ["", "", "Nash"]], marked={(0, 0)},
        scale="diverging", caption="Payoffs.",
    )  # fmt: skip
    sums = Matrix(
        np.array([[-2.43, 2.51], [2.6, 7.53]]), "AB", ("A", EVIL), row_values=[-2.6, 2.43],
        column_values=np.array([0.17, 5.1]),
    )  # fmt: skip
    settings = Settings({"lr": 1e-3, EVIL: {"a": EVIL}})
    return [
        Section(
            "Learning",
            [
                Text(f"One `code` and **bold**.\n\nSecond, {EVIL}"),
                Curves(
                    {"speaker-listener": lines}, "return", {"book": -31.4, EVIL: -37.7}, "Both."
                ),
                Table(("name", "mean", "seeds", "label"), rows, "Final returns."),
            ],
            "passed",
            "As published.",
        ),
        Section("Tables", [Grid([payoffs, sums], 2)], "failed", EVIL),
        Section("Tables", [Viewer(recording(), "An episode.")], "not run"),
        Section(EVIL, [Command(f"coterie train {EVIL}", "How."), settings]),
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "deep" / "report.html"
    return write_report(out, f"The lecture {EVIL}", everything(), "By one command.", {"Made": EVIL})


# The text ----------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Collects elements, their attributes, and the text of each script."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.ids = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def parsed(page):
    reader = Reader()
    reader.feed(page.read_text())
    return reader


def test_nothing_given_is_obeyed(parsed):
    assert "img" not in parsed.tags
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    *data, own = parsed.scripts
    assert len(data) == 2
    assert EVIL in json.dumps([json.loads(text) for text in data]).replace('\\"', '"')
    assert "alert" not in own


def test_nothing_is_fetched(parsed):
    assert not {"iframe", "object", "base", "img"} & set(parsed.tags)
    links = [v for name, v in parsed.attributes if name in ("src", "href")]
    assert all(v.startswith(("#", "data:,")) for v in links)
    assert ("http-equiv", "Content-Security-Policy") in parsed.attributes


def test_contents_lead_to_sections_with_verdicts(page, parsed):
    links = [v[1:] for name, v in parsed.attributes if name == "href" and v.startswith("#")]
    assert links[:3] == ["learning", "tables", "tables-2"]
    assert len(set(links)) == 4
    assert set(links) <= set(parsed.ids)
    contents = page.read_text().split("<nav")[1].split("</nav>")[0]
    for sign, word in (("✓", "passed"), ("✗", "failed"), ("○", "not run")):
        assert f"<i>{sign}</i> {word}" in contents


def test_a_single_section_needs_no_contents(tmp_path):
    out = write_report(tmp_path / "x.html", "One", [Section("Only", [Text("text")])])
    assert "<nav" not in out.read_text()


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a < b & c", "a &lt; b &amp; c"),
        ("`x<y` **b**", "<code>x&lt;y</code> <strong>b</strong>"),
        ("`**x**`", "<code>**x**</code>"),
        ("2 ** 3 and a ` b", "2 ** 3 and a ` b"),
    ],
)
def test_inline_text(text, html):
    assert inline(text) == html


@pytest.mark.parametrize(
    ("x", "places", "text"),
    [(-1234567.0, 0, "−1,234,567"), (-0.001, 2, "0.00"), (float("nan"), 2, "–"), (7.5, 1, "7.5")],
)
def test_numbers(x, places, text):
    assert written(x, places) == text


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([1.0, -30.0], 0),
        ([0.5, 0.25], 3),
        ([12.5, 1.0], 2),
        ([-100, 2.5], 1),
        ([0.001], 3),
        ([], 0),
    ],
)
def test_columns_have_about_four_digits(values, places):
    assert decimals(values) == places


def test_matrices_colour_by_size_or_by_sign():
    def cells(**more):
        found = render(Matrix([[-4, 0], [2, float("nan")]], "ab", "cd", **more))
        return re.findall(r'<td(?: class="(.*?)")? style="--t:(.*?)">([^<]*)', found)

    assert cells(scale="diverging", marked={(0, 1)}) == [
        ("below", "1.000", "−4"), ("marked", "0.000", "0"), ("", "0.500", "2"), ("", "0.000", "–")
    ]  # fmt: skip
    assert [t for _, t, _ in cells()] == ["0.000", "0.667", "1.000", "0.000"]


def test_a_matrix_shows_pairs_and_who_chooses_and_a_scale_of_others():
    shown = render(
        Matrix([[2, 1]], "a", "xy", texts=[["4, <0>", "1, 1"]], agents=("row & co", "column"))
    )
    assert re.findall(r"--t:.*?>([^<]*)<", shown) == ["4, &lt;0&gt;", "1, 1"]
    assert shown.index("column →") < shown.index("row &amp; co ↓")
    scaled = render(Matrix([[-1, 0.5], [4, 2]], "ab", "cd", scale="diverging", full=2))
    assert re.findall('--t:(.*?)"', scaled) == ["0.500", "0.250", "1.000", "1.000"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Table(("a", "b"), [[1, 2], [3]]), "row 1 has 1 cells, the table 2 columns"),
        (lambda: Matrix([[1, 2]], "a", "b"), "values must be 1 by 1, as the labels are"),
        (lambda: Matrix([[1]], "a", "b", notes=[["", ""]]), "notes must be 1 by 1"),
        (lambda: Matrix([[1]], "a", "b", texts=[["", ""]]), "texts must be 1 by 1"),
        (lambda: Matrix([[1]], "a", "b", row_values=[1, 2]), "row_values must be 1 numbers"),
        (lambda: write_report(Path("x.pdf"), "x", []), "x.pdf must be a file that ends in .html"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()


# In a browser ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(390, 844), (1400, 900), (360, 740)], ids=str)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_opens_quietly_and_fits(page, visit, tmp_path, size, scheme):
    shown = visit(page, size, scheme)
    shown.screenshot(path=tmp_path / "page.png", full_page=True)
    assert shown.complaints == []
    assert shown.requests == [page.as_uri()]
    assert shown.evaluate("document.documentElement.scrollWidth") <= size[0]
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = sum(map(int, re.findall(r"\d+", ground)[:3]))
    assert lightness > 700 if scheme == "light" else lightness < 100


def test_text_can_be_read_on_its_ground(page, visit):
    """Contrast of text and of heat-map cells is at least 4.5, in light and dark."""
    measure = """() => {
      const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
      const rgb = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c;
        canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
      const light = (c) => { const [r, g, b] = rgb(c).slice(0, 3).map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const ground = (e) => { for (; e; e = e.parentElement) {
        const c = getComputedStyle(e).backgroundColor; if (rgb(c)[3] === 255) return c; } };
      const texts = 'p, td, th, dt, dd, code, figcaption, h1, h2, h4, small, b, .verdict, span';
      return [...document.querySelectorAll(texts)].filter((e) => e.textContent.trim()).map((e) => {
        const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 80)]; })
        .filter(([c]) => c < 4.5); }"""
    for scheme in ("light", "dark"):
        assert visit(page, scheme=scheme).evaluate(measure) == []


def column(shown, k):
    return shown.locator(f"table.sortable tbody tr td:nth-child({k})").all_inner_texts()


def test_tables_sort_by_click_and_by_keyboard(page, visit):
    shown = visit(page)
    heads = shown.locator("table.sortable th")
    heads.nth(1).locator("button").click()
    assert column(shown, 2) == ["−11.2", "2.5", "100.0"]
    assert heads.nth(1).get_attribute("aria-sort") == "ascending"
    heads.nth(1).locator("button").press("Enter")
    assert column(shown, 1)[1:] == ["vdn", "qmix"]
    assert heads.nth(1).get_attribute("aria-sort") == "descending"
    heads.nth(2).locator("button").press("Space")
    assert column(shown, 3) == ["9", "10", "–"]
    heads.nth(2).locator("button").press("Space")
    assert column(shown, 3) == ["10", "9", "–"]
    heads.nth(3).locator("button").click()
    assert column(shown, 4) == ["a9", "a10", "–"]
    assert heads.nth(2).get_attribute("aria-sort") is None


def test_curves_show_values_under_the_pointer_and_by_keyboard(page, visit):
    shown = visit(page)
    plot, key = shown.locator(".plot > svg"), shown.locator(".plot .key")
    assert key.locator(".at").inner_text() == "at the end: mean and 95% interval over seeds"
    assert key.locator("b").all_inner_texts() == ["−7.000", "−15.00"]
    assert "5 seeds" in key.inner_text()
    assert "−8.000 to −6.000" in key.inner_text()
    assert "1 seed" in key.inner_text()
    box = plot.bounding_box()
    shown.mouse.move(box["x"] + 51, box["y"] + 100)
    assert key.locator(".at").inner_text() == "at 0 steps: mean and 95% interval over seeds"
    assert key.locator("b").all_inner_texts() == ["−90.00", "−300.0"]
    shown.mouse.move(0, 0)
    assert key.locator(".at").inner_text() == "at the end: mean and 95% interval over seeds"
    plot.focus()
    shown.keyboard.press("ArrowLeft")
    assert key.locator(".at").inner_text() == "at 19,000 steps: mean and 95% interval over seeds"
    shown.keyboard.press("Home")
    assert key.locator(".at").inner_text() == "at 0 steps: mean and 95% interval over seeds"
    references = shown.locator(".reference text").all_text_contents()
    assert "book −31.4" in references
    assert len(references) == 2


def test_curves_are_touched_on_a_phone(page, visit):
    shown = visit(page, (390, 844))
    plot = shown.locator(".plot > svg")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    shown.touchscreen.tap(box["x"] + 52, box["y"] + 80)
    assert (
        shown.locator(".plot .key .at").inner_text()
        == "at 0 steps: mean and 95% interval over seeds"
    )


def test_the_late_part_of_curves_can_be_scaled_to(page, visit):
    shown = visit(page)

    def lowest():
        texts = shown.locator(".plot > svg > text[text-anchor=end]").all_text_contents()
        return min(float(t.replace("−", "-")) for t in texts if "steps" not in t)

    assert lowest() == -300
    shown.locator("button.focus").click()
    assert -300 < lowest() <= -200
    shown.locator("button.focus").click()
    assert lowest() == -300


def test_episodes_play_step_and_jump(page, visit):
    shown = visit(page)
    viewer = shown.locator("figure.viewer")
    step = viewer.locator(".step")

    def cells():
        return [row.split("\t") for row in viewer.locator("tbody tr").all_inner_texts()]

    assert step.inner_text() == "step 0 of 5"
    assert cells()[0] == ["speaker_0", "–", "0.00", "0.00"]
    viewer.locator("button.forward").click()
    viewer.locator("button.forward").click()
    assert step.inner_text() == "step 2 of 5"
    assert cells() == [["speaker_0", "says 2", "−0.25", "−0.50"], [EVIL, "go 2", "1.00", "2.00"]]
    assert viewer.locator("svg.scene text").text_content() == EVIL
    assert viewer.locator("svg.scene circle").first.get_attribute("cx") == "2"
    viewer.locator("button.back").click()
    assert step.inner_text() == "step 1 of 5"
    viewer.focus()
    shown.keyboard.press("End")
    assert step.inner_text() == "step 5 of 5, time is up"
    shown.keyboard.press("ArrowRight")
    assert step.inner_text() == "step 5 of 5, time is up"
    viewer.locator("input[type=range]").fill("3")
    assert step.inner_text() == "step 3 of 5"
    viewer.get_by_label("Episode", exact=True).select_option("1")
    assert step.inner_text() == "step 0 of 2"
    assert shown.complaints == []


def test_episodes_play_by_themselves_pause_and_start_again(page, visit):
    shown = visit(page)
    viewer = shown.locator("figure.viewer")
    viewer.get_by_label("Speed").select_option("4")
    viewer.get_by_label("Play", exact=True).click()
    assert viewer.get_by_label("Pause").is_visible()
    viewer.get_by_text("step 5 of 5, time is up").wait_for(timeout=5000)
    viewer.get_by_label("Play", exact=True).wait_for(timeout=2000)
    viewer.get_by_label("Speed").select_option("0.5")
    viewer.focus()
    shown.keyboard.press("Space")
    assert viewer.locator(".step").inner_text() == "step 0 of 5"
    viewer.get_by_label("Pause").click()
    assert viewer.get_by_label("Play", exact=True).is_visible()


def test_commands_are_copied_and_settings_unfold(page, visit):
    shown = visit(page)
    shown.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.locator("button.copy").click()
    shown.get_by_text("Copied", exact=True).wait_for(timeout=2000)
    assert shown.evaluate("navigator.clipboard.readText()") == f"coterie train {EVIL}"
    value = shown.locator(".settings dd").first
    assert not value.is_visible()
    shown.locator(".settings summary").press("Enter")
    assert value.is_visible()
    assert value.inner_text() == "0.001"


def test_a_page_prints_without_its_buttons(page, visit):
    shown = visit(page, scheme="dark")
    shown.emulate_media(media="print")
    assert not shown.locator(".controls").is_visible()
    assert shown.locator(".plot > svg").is_visible()
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"


# Of runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run of two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    with quick_compilation(folder / "compiled"):
        line = "train ia2c matrix/climbing --steps 400 --seeds 2 --hidden 8 --environments 4"
        more = "--rollout-steps 4 --evaluations 2 --final-episodes 8 --out"
        assert main([*line.split(), *more.split(), str(folder / "a")]) == 0
    return folder / "a"


def test_the_page_of_a_run(trained, tmp_path, capsys):
    out = tmp_path / "report.html"
    assert main(["report", str(trained), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    text = out.read_text()
    assert "Trained teams on matrix/climbing" in text
    assert text.count('class="viewer"') == text.count('class="curves"') == 1
    assert f"coterie report {trained} --out {out}" in text
    assert "coterie train ia2c matrix/climbing" in text
    assert "<dt>gae_lambda</dt>" in text
    assert "unfinished" not in text
    source = Source.read(trained)
    evaluated = evaluations(trained)
    absolute = evaluated["matrix"]["climbing"]["ia2c"]["seed_1"]["absolute_metrics"]["return"]
    assert source.metric == "eval_sampled/return/team_mean"
    assert source.per_seed[1] == pytest.approx(np.mean(absolute) / 2)  # recorded as sums
    assert "return per agent (mean), sampled" in text


@pytest.mark.parametrize("best", [0, 1])
def test_the_best_team_is_shown(trained, tmp_path, best):
    run = shutil.copytree(trained, tmp_path / "run")
    evaluated = evaluations(run)
    for k, seed in enumerate(evaluated["matrix"]["climbing"]["ia2c"].values()):
        seed["absolute_metrics"]["return"] = [7.5 if k == best else -3.0]
    rewrite(run, evaluated)
    text = report([run], tmp_path / "x.html").read_text()
    assert f"team {best}, best policy" in text


def test_an_unfinished_run_is_called_so_and_judged_by_its_last_evaluation(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    evaluated = evaluations(run)
    for seed in evaluated["matrix"]["climbing"]["ia2c"].values():
        del seed["absolute_metrics"]
    rewrite(run, evaluated, steps=10**6)
    text = report([run], tmp_path / "x.html").read_text()
    assert "ia2c (unfinished)" in text
    assert "1 run, 1 of them unfinished." in text
    last = logged(run)[-1]
    assert Source.read(run).per_seed[last["seed"]] == last["eval_sampled/return/team_mean"]
    greedy = Source.read(run, "eval/return/team_mean")
    assert greedy.per_seed[last["seed"]] == last["eval/return/team_mean"]


def test_names_of_runs_are_not_obeyed(trained, tmp_path, visit):
    runs = [shutil.copytree(trained, tmp_path / name) for name in ("<script>alert(1)", "b")]
    shown = visit(report(runs, tmp_path / "x.html"))
    assert shown.complaints == []
    assert "ia2c · <script>alert(1)" in shown.locator("table.sortable").inner_text()


def test_code_of_the_users_is_not_opened(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    rewrite(run, environment="mine:Env")
    text = report([run], tmp_path / "x.html").read_text()
    assert "needs code that is imported only if you name it" in text
    assert 'class="viewer"' not in text


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", "[]", "config.json is damaged: not a JSON object"),
        ("metrics.jsonl", "", "has no evaluations yet"),
        ("policy/policy.json", "{", "policy.json is damaged"),
    ],
)
def test_damage_is_one_sentence(trained, tmp_path, capsys, file, content, sentence):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / file).write_text(content)
    assert main(["report", str(run), "--out", str(tmp_path / "x.html")]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    ("file", "damage", "sentence"),
    [
        ("evaluations.json", lambda text: "{", "it has no digest"),
        ("evaluations.json", lambda text: text.replace("1", "2", 1), "it differs from its digest"),
        ("metrics.jsonl", lambda text: "{\n" + text, "line 1 is damaged; every good line"),
        ("metrics.jsonl", lambda text: text.replace("env_steps", "env_step5", 1), "line 1 is dam"),
    ],
)
def test_damaged_numbers_are_named_on_the_page_and_beside_it(
    trained, tmp_path, capsys, file, damage, sentence
):
    run, out = shutil.copytree(trained, tmp_path / "run"), tmp_path / "x.html"
    path = run / file
    whole = path.read_text()
    path.write_text(damage(whole))
    assert path.read_text() != whole
    assert main(["report", str(run), "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert re.fullmatch(rf"warning: {path} is damaged[^\n]*: {sentence}[^\n]*\n", said)
    assert sentence in html.unescape(out.read_text())
    source = Source.read(trained)
    with pytest.warns(DamagedFile, match=sentence):
        found = Source.read(run)
    assert (found.absolute is None) == (file == "evaluations.json")
    for seed, own in found.series.items():
        assert own.items() <= source.series[seed].items()


def test_missing_runs_and_wrong_endings_are_refused(trained, tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "there is no such directory" in capsys.readouterr().err
    assert main(["report", str(trained), "--out", "x.png"]) == 2
    assert "x.png must be a file that ends in .html" in capsys.readouterr().err
    with pytest.raises(UsageError, match="name at least one run"):
        report([], tmp_path / "x.html")

"""The site: pages made from the code say what it says, and every link leads somewhere."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "website"))

from algorithm_pages import _TABLE, algorithm_page, default, documented  # noqa: E402
from links import indexed, led  # noqa: E402
from test_docs import value_of  # noqa: E402

from coterie.algorithms import algorithms  # noqa: E402
from coterie.flags import field_docs  # noqa: E402


@pytest.mark.parametrize(("name", "cls"), algorithms().items(), ids=algorithms())
def test_an_algorithms_page_shows_each_setting_with_its_default_and_meaning(name, cls):
    page = algorithm_page(name, cls)
    assert len(_TABLE.findall(page)) == 1
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page.partition("## Settings")[2], re.M))
    settings, meanings = cls().settings(), field_docs(cls)
    for setting, value in settings.items():
        stated, meaning, _ = re.split(r" (?<!\\)\| ", rows[setting] + " ")
        assert value_of(stated, value) == value == value_of(default(value), value)
        assert meaning.replace("\\|", "|") == meanings[setting].replace("``", "`").rstrip(".")
    assert documented(cls).keys() == settings.keys()
    assert f"class {cls.__name__}" in page
    assert "```math" in page or name in ("mappo", "central_a2c")  # said in a sentence


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        ("vdn", {"train/loss", "train/epsilon"}, {"train/entropy", "train/kl"}),
        ("reinforce", {"train/entropy"}, {"train/explained_variance", "train/kl", "train/loss"}),
        ("ippo", {"train/kl", "train/explained_variance"}, {"train/epsilon"}),
    ],
)
def test_an_algorithms_page_explains_the_metrics_that_it_logs(name, there, absent):
    page = algorithm_page(name, algorithms()[name])
    explained = set(re.findall(r"`([\w/]+)`", page.partition("## Metrics")[2]))
    assert there <= explained
    assert not absent & explained


@pytest.mark.parametrize(
    ("place", "origin", "link", "led_to"),
    [
        ("docs/a.md", "docs/a.md", "b.md#c", "b.md#c"),
        ("docs/a.md", "docs/a.md", "../CONTRIBUTING.md#a", "contributing.md#a"),
        ("docs/a.md", "docs/a.md", "../examples/x.py", "SOURCE/examples/x.py"),
        ("docs/a.md", "docs/a.md", "../README.md", "SOURCE/README.md"),
        ("docs/algorithms/vdn.md", "docs/algorithms.md", "#acting", "../algorithms.md#acting"),
        ("docs/changelog.md", "CHANGELOG.md", "docs/b.md#c", "b.md#c"),
        ("docs/changelog.md", "CHANGELOG.md", "https://x.org", "https://x.org"),
        ("docs/speed.md", "benchmarks/README.md", "soak.py", "SOURCE/benchmarks/soak.py"),
    ],
)  # fmt: skip
def test_links_are_led_to_where_the_site_has_their_aim(place, origin, link, led_to):
    text = f"see [it]({link})\n\n```\n[not]({link})\n```\n"
    found = led(text, PurePosixPath(place), PurePosixPath(origin), "SOURCE")
    assert found == text.replace(f"[it]({link})", f"[it]({led_to})")


def test_indices_are_set_in_prose_alone():
    text = "r_i^t of `r_i`, see [Q_i](a_i.md)\n\n# Q_i\n\n```\nq_i\n```\n"
    text += "team_sum, a_-i, f_mix, h_i^{t+1}"
    sub, t = "<sub>i</sub>", "<sup>t</sup>"
    assert indexed(text) == (
        f"r{sub}{t} of `r_i`, see [Q{sub}](a_i.md)\n\n# Q_i\n\n```\nq_i\n```\n"
        f"team_sum, a<sub>-i</sub>, f<sub>mix</sub>, h{sub}<sup>t+1</sup>"
    )


def test_links_out_of_the_site_lead_to_files_of_the_repository():
    pytest.importorskip("mkdocs")
    import hooks

    source, led_to = hooks.source(), set()
    pages = {page.path: page.text for page in hooks.made()}
    pages |= {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
    for path, text in pages.items():
        page = SimpleNamespace(file=SimpleNamespace(src_uri=path), meta={})
        shown = hooks.on_page_markdown(text, page)
        led_to |= set(re.findall(rf"\]\({re.escape(source)}/([^)#]+)", shown))
    assert "examples/play_team.py" in led_to
    named = re.findall(rf"\]\({re.escape(source)}/([^)#]+)", (ROOT / "README.md").read_text())
    assert "CONTRIBUTING.md" in named
    assert not [path for path in (*led_to, *named) if not (ROOT / path).exists()]


def test_an_algorithms_page_is_made_of_an_installed_copy_too(tmp_path):
    shutil.copytree(ROOT / "src" / "coterie", tmp_path / "coterie")
    code = (
        "from algorithm_pages import algorithm_page; from coterie.algorithms import algorithms;"
        "print(algorithm_page('vdn', algorithms()['vdn']))"
    )
    paths = os.pathsep.join(map(str, (tmp_path, ROOT / "website")))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "`src/coterie/algorithms/vdn.py`" in done.stdout
    assert "class VDN" in done.stdout


# The site itself ---------------------------------------------------------------------------------


class Names(HTMLParser):
    """Of a page: where its links lead, what it loads, and the anchors that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        own = dict(attrs)
        if tag == "a" and "href" in own:
            self.links.add(own["href"])
        if "src" in own or (tag == "link" and own.get("rel") != "canonical"):
            self.loaded.add(own.get("src") or own["href"])
        self.anchors |= {own[name] for name in ("id", "name") if name in own}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as ``.ci/run`` builds it."""
    pytest.importorskip("material")
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    pages = {path: Names(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 40
    for path, page in pages.items():
        for target in page.links | page.loaded:
            if re.match("(https?|mailto|data|javascript):", target):
                assert target in page.links, f"{path.name} loads {target}"
                continue
            file, anchor = urldefrag(target)
            aim = (path.parent / unquote(file)).resolve() if file else path
            assert aim.is_file(), f"{path.name}: {target}"
            if aim in pages:
                assert unquote(anchor) in pages[aim].anchors, f"{path.name}: {target}"
    for sheet in (site / "assets").rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.slow
def test_the_site_works_without_a_server(site, visit):
    """Formulas are set, search finds, and nothing is wider than a telephone."""
    for name in ("index", "algorithms/qmix", "api", "glossary", "commands", "presets"):
        shown = visit(site / f"{name}.html", (390, 844))
        assert shown.evaluate("document.documentElement.scrollWidth") == 390, name
        assert not shown.complaints
    shown = visit(site / "algorithms" / "qmix.html")
    assert shown.locator(".katex").count() >= 1
    assert shown.locator(".katex-error").count() == 0
    shown.locator("input.md-search__input").fill("monotonic")
    shown.locator(".md-search-result__link").first.wait_for(timeout=20_000)
    assert "monotonic" in shown.locator(".md-search-result__list").inner_text().lower()
    assert all(address.startswith("file:") for address in shown.requests)
    assert not shown.complaints

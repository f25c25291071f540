"""The pages of `mdp report` and `mdp taxonomy` in a real browser: silent, whole, readable, right under the pointer."""

import base64
import io
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mdp.io.errors import Diverged
from mdp.io.evaluation.job import run_evaluation
from mdp.io.report.job import run_report
from mdp.io.studies.taxonomy import run_taxonomy
from mdp.io.studies.taxonomy_page import page as page_of
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.browsing import Visit, chromium, eventually, stand, visit
from tests.conftest import ROOT
from tests.small_runs import request
from tests.test_atlas import ideal_run, small_run
from tests.test_report import train, write_run

REPORTS = ("pretraining", "scored", "several", "diverged", "long")
ATLASES = ("atlas", "atlas of a world", "atlas of few steps")
KEPT = {path.name: path for path in sorted((ROOT / "docs").glob("*.html"))}  # pages that are part of the project
KNOWN = {  # charts by their titles: the record's kind, the number's name, factor
    "Loss": ("train", "loss", 1.0),
    "Learning rate": ("train", "lr", 1.0),
    "Throughput": ("train", "images_per_second", 1.0),
    "Waiting for data": ("train", "data_wait", 100.0),
    "Mean cosine between prototypes": ("validate", "prototype_cosine", 1.0),
    "Effective rank of the prototypes": ("validate", "prototype_rank", 1.0),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def files(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages, by name; made only where there is a browser to open them."""
    home = tmp_path_factory.mktemp("pages")
    pretrained = run_pretraining(request(("pretrain.validate_epochs", 1), out=home / "pretrained"))
    other = run_pretraining(request(("pretrain.lr", 0.003), ("pretrain.steps", 3), out=home / "other"))
    tuned = run_finetuning(request(out=home / "tuned", init=str(pretrained)))
    run_evaluation(request(init=str(tuned)), "last", False, gallery=5)
    with pytest.raises(Diverged):
        run_pretraining(request(("pretrain.lr", 1e30), out=home / "wild"))
    long = write_run(home / "long", [train(step, loss=50.0 if step == 777 else 1 / step) for step in range(1, 2001)])
    runs = {
        "pretraining": [pretrained],
        "scored": [tuned],
        "several": [pretrained, other, tuned],
        "diverged": [home / "wild"],
        "long": [long],
    }
    pages = {name: run_report(folders, home / f"{name}.html") for name, folders in runs.items()}
    sources = {"atlas": small_run, "atlas of a world": ideal_run, "atlas of few steps": lambda folder: pretrained}
    for name, source in sources.items():
        pages[name] = run_taxonomy(source(home / f"{name} run"), home / name, False)[1] / "taxonomy.html"
    return {**pages, **KEPT}


def records(page: Path, run: str) -> list[dict[str, Any]]:
    """What a run whose report this is wrote down."""
    return [json.loads(line) for line in (page.parent / run / "metrics.jsonl").read_text().splitlines()]


# Every page


@pytest.mark.parametrize("name", [*REPORTS, *ATLASES, *KEPT])
def test_a_page_is_whole_and_readable_at_every_width_in_both_colours_and_printed(
    browser: Any, files: dict[str, Path], name: str
) -> None:
    with visit(browser, files[name]) as opened:
        grounds = {}
        for media, width in (("screen", 1280), ("screen", 390), ("print", 794)):
            for scheme in ("light", "dark"):
                stand(opened, width, scheme, media)
                assert opened.audit() == [], f"{media}, {width} px, {scheme}"
                grounds[media, scheme] = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert grounds["screen", "light"] != grounds["screen", "dark"]
        opened.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        for width in (1280, 390):
            stand(opened, width, "light")
            assert opened.audit() == [], f"everything open, {width} px"


@pytest.mark.parametrize("name", ["scored", "atlas"])
def test_a_page_can_be_printed_from_dark_on_white_without_what_only_a_screen_needs(
    browser: Any, files: dict[str, Path], name: str
) -> None:
    with visit(browser, files[name], scheme="dark") as opened:
        printed = opened.page.pdf(format="A4")
        assert printed.startswith(b"%PDF")
        assert 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 12
        stand(opened, 794, "dark", "print")
        assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not any(part.is_visible() for part in opened.page.locator("nav, input").all())
        assert opened.faults == []


@pytest.mark.parametrize("name", ["several", "diverged", "atlas"])
def test_tab_reaches_everything_that_can_be_used_and_shows_where_it_is(
    browser: Any, files: dict[str, Path], name: str
) -> None:
    with visit(browser, files[name]) as opened:
        page = opened.page
        usable = page.evaluate(
            "[...document.querySelectorAll('a[href], input, summary, [tabindex]')].filter(e => e.checkVisibility())"
            ".length"
        )
        seen = set()
        for _ in range(usable):
            page.keyboard.press("Tab")
            place, style, width = page.evaluate("""() => {
                const on = document.activeElement, style = getComputedStyle(on);
                const place = [...document.querySelectorAll("*")].indexOf(on);
                return [place, style.outlineStyle, parseFloat(style.outlineWidth)];
            }""")
            assert style == "solid", place
            assert width >= 2
            seen.add(place)
        assert len(seen) == usable > 3


# Setting up


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.skipif(shutil.which("timeout") is None, reason="the script installs with timeout only, which is not here")
@pytest.mark.parametrize(
    ("apt", "said"),
    [
        (None, ["no Chromium here, and none could be installed: the tests that open pages will be skipped"]),
        ("exit 100", ["installing Chromium for the tests that open pages", "no Chromium here, and none"]),
        ('case "$*" in *only*) ;; *install*) touch {there};; esac', ["installing Chromium for the tests"]),
    ],
)
def test_setting_up_installs_a_browser_where_it_can_and_never_fails(
    tmp_path: Path, apt: str | None, said: list[str]
) -> None:
    bin_folder, there = tmp_path / "bin", tmp_path / "installed"
    program(bin_folder, "chromium", f"test -e {there} && echo Chromium 150")
    program(bin_folder, "id", "echo 0")
    for name in ("grep", "timeout"):
        (bin_folder / name).symlink_to(str(shutil.which(name)))
    if apt is not None:
        program(bin_folder, "apt-get", apt.replace("{there}", str(there)))
        (bin_folder / "touch").symlink_to(str(shutil.which("touch")))
    script = ["/bin/sh", str(ROOT / "tests" / "browser.sh")]
    for lines in (said, [] if apt and "touch" in apt else said):  # the second time there may be one
        done = subprocess.run(script, env={"PATH": str(bin_folder)}, capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) == len(lines)
        assert all(line in done.stdout for line in lines)


# Faults that the checks must see

FAULTS = {
    "asks for https://example.org": "new Image().src = 'https://example.org/x.png'",
    "console: ": "console.warn('beware')",
    "script: ": "setTimeout(() => { throw Error('broken'); })",
    "px wide in a window of": "document.body.insertAdjacentHTML('beforeend', '<div style=\"width:3000px\">x</div>')",
    "not decoded": "document.body.insertAdjacentHTML('beforeend', '<img alt=x src=\"data:image/png;base64,eA\">')",
    "no words for those": "document.body.insertAdjacentHTML('beforeend', '<img>')",
    "an empty path": "document.querySelector('.line').setAttribute('d', 'MNaN NaNLNaN NaN')",
    "a path leaves the picture": "document.querySelector('figure .line').setAttribute('d', 'M40 20L900 20')",
    "nothing is drawn": "document.querySelector('figure svg').replaceChildren()",
    "no curve": "document.querySelectorAll('figure [data-values]').forEach(curve => curve.remove())",
    "a curve without a colour": "document.querySelector('figure .line').removeAttribute('class')",
    "leaves the picture": "document.querySelector('figure text').setAttribute('x', 2)",
    "stand over each other": "document.querySelectorAll('figure text')[1].setAttribute('y', 15)",
    "has no size": "document.querySelector('figure svg').style.height = 0",
    "hard to read": "document.querySelector('h2').style.color = '#aaa'",
}


@pytest.mark.parametrize("seen", FAULTS)
def test_a_fault_that_is_put_into_a_page_is_seen(
    browser: Any, files: dict[str, Path], tmp_path: Path, seen: str
) -> None:
    loose = files["pretraining"].read_text().replace('http-equiv="Content-Security-Policy"', "")
    (tmp_path / "page.html").write_text(loose)
    with visit(browser, tmp_path / "page.html") as opened:
        assert opened.audit() == []
        opened.page.evaluate(FAULTS[seen])
        eventually(opened.page, lambda: any(seen in fault for fault in opened.audit()), seen)


def test_the_policy_of_a_page_keeps_foreign_pictures_and_scripts_out(browser: Any, files: dict[str, Path]) -> None:
    script = "document.head.append(Object.assign(document.createElement('script'), {src: 'https://example.org/x.js'}))"
    for name in ("pretraining", "atlas"):
        with visit(browser, files[name]) as opened:
            reasons: list[str] = []
            opened.page.on("requestfailed", lambda request, reasons=reasons: reasons.append(request.failure))
            opened.page.evaluate(f"new Image().src = 'https://example.org/x.png'; {script}")
            eventually(opened.page, lambda reasons=reasons: len(reasons) >= 2, "the end of both requests")
            assert reasons == ["csp", "csp"]


# Reading values off the charts

VERTICES = """svg => [...svg.querySelectorAll('path[data-values]')].slice(0, 1).flatMap(line =>
    line.getAttribute('d').slice(1).split('L').map(pair => {
      const [x, y] = pair.split(' ').map(Number);
      const place = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
      return [place.x, place.y];
    }))"""


def read(output: str) -> dict[str, tuple[int, float]]:
    """Step and value of each line, as the words under a chart tell them."""
    found = {}
    for line in output.splitlines():
        name, value, step = re.fullmatch(r"(.*): (\S+) at step (\S+)", line).groups()  # type: ignore[union-attr]
        found[name] = (int(step), float(value))
    return found


def charts(opened: Visit) -> dict[str, Any]:
    """All charts that are to be seen, by title."""
    found = [figure for figure in opened.page.locator("figure:has(svg[data-plot])").all() if figure.is_visible()]
    return {figure.locator("h3").inner_text(): figure for figure in found}


def recorded(page: Path, run: str, title: str) -> dict[int, float]:
    kind, name, factor = KNOWN[title]
    return {
        record["step"]: factor * record[name]
        for record in records(page, run)
        if record["kind"] == kind and record.get(name) is not None
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pointing_at_a_point_of_a_curve_tells_what_the_run_wrote_down(
    browser: Any, files: dict[str, Path], scheme: str
) -> None:
    file = files["pretraining"]
    with visit(browser, file, 1280 if scheme == "light" else 390, scheme) as opened:
        found = charts(opened)
        assert len(set(found) & set(KNOWN)) >= 5
        for title, figure in found.items():
            figure.scroll_into_view_if_needed()
            output = figure.locator("output")
            assert output.inner_text() == ""
            vertices = figure.locator("svg[data-plot]").evaluate(VERTICES)
            if title in KNOWN:
                truth = recorded(file, "pretrained", title)
                assert len(vertices) in (len(truth), 0)  # of a single value there is a dot and no curve
                for (x, y), (step, value) in zip(vertices, truth.items(), strict=False):
                    opened.page.mouse.move(x, y)
                    ((at, told),) = read(output.inner_text()).values()
                    assert (at, told) == (step, pytest.approx(value, rel=1e-4)), title
            else:
                figure.locator("svg[data-plot]").hover()
                assert read(output.inner_text()), title
            opened.page.mouse.move(1, 1)
            assert output.inner_text() == "", title
        assert opened.faults == []


def test_arrow_keys_walk_along_what_was_written_down_and_escape_ends_it(browser: Any, files: dict[str, Path]) -> None:
    file = files["pretraining"]
    truth = list(recorded(file, "pretrained", "Loss").items())
    with visit(browser, file) as opened:
        chart = charts(opened)["Loss"]
        chart.locator("svg[data-plot]").focus()

        def told_after(key: str) -> Any:
            opened.page.keyboard.press(key)
            words = read(chart.locator("output").inner_text())
            return next(iter(words.values())) if words else None

        for step, value in truth:
            assert told_after("ArrowRight") == (step, pytest.approx(value, rel=1e-4))
        assert told_after("ArrowRight")[0] == truth[-1][0]
        assert told_after("ArrowLeft") == (truth[-2][0], pytest.approx(truth[-2][1], rel=1e-4))
        assert told_after("Escape") is None
        told_after("ArrowLeft")
        opened.page.keyboard.press("Tab")
        assert chart.locator("output").inner_text() == ""


def test_of_several_runs_each_tells_its_own_value(browser: Any, files: dict[str, Path]) -> None:
    file = files["several"]
    with visit(browser, file) as opened:
        chart = charts(opened)["Learning rate"]
        chart.scroll_into_view_if_needed()
        x, y = chart.locator("svg[data-plot]").evaluate(VERTICES)[1]
        opened.page.mouse.move(x, y)
        words = read(chart.locator("output").inner_text())
        assert words.keys() == {"pretrained", "other", "tuned"}
        for run, (step, value) in words.items():
            assert (step, value) == (2, pytest.approx(recorded(file, run, "Learning rate")[2], rel=1e-4))
        looks = chart.locator("svg[data-plot] [data-values]").evaluate_all(
            "lines => lines.map(line => [getComputedStyle(line).stroke, line.getAttribute('stroke-dasharray')].join())"
        )
        assert len(set(looks)) == 3


def test_the_spike_of_a_long_run_is_seen_and_can_be_pointed_at(browser: Any, files: dict[str, Path]) -> None:
    with visit(browser, files["long"]) as opened:
        chart = charts(opened)["Loss"]
        chart.scroll_into_view_if_needed()
        vertices = chart.locator("svg[data-plot]").evaluate(VERTICES)
        assert 100 < len(vertices) < 2000
        x, y = min(vertices, key=lambda vertex: vertex[1])
        opened.page.mouse.move(x, y)
        assert list(read(chart.locator("output").inner_text()).values()) == [(777, 50.0)]


def test_links_at_the_top_lead_to_their_parts(browser: Any, files: dict[str, Path]) -> None:
    with visit(browser, files["scored"], 390) as opened:
        links = opened.page.locator("nav a").all()
        assert len(links) >= 5
        for link in links:
            part = opened.page.locator(str(link.get_attribute("href")))
            link.click()
            top = part.bounding_box()["y"]
            at_the_end = opened.page.evaluate("scrollY + innerHeight >= document.documentElement.scrollHeight - 2")
            assert abs(top) < 30 or at_the_end, link.inner_text()
            opened.page.evaluate("scrollTo(0, 0)")


@pytest.mark.parametrize("name", ["pretraining", "scored", "diverged"])
def test_samples_and_predictions_are_pictures_that_fit_the_page(
    browser: Any, files: dict[str, Path], name: str
) -> None:
    with visit(browser, files[name], 390) as opened:
        opened.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        sizes = opened.page.locator("img").evaluate_all(
            "images => images.map(i => [i.naturalWidth, i.naturalHeight, i.clientWidth, i.clientHeight])"
        )
        assert sizes
        for width, height, shown_width, shown_height in sizes:
            assert width > 60
            assert height > 30
            assert shown_width / shown_height == pytest.approx(width / height, rel=0.03)  # not squeezed
        assert opened.audit() == []


# The atlas


def told_facts(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((page.parent / "taxonomy.json").read_text())
    return found


def pixels(opened: Visit) -> list[int]:
    """Red, green, blue and alpha of every cell of the map, one after the other."""
    found: list[int] = opened.page.evaluate("""() => {
        const map = document.querySelector("canvas");
        const copy = new OffscreenCanvas(map.width, map.height).getContext("2d");
        copy.drawImage(map, 0, 0);
        return [...copy.getImageData(0, 0, map.width, map.height).data];
    }""")
    return found


def pairs_shown(opened: Visit) -> list[tuple[str, str]]:
    rows = [row for row in opened.page.locator("#pairs tr").all() if row.is_visible()]
    return [tuple(cell.inner_text() for cell in row.locator("th").all()) for row in rows]  # type: ignore[misc]


@pytest.mark.parametrize(("name", "width"), [("atlas", 390), ("atlas of a world", 1280)])
def test_a_search_leaves_the_pairs_of_what_is_typed(
    browser: Any, files: dict[str, Path], name: str, width: int
) -> None:
    facts = told_facts(files[name])
    everything = [(pair["first"], pair["second"]) for pair in facts["pairs"]]
    hostile, world = ["sky", "A/", "</script><b>&", "nowhere"], ["shapes-coarse/wall", "DISC", "shapes-fine"]
    with visit(browser, files[name], width) as opened:
        assert pairs_shown(opened) == everything
        for word in hostile if name == "atlas" else world:
            opened.page.locator("#search").fill(word)
            expected = [pair for pair in everything if any(word.lower() in name.lower() for name in pair)]
            classes = sum(word.lower() in name.lower() for name in facts["order"])
            assert pairs_shown(opened) == expected, word
            assert (
                opened.page.locator("#count").inner_text() == f"pairs: {len(expected)}, classes on the map: {classes}"
            )
            count = len(facts["order"])
            assert (
                pixels(opened)[3::4].count(255) == count**2 - (count - classes) ** 2
            )  # rows and columns of what was found
            assert opened.audit() == []
        opened.page.locator("#search").fill("")
        assert pairs_shown(opened) == everything


def test_the_map_stands_in_the_order_of_the_clusters_with_the_similarities_of_the_files(
    browser: Any, files: dict[str, Path]
) -> None:
    file = files["atlas of a world"]
    facts = told_facts(file)
    place = {name: number for number, name in enumerate(facts["crops"])}
    order = facts["order"]
    draws = random.Random(0)
    with visit(browser, file) as opened:
        assert opened.page.locator("#names span").all_inner_texts() == order
        canvas = opened.page.locator("canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        rows = [name.bounding_box() for name in opened.page.locator("#names span").all()]
        for _ in range(25):
            row, column = draws.randrange(len(order)), draws.randrange(len(order))
            level = box["y"] + box["height"] * (row + 0.5) / len(order)
            opened.page.mouse.move(box["x"] + box["width"] * (column + 0.5) / len(order), level)
            said = opened.page.locator("#said").inner_text()
            value = facts["similarity"][place[order[row]]][place[order[column]]]
            names, told = said.rsplit(": ", 1)
            assert names == f"{order[row]} (40 crops) and {order[column]} (40 crops)"
            assert float(told) == pytest.approx(value, abs=0.0051)
            assert rows[row]["y"] <= level <= rows[row]["y"] + rows[row]["height"]  # beside its name
            nearest = [float(item.rsplit(": ", 1)[1]) for item in opened.page.locator("#near li").all_inner_texts()]
            assert nearest == sorted(nearest, reverse=True)
            assert len(nearest) == 6
        assert opened.faults == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_map_is_walked_by_keys_and_enter_searches_the_row(browser: Any, files: dict[str, Path], width: int) -> None:
    order = told_facts(files["atlas"])["order"]
    with visit(browser, files["atlas"], width) as opened:
        opened.page.locator("canvas").focus()
        walk = [("ArrowDown", 1, 0), ("ArrowDown", 2, 0), ("ArrowRight", 2, 1), ("End", 2, len(order) - 1),
                ("ArrowRight", 2, len(order) - 1), ("Home", 2, 0), ("ArrowUp", 1, 0)]  # fmt: skip
        for key, row, column in walk:
            opened.page.keyboard.press(key)
            said = opened.page.locator("#said").inner_text()
            assert said.startswith(f"{order[row]} (")
            assert f" and {order[column]} (" in said
            assert opened.page.locator("#cell").is_visible()
        opened.page.keyboard.press("Enter")
        assert opened.page.locator("#search").input_value() == order[1]
        assert all(order[1] in pair for pair in pairs_shown(opened))


def test_the_map_takes_the_colours_of_the_scheme(browser: Any, files: dict[str, Path]) -> None:
    with visit(browser, files["atlas"]) as opened, visit(browser, files["atlas"], scheme="dark") as dark:
        light = pixels(opened)
        stand(opened, 1280, "dark")
        eventually(opened.page, lambda: pixels(opened) == pixels(dark), "the map in other colours")
        assert light != pixels(dark)


def test_the_cut_off_leaves_the_similarities_from_it_on(browser: Any, files: dict[str, Path]) -> None:
    similarity = [value for row in told_facts(files["atlas"])["similarity"] for value in row]
    with visit(browser, files["atlas"]) as opened:
        slider = opened.page.locator("#cut")
        for cut in (0.2, 0.9, -1.0):
            slider.fill(str(cut))
            assert opened.page.locator("#least").inner_text() == f"{cut:.2f}"
            shown = pixels(opened)[3::4].count(255)
            low, high = (
                sum(value is not None and value >= cut + side for value in similarity) for side in (0.01, -0.01)
            )
            assert (low <= shown <= high) if cut > -1 else shown == len(pixels(opened)) // 4


def hundred(**more: Any) -> dict[str, Any]:
    """The facts of an atlas of 99 classes without a relation."""
    names = [f"{'a' if i % 2 else 'b'}/class {i:02d}" for i in range(99)]
    facts: dict[str, Any] = {key: [] for key in ("pairs", "groups", "alone", "no_prototype", "too_few_crops")}
    facts |= {"datasets": {"a": 49, "b": 50}, "method": "multi_dataset", "step": 3, "settings": {"crops": 20}}
    return {**facts, "order": names, "crops": dict.fromkeys(names, 40), **more}


def test_the_rows_of_a_hundred_classes_can_be_read(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "taxonomy.html"
    file.write_text(page_of(hundred(), torch.eye(99)))
    with visit(browser, file) as opened:
        rows = [span.bounding_box() for span in opened.page.locator("#names span").all()]
        assert min(row["height"] for row in rows) >= 11.5
        assert opened.page.locator("#names span").first.evaluate("e => getComputedStyle(e).fontSize") == "12px"
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        before = opened.page.locator("#names").bounding_box()
        moved = opened.page.locator("#map").evaluate("e => { e.scrollLeft = 9999; return e.scrollLeft; }")
        assert moved > 0
        assert opened.page.locator("#names").bounding_box()["x"] == pytest.approx(before["x"])
        assert opened.faults == []


@pytest.mark.parametrize("width", [1280, 390])
def test_both_pictures_and_both_shares_of_a_relation_are_in_sight(browser: Any, tmp_path: Path, width: int) -> None:
    names = ("a/class 01", f"b/{'vegetation' * 3}")
    related = {
        "relation": "part",
        "first": names[0],
        "second": names[1],
        "first_is_second": 0.9,
        "second_is_first": 0.2,
    }
    votes = {"classifier": "colours", "photos": {"a": 9, "b": 9}, "relations": [related] * 3}
    data = io.BytesIO()
    Image.new("RGB", (168, 112)).save(data, "PNG")
    picture = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    file = tmp_path / "taxonomy.html"
    file.write_text(page_of(hundred(votes=votes), torch.eye(99), dict.fromkeys(names, picture)))
    with visit(browser, file, width) as opened:
        seen = [part.bounding_box() for part in opened.page.locator("#votes :is(img, span, td)").all()]
        assert len(seen) == 3 * (2 + 2 + 3)
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in seen)
        opened.page.locator("canvas").hover()
        assert "(40 photos)" in opened.page.locator("#said").inner_text()
        assert opened.audit() == []


def test_a_button_copies_the_commands_of_a_block_without_their_prompt_and_output(browser: Any, tmp_path: Path) -> None:
    blocks = "".join(f"<div class='highlight'><pre>{text}</pre></div>" for text in ("$ mdp demo\n3 runs\n", "a\n  b\n"))
    script = ROOT / "docs" / "_static" / "copy.js"
    (tmp_path / "a.html").write_text(f"<article>{blocks}</article><script src='{script.as_uri()}'></script>")
    page = browser.new_page()
    page.add_init_script(
        "window.copied = []; Object.defineProperty(navigator, 'clipboard', {value: "
        "{writeText: async (text) => { window.copied.push(text); }}})"
    )
    page.goto((tmp_path / "a.html").as_uri())
    for button in page.query_selector_all("button.copy"):
        button.click()
    eventually(page, lambda: page.inner_text("button.copy") == "Copied", "the button says that it copied")
    assert page.evaluate("window.copied") == ["mdp demo", "a\n  b"]
    page.close()

"""`mdp taxonomy`: what it reads, what it finds on prototypes whose truth is known, and the files it writes."""

import base64
import csv
import hashlib
import html
import json
import math
import re
import runpy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from torch import Tensor

from mdp.cli import cli
from mdp.core.class_relations import Relation
from mdp.core.labels import LabelSpace, LabelUnion
from mdp.core.prototype_bank import ClassSums, empty_bank, pack_bank, push
from mdp.core.relation_scores import agreements, between, same_names
from mdp.io.datasets import shapes_coarse, shapes_fine, shapes_target
from mdp.io.datasets._scenes import WORLD, true_relation
from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.run.checkpoint import save
from mdp.io.run.restore import prefixed
from mdp.io.studies.taxonomy import dataset_numbers, read_source, run_taxonomy, table
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.conftest import ROOT
from tests.laws import pure_call
from tests.small_runs import request, tensors_of

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")

FILES = ["mapping.yaml", "taxonomy.csv", "taxonomy.dot", "taxonomy.html", "taxonomy.json"]
SHAPES = {"shapes-coarse": shapes_coarse, "shapes-fine": shapes_fine, "shapes-target": shapes_target}


def run_of(folder: Path, labels: dict[str, list[str]], vectors: Tensor, crops: Tensor, **about: Any) -> Path:
    """A run folder whose checkpoint holds these prototypes."""
    (folder / "checkpoints").mkdir(parents=True)
    bank = push(empty_bank(*vectors.shape, 1), ClassSums(vectors * crops[:, None], crops))
    recipe = {"method": {"name": "multi_dataset", "embedding": vectors.shape[1]}}
    spaces = [{"name": name, "classes": classes} for name, classes in labels.items()]
    told = {"kind": "pretrain", "step": 7, "recipe": recipe, "labels": spaces, **about}
    save(folder / "checkpoints" / "last.safetensors", prefixed("state", pack_bank(bank)), told)
    return folder


def ideal_run(folder: Path) -> Path:
    """Each class is the mean of what it means in the world, and every dataset has a look of its own."""
    rows = []
    for place, module in enumerate(SHAPES.values()):
        for name in module.CLASSES:
            row = torch.zeros(len(WORLD) + 3)
            for thing, label in module.MEANING.items():
                row[WORLD.index(thing)] = float(label == name)
            row /= row.norm()
            row[len(WORLD) + place] = 0.5
            rows.append(row)
    labels = {name: list(module.CLASSES) for name, module in SHAPES.items()}
    return run_of(folder, labels, torch.stack(rows), torch.full((len(rows),), 40))


def small_run(folder: Path, **about: Any) -> Path:
    labels = {"a": ["sky", "car", "</script><b>&"], "b": ["sky", 'car "x"', "tree", "rare", "never"]}
    rows = torch.tensor(
        [[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0.1], [0, 1, 0.1], [0.1, 0, 1], [1, 1, 0], [0, 0, 0]]
    )
    crops = torch.tensor([90, 80, 70, 60, 50, 40, 3, 0])
    return run_of(folder, labels, rows, crops, **about)


def test_relations_of_the_generated_taxonomies_are_as_their_makers_say() -> None:
    def relation(one: str, other: str) -> str:
        (first, name), (second, label) = (text.split("/") for text in (one, other))
        answer: str = pure_call(true_relation, SHAPES[first].MEANING, name, SHAPES[second].MEANING, label)
        return answer

    assert relation("shapes-coarse/wall", "shapes-target/background") == "same"
    assert relation("shapes-coarse/pointed", "shapes-fine/other") == "same"
    assert relation("shapes-fine/wall-brick", "shapes-coarse/wall") == "part"
    assert relation("shapes-coarse/round", "shapes-target/ring") == "whole"
    assert relation("shapes-fine/disc", "shapes-target/star") == "apart"
    assert true_relation({"disc": "x", "ring": "x"}, "x", {"disc": "a", "ring": "y", "star": "y"}, "y") == "overlap"
    names = [(s, label) for s, module in SHAPES.items() for label in module.CLASSES]
    found = [relation(f"{s}/{a}", f"{t}/{b}") for s, a in names for t, b in names if s < t]
    assert (found.count("same"), found.count("part") + found.count("whole")) == (7, 20)


def test_ideal_prototypes_give_the_true_taxonomy_back(tmp_path: Path) -> None:
    facts, _ = run_taxonomy(ideal_run(tmp_path / "run"), None, overwrite=False)
    found = runpy.run_path(str(ROOT / "examples" / "study" / "taxonomy_score.py"))["scores"](facts)
    for kind in ("pairs that are related", "parts under their whole"):
        right, count = found[kind]
        assert right == count > 10
    assert found["same pairs that are found"] == (7, 7)
    assert found["related pairs suggested"] == (27, 27)
    assert found["of pairs drawn blindly"] == (27, 5 * 9 + 5 * 8 + 9 * 8)


def test_what_was_found_is_told_by_name(tmp_path: Path) -> None:
    facts, folder = run_taxonomy(small_run(tmp_path / "run"), None, overwrite=False)
    assert folder == tmp_path / "run" / "taxonomy"
    assert {(pair["first"], pair["second"]) for pair in facts["pairs"]} == {
        ("a/sky", "b/sky"), ("a/car", 'b/car "x"'), ("a/</script><b>&", "b/tree")
    }  # fmt: skip
    assert next(pair["crops"] for pair in facts["pairs"] if pair["first"] == "a/sky") == [90, 60]
    assert facts["too_few_crops"] == ["b/rare"]
    assert facts["no_prototype"] == ["b/never"]
    assert (facts["method"], facts["step"], facts["datasets"]) == ("multi_dataset", 7, {"a": 3, "b": 5})
    text = table(facts)
    assert "a/sky" in text
    assert "3 pairs" in text
    assert "1 seen in fewer than 20 crops, 1 never" in text


def test_the_files_say_the_same_each_in_its_way(tmp_path: Path) -> None:
    facts, folder = run_taxonomy(small_run(tmp_path / "run"), tmp_path / "out", overwrite=False)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    whole = json.loads((folder / "taxonomy.json").read_text())
    matrix = whole.pop("similarity")
    assert whole == facts
    assert len(matrix) == 8
    assert matrix[7] == [None] * 8
    rows = list(csv.DictReader((folder / "taxonomy.csv").read_text().splitlines()))
    pairs = [(row["first"], row["second"], float(row["similarity"])) for row in rows if row["relation"] == "same"]
    assert pairs == [(pair["first"], pair["second"], pair["similarity"]) for pair in facts["pairs"]]
    mapping = yaml.safe_load((folder / "mapping.yaml").read_text())
    assert mapping["same"] == facts["pairs"]
    assert mapping["too_few_crops"] == ["b/rare", "b/never"]
    dot = (folder / "taxonomy.dot").read_text()
    assert '"a/car" -- "b/car \\"x\\""' in dot
    assert dot.count("{") == dot.count("}") == 3
    assert "b/rare" not in dot


class Words(HTMLParser):
    """Tags and the text of tables, as a browser reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.heads: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [f"{tag} {key}" for key, _ in attrs if key in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["th"]:
            self.heads.append(data.strip())


def test_the_page_needs_nothing_else_and_a_name_is_never_markup(tmp_path: Path) -> None:
    _, folder = run_taxonomy(small_run(tmp_path / "run"), None, overwrite=False)
    text = (folder / "taxonomy.html").read_text()
    assert "@@" not in text
    page = Words()
    page.feed(text)
    assert not page.links
    assert not re.search(r"https?:|@import|url\(", text)
    assert page.tags.count("script") == 2
    assert "a/</script><b>&" in page.heads
    assert html.escape("</script>") in text
    assert text.count("</script>") == 2
    digest = base64.b64encode(hashlib.sha256(text.split("<script>")[1].split("</script>")[0].encode()).digest())
    assert f"script-src 'sha256-{digest.decode()}'; base-uri 'none'\"" in text
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert "a/</script><b>&" in data["names"]
    assert data["few"][data["names"].index("b/rare")]
    assert "b/never" not in data["names"]
    for needed in ("prefers-color-scheme: dark", 'name="viewport"', 'type="search"', "tabindex", "aria-live"):
        assert needed in text


def test_the_cells_of_the_map_are_the_similarities_in_hundredths(tmp_path: Path) -> None:
    facts, folder = run_taxonomy(small_run(tmp_path / "run"), None, overwrite=False)
    text = (folder / "taxonomy.html").read_text()
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    cells = torch.frombuffer(bytearray(base64.b64decode(data["cells"])), dtype=torch.int8).view(7, 7)
    for pair in facts["pairs"]:
        row, column = data["names"].index(pair["first"]), data["names"].index(pair["second"])
        assert int(cells[row, column]) == round(100 * pair["similarity"])
    assert data["names"] == facts["order"]


def test_nothing_is_replaced_unless_it_is_asked_for(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    _, folder = run_taxonomy(run, None, overwrite=False)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run_taxonomy(run, None, overwrite=False)  # the same files are no conflict
    (folder / "mapping.yaml").write_text("mine")
    (folder / "taxonomy.csv").unlink()
    with pytest.raises(RecipeError, match=r"mapping\.yaml: something else has this name.*--overwrite"):
        run_taxonomy(run, None, overwrite=False)
    assert (folder / "mapping.yaml").read_text() == "mine"
    assert not (folder / "taxonomy.csv").exists()  # nothing is written then
    run_taxonomy(run, None, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="expected a folder, found a file"):
        run_taxonomy(run, tmp_path / "file", overwrite=True)


def test_runs_without_prototypes_or_with_one_dataset_are_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"keeps prototypes.*this is a finetune run"):
        read_source(small_run(tmp_path / "finetune", kind="finetune"))
    with pytest.raises(RecipeError, match=r"expected several labelled datasets to relate, found a$"):
        read_source(run_of(tmp_path / "one", {"a": ["x", "y"], "photos": []}, torch.eye(2), torch.tensor([9, 9])))
    torn = run_of(tmp_path / "torn", {"a": ["x"], "b": ["y"]}, torch.eye(3), torch.tensor([9, 9, 9]))
    with pytest.raises(CheckpointError, match="3 prototypes for 2 classes"):
        read_source(torn)
    with pytest.raises(CheckpointError, match="expected a run folder or a weights file"):
        read_source(tmp_path / "nothing")


@pytest.mark.parametrize("method", ["supervised", "region_bank"])
def test_of_trained_runs_those_with_prototypes_are_read(method: str) -> None:
    changes = [("pretrain.steps", 2), ("method.name", method)]
    run = run_pretraining(supervised(changes) if method == "supervised" else request(*changes, ("method.queue", 3)))
    if method == "supervised":
        with pytest.raises(RecipeError, match="supervised has none"):
            read_source(run)
        return
    source = read_source(run)
    assert source.union.size == len(source.crops) == len(dataset_numbers(source.union)) == 14
    assert int(source.crops.max()) == 3  # as many as a queue holds
    assert int(tensors_of(run)["state.pushed"].max()) > 3


def supervised(changes: list[tuple[str, Any]]) -> Any:
    asked = request(*changes)
    layer = {**asked.layers[0], "method": {"name": "supervised"}}
    return replace(asked, layers=(layer,))


def test_the_command_prints_the_pairs_of_a_trained_run_and_json_the_facts() -> None:
    run = run_pretraining(request(("pretrain.steps", 4)))
    done = CliRunner().invoke(cli, ["taxonomy", str(run)], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.startswith("class")
    assert f"written to {run / 'taxonomy'}" in done.stderr
    done = CliRunner().invoke(cli, ["taxonomy", str(run), "--json", "-q"], catch_exceptions=False)
    assert done.stderr == ""
    facts = json.loads(done.stdout)
    assert facts["datasets"] == {"shapes-coarse": 5, "shapes-fine": 9}
    assert list(facts["crops"].values()) == tensors_of(run)["state.total_counts"].tolist()
    tuned = run_finetuning(request(("finetune.steps", 1), init=str(run)))
    with pytest.raises(RecipeError, match="this is a finetune run"):
        run_taxonomy(tuned, None, overwrite=False)


def test_the_atlas_of_four_real_datasets_is_the_one_that_the_documents_tell_of() -> None:
    page = (ROOT / "docs" / "four-sets.html").read_text()
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", page.split("<tbody")[1].split("</tbody>")[0], re.DOTALL)
    rows = [re.sub("<[^>]*>", " ", row).split() for row in found]
    block = (ROOT / "docs" / "atlas.md").read_text().split("class            its pair")[1].split("```")[0]
    told = [line.split() for line in block.splitlines()[1:-1]]
    assert len(told) == 19
    assert rows == told
    pairs = {tuple(row[:2]) for row in rows}
    assert pairs >= {
        ("camvid/sky", "msrc/sky"),
        ("msrc/building", "labelmefacade/building"),
        ("msrc/tree", "labelmefacade/vegetation"),
        ("camvid/road", "labelmefacade/road"),
        ("camvid/car", "labelmefacade/car"),
    }


# against what people say


def test_suggestions_and_names_alone_are_scored_against_a_truth(tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text(
        "dataset_a,class_a,relation,dataset_b,class_b\n"
        'a,sky,identity,b,sky\na,car,overlap,b,"car ""x"""\na,car,child,b,tree\nvoc,cat,identity,b,sky\n'
    )
    facts, _ = run_taxonomy(small_run(tmp_path / "run"), None, overwrite=False, truth=truth)
    suggested, names = facts["truth"]["suggested"], facts["truth"]["names"]
    # three pairs are suggested as equal: sky is, car overlaps, the third has no relation at all
    assert (suggested["equal"]["right"], suggested["equal"]["suggested"], suggested["equal"]["true"]) == (1, 3, 1)
    assert (suggested["any"]["right"], suggested["any"]["true"]) == (2, 3)
    assert (names["equal"]["right"], names["equal"]["suggested"]) == (1, 1)
    assert (names["equal"]["f1"], names["any"]["recall"], names["part"]["precision"]) == (1.0, 0.3333, None)
    assert "names      any           1          1     3       1.00    0.33  0.50" in table(facts)
    truth.write_text("a,b\n")
    with pytest.raises(RecipeError, match=r"--truth: .*truth\.csv: expected a first line"):
        run_taxonomy(tmp_path / "run", None, overwrite=True, truth=truth)
    truth.write_text("dataset_a,class_a,relation,dataset_b,class_b\n")
    with pytest.raises(RecipeError, match="says nothing of classes of this run"):
        run_taxonomy(tmp_path / "run", None, overwrite=True, truth=truth)


def test_a_truth_is_silent_about_pairs_of_datasets_that_it_does_not_name() -> None:
    union = LabelUnion([LabelSpace(name=name, classes=("sky", "car")) for name in "abc"])
    names = pure_call(same_names, union)
    assert len(names) == 6
    truth = [Relation("equal", 0, 2)]
    found = pure_call(agreements, between(names, union, truth), truth)
    assert (found["equal"].right, found["equal"].suggested, found["equal"].true) == (1, 2, 1)
    assert found["equal"].f1 == pytest.approx(2 / 3)
    assert math.isnan(found["part"].f1)

"""`mdp taxonomy --photos`: two descriptions of the same photos, whose colours are their classes, by colours alone."""

import csv
import json
import runpy
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from mdp.cli import cli
from mdp.core.labels import LabelUnion
from mdp.io.datasets import load
from mdp.io.errors import RecipeError
from mdp.io.recipe.layers import Layer
from mdp.io.recipe.relations import read_relations
from mdp.io.studies.taxonomy_votes import run_voted_taxonomy, voted_table
from mdp.io.studies.vote_pictures import region_picture
from mdp.io.studies.votes import Asked, cell_labels
from mdp.label_space import LabelSpace
from tests.coloured_squares import write_site
from tests.conftest import ROOT
from tests.trees import lines

LAYER: Layer = {"run": {"workers": 0, "threads": 1}}
TRUTH = ("dataset_a,class_a,relation,dataset_b,class_b", "fine,cup,part,merged,thing", "fine,dog,part,merged,thing",
         "fine,sky,equal,merged,sky", "fine,other,equal,merged,other")  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    splits = ["splits: {train: {images: train, labels: train-labels}}"]
    write_site(folder, photos=36)
    lines(folder / "fine.yaml", ["name: fine", "classes: {0: other, 1: cup, 2: dog, 3: sky}", *splits])
    merged = "classes: {0: other, 1: {name: thing, values: [1, 2]}, 3: sky, 9: never}"
    lines(folder / "merged.yaml", ["name: merged", merged, *splits])
    return folder


def asked(site: Path, **more: Any) -> Asked:
    sets = (str(site / "fine.yaml"), str(site / "merged.yaml"))
    return Asked(**{"source": "colors", "photos": 24, "datasets": sets, "size": 64, **more})


@pytest.fixture(scope="module")
def found(site: Path) -> tuple[dict[str, Any], Path]:
    return run_voted_taxonomy(asked(site), LAYER, site / "out", False, lines(site / "truth.csv", TRUTH), quiet=True)


def test_what_two_descriptions_call_the_same_pixels_is_found_with_nothing_beside(
    found: tuple[dict[str, Any], Path],
) -> None:
    facts, _ = found
    told = {(row["relation"], row["first"], row["second"]) for row in facts["votes"]["relations"]}
    assert told == {
        ("equal", "fine/other", "merged/other"), ("equal", "fine/sky", "merged/sky"),
        ("part", "fine/cup", "merged/thing"), ("part", "fine/dog", "merged/thing"),
    }  # fmt: skip
    scores = facts["truth"]["suggested"]
    assert [scores[kind]["f1"] for kind in ("equal", "part", "any")] == [1.0, 1.0, 1.0]
    assert facts["truth"]["names"]["any"]["recall"] == 0.5
    assert facts["no_prototype"] == ["merged/never"]
    called = torch.tensor(facts["votes"]["called"])
    assert called[:4, :4].sum() == called[:4, 4:].sum() > 0  # every cell has one vote in each dataset
    text = voted_table(facts)
    assert "part      fine/cup" in text
    assert "2 equal, 2 part, 0 overlap; 0 without a relative; 0 seen in fewer than 5 photos, 1 never" in text


def test_training_takes_the_table_that_was_written(found: tuple[dict[str, Any], Path]) -> None:
    facts, folder = found
    spaces = [
        LabelSpace(name="fine", classes=("other", "cup", "dog", "sky")),
        LabelSpace(name="merged", classes=("other", "thing", "sky", "never")),
    ]
    read = read_relations(folder / "taxonomy.csv", LabelUnion(spaces))
    assert sorted(read.relations) == [("equal", 0, 4), ("equal", 3, 6), ("part", 1, 5), ("part", 2, 5)]
    rows = list(csv.DictReader((folder / "taxonomy.csv").read_text().splitlines()))
    assert {row["relation"] for row in rows} == {"same", "part"}
    mapping = yaml.safe_load((folder / "mapping.yaml").read_text())
    assert (len(mapping["same"]), len(mapping["part_of"]), mapping["overlap"]) == (2, 2, [])
    whole = json.loads((folder / "taxonomy.json").read_text())
    assert whole["votes"] == facts["votes"]


def test_the_page_has_a_picture_of_both_classes_of_every_relation(found: tuple[dict[str, Any], Path]) -> None:
    page = (found[1] / "taxonomy.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == 2 * len(found[0]["votes"]["relations"]) == 8
    assert "@@" not in page
    assert "<td>part of</td>" in page


def test_a_picture_shows_the_largest_region_outlined_and_what_is_around_it_faint() -> None:
    inside = torch.zeros(200, 300, dtype=torch.bool)
    inside[60:140, 80:200], inside[0, 0] = True, True
    image = torch.zeros(3, 200, 300, dtype=torch.uint8)
    picture = region_picture(image, inside)
    assert picture.size == (168, 112)
    assert picture.getpixel((picture.width // 2, picture.height // 2)) == (0, 0, 0)
    assert picture.getpixel((1, 1)) == (165, 165, 165)
    white = np.asarray(region_picture(torch.full((3, 200, 300), 255, dtype=torch.uint8), inside))
    drawn = (white != 255).any(2)  # of a white thing on white the outline is all there is to see
    assert len(np.unique(white[drawn], axis=0)) == 1
    (top, bottom), (left, right) = ((places.min(), places.max()) for places in drawn.nonzero())
    assert (top, bottom, left, right) == (30, 81, 45, 122)  # 60 to 140 and 80 to 200, of a crop from (12, 8) at 7 / 11
    assert not drawn[top + 2 : bottom - 1, left + 2 : right - 1].any()


def test_labels_are_taken_in_the_middle_of_the_cells() -> None:
    labels = torch.arange(8)[None].expand(4, 8)
    assert cell_labels(labels, (8, 16), 4).tolist() == [[1, 3, 5, 7]] * 2  # pixel 2 of 16 is pixel 1 of 8
    assert cell_labels(labels, (4, 8), 8).tolist() == [[4]]


def test_names_are_asked_only_where_they_have_a_weight(site: Path, found: tuple[dict[str, Any], Path]) -> None:
    strong = run_voted_taxonomy(asked(site, names=100.0), LAYER, site / "names", False, quiet=True)[0]["votes"]
    assert strong["called"] == found[0]["votes"]["called"]
    shares = {row["first"]: row["first_is_second"] for row in strong["relations"]}
    assert shares["fine/sky"] > 0.99


def test_what_cannot_be_related_is_one_line(site: Path) -> None:
    out = site / "refused"
    with pytest.raises(RecipeError, match="colors: not a run, so that it has no folder for results; give --out DIR"):
        run_voted_taxonomy(asked(site), LAYER, None, False, quiet=True)
    with pytest.raises(RecipeError, match="colors: not a run; --photos needs the datasets: give --datasets a,b"):
        run_voted_taxonomy(asked(site, datasets=()), LAYER, out, False, quiet=True)
    with pytest.raises(RecipeError, match="expected several labelled datasets to relate, found fine"):
        run_voted_taxonomy(asked(site, datasets=(str(site / "fine.yaml"),)), LAYER, out, False, quiet=True)
    nobody = asked(site, source="weights that are nowhere")  # the truth is read before them
    with pytest.raises(RecipeError, match=r"nowhere\.csv: the file of relations is missing"):
        run_voted_taxonomy(nobody, LAYER, out, False, site / "nowhere.csv", quiet=True)
    with pytest.raises(RecipeError, match=r"--words: nowhere\.npz: .*missing"):
        run_voted_taxonomy(asked(site, words=Path("nowhere.npz")), LAYER, out, False, quiet=True)
    done = CliRunner().invoke(cli, ["taxonomy", "colors", "--datasets", "a,b"])
    assert done.exit_code == 2
    assert "--datasets, --names and --words go with --photos N" in done.stderr
    assert not out.exists()


def test_the_command_prints_the_relations_and_where_they_are(site: Path) -> None:
    sets = f"{site / 'fine.yaml'},{site / 'merged.yaml'}"
    words = ["colors", "--datasets", sets, "--photos", "24", "--size", "64", "--out", str(site / "told")]
    done = CliRunner().invoke(cli, ["taxonomy", *words], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.startswith("relation  class")
    assert f"written to {site / 'told'}" in done.stderr


def test_the_studys_truths_are_about_classes_that_there_are() -> None:
    study = runpy.run_path(str(ROOT / "examples" / "study" / "atlas.py"))
    real = list(study["real_truth"]())
    counts = {name: Counter(row[2] for row in study[f"{name}_truth"]()) for name in ("shapes", "camvid")}
    assert (counts["shapes"]["equal"], counts["shapes"]["part"] + counts["shapes"]["whole"]) == (7, 20)
    assert counts["camvid"] == {"equal": 4, "part": 7}
    known = {(d.name, name) for d in map(load, study["REAL"]) for name in d.labels.classes}
    assert {ends for row in real for ends in (row[:2], row[3:])} <= known
    assert ("camvid", "tree", "part", "labelmefacade", "vegetation") in real


def test_the_study_reads_the_same_votes_with_names_and_without(site: Path, found: tuple[dict[str, Any], Path]) -> None:
    study = runpy.run_path(str(ROOT / "examples" / "study" / "atlas.py"))
    given = Namespace(weights="colors", backbone=None, root=site, photos=24, names=[0.0, 100.0], words=None)
    truth = lines(site / "truth.csv", TRUTH)
    rows = study["by_votes"](given, 0, [str(site / "fine.yaml"), str(site / "merged.yaml")], 64, truth)
    told = found[0]["truth"]
    assert list(rows) == ["names alone", "votes", "names 100"]
    for row, side in (("votes", "suggested"), ("names alone", "names")):
        assert rows[row]["any"] == [told[side]["any"][key] for key in ("right", "suggested", "true")]
    assert rows["votes"]["equal, suggested as anything"] == [2, 2, 2]

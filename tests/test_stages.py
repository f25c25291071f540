"""Label maps without labels: `mdp luss cluster`, `label` and `score --split` as stages that can be stopped anywhere."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mdp.core.chance import generator
from mdp.core.networks import NetworkSettings, build_segmentor
from mdp.core.networks.clustering import ClusterHeads, build_attention_network
from mdp.core.photometry import as_float, normalise
from mdp.io.datasets import load, open_split
from mdp.io.errors import DatasetError, RecipeError, ResourceError
from mdp.io.files.strict_yaml import parse_yaml
from mdp.io.recipe.layers import merge
from mdp.io.recipe.request import Request
from mdp.io.run.checkpoint import save_plain
from mdp.io.unsupervised.asked import Nearest
from mdp.io.unsupervised.asked import Score as Scored
from mdp.io.unsupervised.nearest import run_nearest
from mdp.io.unsupervised.pipeline import rows as rows_file
from mdp.io.unsupervised.pipeline import stage as stage_file
from mdp.io.unsupervised.pipeline import vectors
from mdp.io.unsupervised.pipeline.cluster import clusters_table, run_clustering
from mdp.io.unsupervised.pipeline.label import labels_text, run_labelling
from mdp.io.unsupervised.pipeline.predictions import by_activation
from mdp.io.unsupervised.pipeline.run import pipeline_text, run_pipeline
from mdp.io.unsupervised.pipeline.sweep import run_label_scores
from mdp.io.unsupervised.pipeline.vectors import middle, short_side
from mdp.io.unsupervised.score import run_score
from tests.coloured_squares import SIDE, write_site
from tests.preloaded import run
from tests.stress.disturbed import Event, failing, watched
from tests.test_distributed import in_processes
from tests.trees import lines

SMALL = {"run": {"workers": 0, "threads": 1}, "luss": {"short_side": SIDE, "restarts": 3, "iterations": 6}}


def asked(out: Path | None = None, overwrite: bool = False, **luss: Any) -> Request:
    return Request(layers=(merge(SMALL, {"luss": luss}),), out=out, overwrite=overwrite, quiet=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos with site.yaml."""
    return write_site(tmp_path_factory.mktemp("site")).parent


@pytest.fixture(scope="module")
def clustered(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clustered") / "luss"
    run_clustering(asked(out), "colors", str(site / "site.yaml"))
    return out


@pytest.fixture
def copied(clustered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clustered, tmp_path / "luss"))


def everything(folder: Path) -> dict[str, bytes]:
    """What is in a folder, but for the records of stages, which have times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("stage.json", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# Clusters


def test_clusters_of_colours_are_the_folders_and_say_that_this_uses_labels(clustered: Path) -> None:
    found = json.loads((clustered / "clusters" / "clusters.json").read_text())
    assert (found["clusters"], found["vectors"], found["photos"]) == (3, 12, 12)
    assert found["counts"] == [4, 4, 4]
    assert found["folders"]["uses_labels"]
    assert (found["folders"]["accuracy"], found["folders"]["normalised_mutual_information"]) == (1, 1)
    assert "uses labels" in clusters_table(found)
    rows = np.load(clustered / "features" / "rows.npy")
    assert rows.shape == (12, 64)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    table = (clustered / "clusters" / "assignment.csv").read_text().splitlines()
    assert table[0] == "photo,cluster,share,squared_distance"
    numbers = [line.split(",")[1] for line in table[1:]]
    assert [len(set(numbers[start : start + 4])) for start in (0, 4, 8)] == [1, 1, 1]


def test_cells_are_clustered_like_photos_and_a_photo_has_the_cluster_of_most(site: Path, tmp_path: Path) -> None:
    found = run_clustering(asked(tmp_path, features="pixels", clusters=4), "colors", str(site / "site.yaml"))
    assert found["vectors"] == 12 * 4  # 28 pixels a side, in cells of 16
    line = (tmp_path / "clusters" / "assignment.csv").read_text().splitlines()[1]
    assert float(line.split(",")[2]) in (0.5, 0.75, 1)


def test_a_stage_that_is_done_is_not_done_again_and_one_whose_files_are_gone_is(copied: Path, site: Path) -> None:
    before = everything(copied)
    (copied / "clusters" / "centroids.safetensors").unlink()
    record = (copied / "features" / "stage.json").read_text()
    stage = json.loads((copied / "clusters" / "stage.json").read_text())
    (copied / "clusters" / "stage.json").write_text(json.dumps({**stage, "state": "unfinished"}))
    (copied / "clusters" / ".kmeans.npz.999999999.tmp").write_bytes(b"half of a fi")  # of a process that was killed
    run_clustering(asked(copied), "colors", str(site / "site.yaml"))
    assert everything(copied) == before
    assert (copied / "features" / "stage.json").read_text() == record


def test_what_was_made_of_something_else_is_refused_in_a_line_that_names_it(copied: Path, site: Path) -> None:
    target = str(site / "site.yaml")
    for request, source, words in (
        (asked(copied, restarts=2), "colors", r"clusters: made with settings\.restarts 3, and 2 is asked for"),
        (asked(copied, short_side=16), "colors", r"features: made with settings\.short_side 32, and 16 is asked for"),
        (asked(copied), "scratch", r"features: made with inputs\.weights [0-9a-f]{12}\.\.\., and"),
        (asked(copied, clusters=13), "colors", r"settings\.clusters 3, and 13"),
        (asked(copied, features="attention"), "colors", "colors has no pixel attention"),
    ):
        with pytest.raises(RecipeError, match=words) as raised:
            run_clustering(request, source, target)
        assert "\n" not in str(raised.value)
    with pytest.raises(RecipeError, match=r"made with inputs\.photos"):
        run_clustering(asked(copied), "colors", f"{target}:val")
    run_clustering(asked(copied, overwrite=True, restarts=2), "colors", target)
    assert json.loads((copied / "clusters" / "stage.json").read_text())["settings"]["restarts"] == 2
    (copied / "clusters" / "stage.json").write_text("{}")
    with pytest.raises(RecipeError, match="not the record of a stage"):
        run_clustering(asked(copied), "colors", target)


def test_more_clusters_than_vectors_and_a_folder_that_holds_something_else_are_refused(
    site: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="13: there are 12 vectors only"):
        run_clustering(asked(tmp_path / "a", clusters=13), "colors", str(site / "site.yaml"))
    lines(tmp_path / "b" / "features" / "notes.txt", ["mine"])
    with pytest.raises(RecipeError, match=r"holds something else, such as notes\.txt"):
        run_clustering(asked(tmp_path / "b"), "colors", str(site / "site.yaml"))
    with pytest.raises(RecipeError, match="no classes that say how many clusters"):
        run_clustering(asked(tmp_path / "c"), "colors", str(site / "train"))


# Labels


def test_labels_are_a_dataset_and_score_as_a_folder_of_predictions(copied: Path, site: Path) -> None:
    found = run_labelling(asked(), copied, "val")
    assert (found["photos"], found["levels"], found["marks"]) == (6, False, True)
    assert "nothing tells" in labels_text(found)
    assert found["dataset"] is None  # nothing is to be scored against labels that were made
    found = run_labelling(asked(), copied, "train")
    dataset = load(found["dataset"])
    samples, _ = open_split(dataset, copied, "train")
    assert [Path(sample.image).parent.name for sample in samples] == ["cup"] * 4 + ["dog"] * 4 + ["sky"] * 4
    values = {n for sample in samples for n in np.unique(dataset.read(sample)[1]).tolist()}
    assert values <= {1, 2, 3}
    assert len(values) > 1
    scores = run_label_scores(copied, "val", sweep=False, quiet=True)
    plain = run_score(Scored(predictions=copied / "labels-val" / "labels", target=str(site / "site.yaml")), quiet=True)
    same = [key for key in plain if key not in ("predictions", "against")]
    assert {key: scores[key] for key in same} == {key: plain[key] for key in same}
    with pytest.raises(RecipeError, match="no threshold can be chosen for these labels: nothing tells"):
        run_label_scores(copied, "val", sweep=True, overwrite=True, quiet=True)
    with pytest.raises(RecipeError, match="has no attention to cut"):
        run_labelling(asked(threshold=0.4), copied, "train")


def test_a_sweep_finds_the_threshold_that_scoring_each_one_by_itself_finds(copied: Path, site: Path) -> None:
    run_labelling(asked(threshold=0.0), copied, "val", site / "val-masks")
    found = run_label_scores(copied, "val", sweep=True, quiet=True)
    curve = (copied / "scores-val" / "curve.csv").read_text().splitlines()[1:]
    assert len(curve) == 81
    by_threshold = {round(100 * float(line.split(",")[0])): float(line.split(",")[1]) for line in curve}
    best = max(by_threshold.values())
    assert found["threshold"] == min(t for t, miou in by_threshold.items() if miou == best) / 100
    assert found["miou"] == pytest.approx(best, abs=1e-6)
    assert found["threshold_chosen"] == "by the mIoU of this split, which uses its label maps"
    for hundredths in (0, 37, round(100 * found["threshold"]), 80):
        own = tmp_labels(copied, hundredths)
        plain = run_score(Scored(predictions=own, target=str(site / "site.yaml")), quiet=True)
        assert plain["miou"] == pytest.approx(by_threshold[hundredths], abs=1e-6)
        if hundredths == round(100 * found["threshold"]):
            assert {key: found[key] for key in ("boundary", "f_beta", "names")} == {
                key: plain[key] for key in ("boundary", "f_beta", "names")
            }
    assert best > by_threshold[0] + 0.2
    # the other split is cut at it
    run_labelling(asked(), copied, "train", site / "train-masks")
    record = json.loads((copied / "labels-train" / "stage.json").read_text())
    assert record["settings"]["threshold"] == found["threshold"]
    values = np.array(Image.open(copied / "labels-train" / "labels" / "cup" / "0.png"))
    levels = np.array(Image.open(copied / "labels-train" / "levels" / "cup" / "0.png"))
    assert ((values == 0) == (levels < round(100 * found["threshold"]))).all()
    with pytest.raises(RecipeError, match="were cut at"):
        run_label_scores(copied, "train", sweep=True, quiet=True)


def tmp_labels(luss: Path, hundredths: int) -> Path:
    """The label maps of val cut by hand."""
    made = luss / "labels-val"
    for path in sorted((made / "labels").rglob("*.png")):
        place = path.relative_to(made / "labels")
        values, levels = (np.array(Image.open(made / kind / place)) for kind in ("labels", "levels"))
        out = luss / f"cut-{hundredths}" / place
        out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(levels >= hundredths, values, 0).astype(np.uint8)).save(out)
    return luss / f"cut-{hundredths}"


def test_masks_are_found_in_a_folder_of_the_split_where_there_is_one(copied: Path, site: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "val").symlink_to(site / "val-masks")
    run_labelling(asked(foreground=str(tmp_path / "masks")), copied, "val")
    levels = np.array(Image.open(copied / "labels-val" / "levels" / "cup" / "2.png"))
    white = np.array(Image.open(site / "val-masks" / "cup" / "2.png")).astype(int)
    np.testing.assert_array_equal(levels, white * 100 // 255)


def test_masks_that_do_not_fit_are_refused_by_name(copied: Path, site: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cup/2\.png: there is no such mask"):
        run_labelling(asked(), copied, "val", tmp_path / "none")
    shutil.rmtree(copied / "labels-val")
    (tmp_path / "few" / "cup").mkdir(parents=True)
    Image.new("L", (8, 4)).save(tmp_path / "few" / "cup" / "2.png")
    with pytest.raises(DatasetError, match=r"cup/2\.png: the mask is 8 x 4, its photo 32 x 32"):
        run_labelling(asked(), copied, "val", tmp_path / "few")


def test_a_photo_has_its_own_category_where_the_classifier_of_photos_is_active(copied: Path, site: Path) -> None:
    run_labelling(asked(labels="activation"), copied, "val")
    made = copied / "labels-val"
    for path in sorted((made / "labels").rglob("*.png")):
        assert len(np.unique(np.array(Image.open(path)))) == 1
        levels = np.array(Image.open(made / "levels" / path.relative_to(made / "labels")))
        assert (levels.min(), levels.max()) == (0, 100)
    found = run_label_scores(copied, "val", sweep=True, quiet=True)
    assert found["image_accuracy"] == 1
    assert found["threshold"] > 0
    with pytest.raises(RecipeError, match=r"made with settings\.labels activation, and centroids is asked for"):
        run_labelling(asked(), copied, "val")


def test_other_weights_than_those_that_were_clustered_by_are_refused(site: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    for seed in (0, 1):
        network = build_segmentor(NetworkSettings(backbone="resnet18", width=8), 2, generator(seed))
        save_plain(weights, network.state_dict(), {})
        if seed == 0:
            run_clustering(asked(tmp_path / "luss", restarts=1), str(weights), str(site / "site.yaml"))
    with pytest.raises(RecipeError, match="its weights are not those"):
        run_labelling(asked(), tmp_path / "luss", "val")


def test_a_network_with_attention_is_clustered_by_it_and_its_levels_cut_labels(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = NetworkSettings(backbone="resnet18", width=8)
    network = build_attention_network(model, ClusterHeads(embedding=8, prototypes=4), False, True, generator(3))
    save_plain(tmp_path / "weights.safetensors", network.state_dict(), {})
    monkeypatch.setattr(vectors, "_attention_of", lambda path: network)
    out, target, weights = tmp_path / "luss", str(site / "site.yaml"), str(tmp_path / "weights.safetensors")
    opened = vectors.open_source(weights, {"model": {"backbone": "resnet18", "width": 8}}, torch.device("cpu"))
    assert opened.features.lines == [f"loaded backbone and pixel attention from {weights}"]  # nothing is left out
    run_clustering(asked(out, short_side=64), weights, target)
    record = json.loads((out / "features" / "stage.json").read_text())
    assert record["settings"]["features"] == "attention"
    dataset = load(target)
    image = torch.from_numpy(dataset.photo(dataset.samples(site, "train")[0])).permute(2, 0, 1)
    inputs = normalise(as_float(middle(image, 64)[None]))
    expected = network.eval().attended(inputs)[0].detach().numpy()
    rows = np.load(out / "features" / "rows.npy")
    np.testing.assert_allclose(rows[0], expected / np.linalg.norm(expected), atol=1e-5)
    run_labelling(asked(short_side=64), out, "val")
    assert run_label_scores(out, "val", sweep=True, quiet=True)["threshold"] is not None
    found = run_labelling(asked(short_side=64, threshold=1.0), out, "train")
    assert found["threshold"] == 1
    values = [np.array(Image.open(path)) for path in (out / "labels-train" / "labels").rglob("*.png")]
    assert not np.concatenate(values).any()  # no attention is 1


def test_a_network_gives_a_photo_one_category_where_its_scores_are_above_a_threshold() -> None:
    network = build_segmentor(NetworkSettings(backbone="resnet18", width=8, head="linear"), 4, generator(0))
    photo = torch.randint(0, 256, (3, 40, 80), dtype=torch.uint8, generator=generator(1))
    all_of_it, none = (by_activation(network, 64, cut, torch.device("cpu"))(photo) for cut in (0.0, 1.0))
    assert all_of_it.shape == (40, 80)
    (number,) = all_of_it[all_of_it > 0].unique().tolist()
    scores = network.look(normalise(as_float(short_side(photo, 64)[None]))).logits[0, 1:]
    assert number == 1 + int(scores.mean((1, 2)).argmax())
    assert 0 < int((all_of_it == 0).sum()) < 40 * 80 / 2  # where it is least
    assert not none.any()
    assert set(by_activation(network, 64, 0.5, torch.device("cpu"))(photo).unique().tolist()) == {0, number}


# Stopped anywhere


class Killed(BaseException):
    """The end of the process, but for the process."""


def stopping_at(at: int) -> Callable[..., Any]:
    """A hook that ends at an operation."""

    def hook(number: int, event: Event, do_it: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        if number == at:
            raise Killed
        return do_it()

    return hook


def test_a_pipeline_that_is_killed_in_every_stage_ends_with_the_same_bytes(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_file, "_EVERY", 0.0)  # every step is noted
    monkeypatch.setattr(rows_file, "_PHOTOS", 4)
    target, place = str(site / "site.yaml"), tmp_path / "luss"
    steps: list[Callable[[], object]] = [
        lambda: run_clustering(asked(place), "colors", target),
        lambda: run_labelling(asked(threshold=0.0), place, "val", site / "val-masks"),
        lambda: run_label_scores(place, "val", sweep=True, quiet=True),
        lambda: run_labelling(asked(), place, "train", site / "train-masks"),
    ]
    counts = []
    for step in steps:
        with watched(lambda number, event, do_it, arguments: do_it()) as events:
            step()
        counts.append(len(events))
    expected = everything(place)
    shutil.rmtree(place)
    rng = np.random.default_rng(7)
    for step, count in zip(steps, counts, strict=True):
        for point in [*rng.integers(1, count, 3).tolist(), count - 1]:
            with suppress(Killed), watched(stopping_at(point)):
                step()
        step()
    assert everything(place) == expected


def test_a_full_disk_is_told_in_one_line_and_the_stage_goes_on(site: Path, tmp_path: Path) -> None:
    target, told = str(site / "site.yaml"), []
    for point in (6, 12, 20):
        with pytest.raises(ResourceError, match="No space left") as raised, watched(failing(point, "ENOSPC for good")):
            run_clustering(asked(tmp_path), "colors", target)
        told.append(str(raised.value))
    assert all(str(tmp_path) in words and "\n" not in words for words in told)
    run_clustering(asked(tmp_path), "colors", target)


def test_two_processes_make_the_bytes_of_one(tmp_path: Path) -> None:
    target = write_site(tmp_path / "site", photos=120)  # three batches of training photos
    small = [f"{section}.{key}={value}" for section, values in SMALL.items() for key, value in values.items()]
    settings = [word for setting in small for word in ("--set", setting)]
    run_clustering(asked(tmp_path / "one"), "colors", str(target))
    run_labelling(asked(), tmp_path / "one", "val", tmp_path / "site" / "val-masks")
    out = str(tmp_path / "two")
    in_processes(2, "-m", "mdp", "luss", "cluster", "colors", "--target", str(target), "--out", out, *settings)
    masks = str(tmp_path / "site" / "val-masks")
    in_processes(2, "-m", "mdp", "luss", "label", out, "--split", "val", "--foreground", masks, *settings)
    assert everything(tmp_path / "two") == everything(tmp_path / "one")


# Photos, and the command


def test_photos_are_resized_by_their_short_side_and_cut_to_seven_eighths_of_it() -> None:
    image = torch.arange(3 * 50 * 80, dtype=torch.float32).view(3, 50, 80) / 12000
    assert short_side(image, 25).shape == (3, 25, 40)
    assert short_side(image, 50) is image
    cut = middle(image, 32)
    assert cut.shape == (3, 28, 28)
    assert torch.equal(cut, short_side(image, 32)[:, 2:30, 12:40])  # of 32 x 51


def test_the_commands_say_what_they_do_and_where_the_next_one_goes_on(site: Path, tmp_path: Path) -> None:
    small = ["--workers", "0", "--set", "run.threads=1", "--set", "luss.short_side=32"]
    words = ["luss", "cluster", "colors", "--target", str(site / "site.yaml"), "--out", "luss", "--restarts", "2"]
    done = run(["-m", "mdp", *words, *small], tmp_path)
    assert done.code == 0, done.err
    assert "3 clusters of 12 vectors (12 photos), of 4 to 4 each" in done.out
    assert "k-means: 12 vectors of 64 channels, 2 restarts of 3 clusters together" in done.err
    done = run(["-m", "mdp", "luss", "label", "luss", "--split", "train", *small], tmp_path)
    assert done.code == 0, done.err
    assert "mdp finetune --target luss/labels.yaml" in done.out
    done = run(["-m", "mdp", "luss", "score", "luss", "--split", "val"], tmp_path)
    assert done.code == 2
    assert "luss/labels-val: this stage is not there; run `mdp luss label luss --split val` first" in done.err


RUN = {
    "run": {"workers": 0, "threads": 1, "check": False},
    "model": {"backbone": "resnet18", "width": 8, "head": "linear"},
    "method": {"name": "swav", "prototypes": 8, "frozen_steps": 1, "queue": None, "size": 32, "embedding": 8},
    "pretrain": {"steps": 2, "batch_size": 6, "validate_epochs": 0},
    "finetune": {"steps": 2, "batch_size": 4, "crop": [32, 32], "validate_steps": 0},
    "luss": {"short_side": 64, "restarts": 2, "attention_epochs": 1},
}


def test_the_whole_way_is_gone_once_and_its_page_shows_every_step(site: Path, tmp_path: Path) -> None:
    settings = merge(RUN, {"pretrain": {"validate_by": str(site / "site.yaml")}})
    request = Request(layers=({}, settings), out=tmp_path / "luss", quiet=True, report=False)
    found = run_pipeline(request, str(site / "site.yaml"))
    assert {*found["labels"]} >= {"miou", "image_accuracy", "f_beta"}
    assert found["labels"]["threshold"] is not None  # of the attention that was trained on the way
    assert 0 <= found["finetuned"]["miou"] <= 1
    assert "the network that learnt them" in pipeline_text(found)
    attention = parse_yaml((tmp_path / "luss" / "attention" / "config.yaml").read_text(), "attention")["method"]
    assert (attention["prototypes"], attention["size"]) == (8, 32)  # the network's, and the photos'
    assert (attention["frozen_steps"], attention["queue"], attention["area"]) == (0, 3840, [0.08, 1.0])  # its own
    lines_of = (tmp_path / "luss" / "representation" / "metrics.jsonl").read_text().splitlines()
    (validated,) = (record for record in map(json.loads, lines_of) if record["kind"] == "validate")
    near = run_nearest(
        Nearest(source=str(tmp_path / "luss" / "representation"), target=str(site / "site.yaml")),
        replace(request, out=None),
    )
    assert validated["miou"] == {"site": pytest.approx(near["miou"], abs=1e-6)}
    page = Path(found["page"]).read_text()
    assert page.count('alt="photo"') == page.count('alt="prediction"') == page.count('alt="truth"') == 6
    assert page.count('alt="attention"') == 6
    assert "Categories got their names from the label maps of this split" in page
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "luss").rglob("*.safetensors")}
    assert run_pipeline(request, str(site / "site.yaml")) == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "luss").rglob("*.safetensors")} == before
    other = replace(request, layers=({}, merge(settings, {"finetune": {"lr": 0.5}})))
    with pytest.raises(RecipeError, match=r"begun with another finetune\.lr"):
        run_pipeline(other, str(site / "site.yaml"))

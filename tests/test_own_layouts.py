"""Datasets of one's own: how photos and label maps are laid out in folders, and how they find each other."""

from pathlib import Path

import numpy as np
import pytest

from mdp.io.check.job import run_check
from mdp.io.datasets import load, own
from mdp.io.datasets._dataset import open_split, open_training
from mdp.io.errors import DatasetError, RecipeError
from tests.trees import grey, labels_array, own_yaml, palette, photo

SITE = "name: site\nsplits: {{train: {{{split}}}}}\nclasses: {{0: road, 1: car}}\n"


def site(root: Path, split: str, pairs: dict[str, str]) -> Path:
    """A YAML file beside photos and label maps of these names."""
    for seed, (image, label) in enumerate(pairs.items()):
        photo(root / image, seed)
        grey(root / label, labels_array([0, 1], seed))
    return own_yaml(root, SITE.format(split=split))


def found(yaml: Path) -> dict[str, str]:
    """The photos of the training split and their label maps, relative to the dataset."""
    samples, _ = open_training(load(str(yaml)), yaml.parent)
    root = yaml.parent
    return {str(Path(s.image).relative_to(root)): str(Path(s.labels).relative_to(root)) for s in samples}


def refusal(yaml: Path) -> str:
    with pytest.raises((DatasetError, RecipeError)) as caught:
        found(yaml)
    assert "\n" not in str(caught.value)
    return str(caught.value)


BESIDE = {f"all/{i}.png": f"all/{i}_mask.png" for i in range(3)}
LAYOUTS = {
    "nested": ("images: img, labels: lab", {f"img/c{i % 2}/{i}.jpg": f"lab/c{i % 2}/{i}.png" for i in range(4)}),
    "one name in two folders": ("images: img, labels: lab", {f"img/{c}/0.jpg": f"lab/{c}/0.png" for c in "ab"}),
    "three folders deep": ("images: img, labels: lab", {f"img/a/b/c/{i}.png": f"lab/a/b/c/{i}.png" for i in range(2)}),
    "infixes": (
        'images: ., labels: ., image: "camera/{day}_camera_{id}.png", label: "label/{day}_label_{id}.png"',
        {f"d{i}/camera/201{i}_camera_front_{i}.png": f"d{i}/label/201{i}_label_front_{i}.png" for i in range(3)},
    ),
    "folders, and ends of names": (
        'images: rgb, labels: gt, image: "{id}_rgb_anon.png", label: "{id}_gt_labelIds.png"',
        {f"rgb/fog/GP{i}/GP{i}_rgb_anon.png": f"gt/fog/GP{i}/GP{i}_gt_labelIds.png" for i in range(3)},
    ),
    "starts of names": (
        'images: img, labels: lab, image: "img_{id}.jpg", label: "mask_{id}.png"',
        {f"img/img_{i}.jpg": f"lab/mask_{i}.png" for i in range(3)},
    ),
    "any ending": (
        'images: a, labels: b, image: "{id}_training.*", label: "{id}_manual1.*"',
        {"a/21_training.jpg": "b/21_manual1.png", "a/22_training.png": "b/22_manual1.bmp"},
    ),
    "side by side": ('images: all, labels: all, label: "{stem}_mask.png"', BESIDE),
    "side by side, by ending": ('images: ., labels: ., image: "{id}.jpg"', {f"{i}.jpg": f"{i}.png" for i in range(3)}),
    "label maps within the photos'": ("images: ., labels: masks", {f"{i}.jpg": f"masks/{i}.png" for i in range(2)}),
    "a folder named after the photo": (
        'images: ., labels: ., image: "{id}/{id}.jpg", label: "{id}/label.png"',
        {f"s{i}/s{i}.jpg": f"s{i}/label.png" for i in range(3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_photos_and_label_maps_find_each_other_in_every_layout(tmp_path: Path, name: str) -> None:
    split, pairs = LAYOUTS[name]
    yaml = site(tmp_path, split, pairs)
    assert found(yaml) == pairs
    assert list(found(yaml)) == sorted(pairs)
    (report,) = run_check([str(yaml)], tmp_path, 0, None, True)
    assert not [problem for problem in report.problems if problem.kind == "left_out" or problem.error]


@pytest.mark.parametrize("name", ["infixes", "folders, and ends of names", "starts of names", "side by side"])
def test_without_templates_the_refusal_proposes_some_that_work_when_pasted(tmp_path: Path, name: str) -> None:
    split, pairs = LAYOUTS[name]
    plain = split.split(", image:")[0].split(", label:")[0]
    message = refusal(site(tmp_path, plain, pairs))
    image, label = message.split('image: "')[1].split('"')[0], message.split('label: "')[1].split('"')[0]
    assert found(own_yaml(tmp_path, SITE.format(split=f'{plain}, image: "{image}", label: "{label}"'))) == pairs


def test_a_photo_that_would_be_its_own_label_map_is_refused_with_the_templates_to_write(tmp_path: Path) -> None:
    message = refusal(
        site(tmp_path, "images: all, labels: all", {f"all/{i}.png": f"all/{i}_mask.png" for i in range(3)})
    )
    assert message.startswith(f"{tmp_path}/site_a.yaml: splits.train: {tmp_path}/all/0.png would be its own label map")
    assert message.endswith('such as image: "{id}.png", label: "{id}_mask.png"')


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ('images: a, labels: b, image: "{id}.jpg", label: "{name}.png"', "splits.train.label: {name} is not in"),
        ('images: a, labels: b, label: "{name}.png"', "splits.train.label: {name} stands for nothing"),
        ('images: a, labels: b, image: "{x}{y}.jpg"', "splits.train.image: expected a template"),
        ('images: a, labels: b, image: "photo.jpg"', "splits.train.image: expected a template"),
        ('images: a, labels: b, image: "{x}_{y}.jpg"', "splits.train.label: expected a template beside `image`"),
        ('images: a, labels: b, image: "../{x}.jpg"', "leads out of the dataset's folder"),
    ],
)
def test_a_template_that_means_no_file_is_refused_with_its_key(tmp_path: Path, split: str, says: str) -> None:
    assert says in refusal(site(tmp_path, split, {"a/0.jpg": "b/0.png"}))


def test_a_name_that_fits_a_template_in_two_ways_is_refused_only_where_it_does(tmp_path: Path) -> None:
    split = 'images: a, labels: b, image: "{x}_{y}.jpg", label: "{y}_{x}.png"'
    assert found(site(tmp_path, split, {"a/0_1.jpg": "b/1_0.png"})) == {"a/0_1.jpg": "b/1_0.png"}
    photo(tmp_path / "a" / "0_1_2.jpg", 3)
    assert "a/0_1_2.jpg: fits the template" in refusal(tmp_path / "site_a.yaml")


def test_two_photos_with_one_label_map_are_refused(tmp_path: Path) -> None:
    split = 'images: a, labels: b, image: "{id}_{light}.jpg", label: "{id}.png"'
    assert "have one label map" in refusal(
        site(tmp_path, split, {"a/0_day.jpg": "b/0.png", "a/0_night.jpg": "b/0.png"})
    )


def test_what_has_no_counterpart_is_counted(tmp_path: Path) -> None:
    yaml = site(tmp_path, "images: img, labels: lab", {f"img/{i}.jpg": f"lab/{i}.png" for i in range(4)})
    for i in (0, 1):
        (tmp_path / "img" / f"{i}.jpg").unlink()
    (report,) = run_check([str(yaml)], tmp_path, 0, None, True)
    (problem,) = [problem for problem in report.problems if problem.kind == "left_out"]
    assert (problem.text, problem.count) == ("left out: 2 label maps without photo", 2)
    assert problem.files == (str(tmp_path / "lab" / "0.png"), str(tmp_path / "lab" / "1.png"))
    (tmp_path / "lab" / "3.png").unlink()
    assert "1 of 4 files are missing: " in refusal(yaml)
    assert "2 label maps have no photo" in refusal(yaml)


def test_label_maps_that_another_split_uses_are_not_left_out(tmp_path: Path) -> None:
    site(tmp_path, "", {f"{'train' if i else 'val'}/{i}.jpg": f"lab/{i}.png" for i in range(3)})
    text = SITE.format(split="images: train, labels: lab}, val: {images: val, labels: lab")
    reports = run_check([str(own_yaml(tmp_path, text))], tmp_path, 0, None, True)
    assert [(report.images, report.problems) for report in reports] == [(2, ()), (1, ())]


def test_other_splits_are_not_listed_for_what_is_left_out_where_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = {f"img/{i}.jpg": f"lab/{i}.png" for i in range(2)}
    listed = "images: img, labels: lab}, val: {images: img, labels: lab, list: val.txt"
    site(tmp_path, "", pairs)
    (tmp_path / "val.txt").write_text("0\n1\n")
    opened: list[str] = []
    samples = own._samples
    monkeypatch.setattr(
        own, "_samples", lambda root, split, **rest: opened.append(split) or samples(root, split, **rest)
    )
    run_check([str(own_yaml(tmp_path, SITE.format(split=listed)))], tmp_path, 0, None, True)
    assert opened == ["train", "val"]


def test_photos_that_a_template_does_not_fit_are_counted(tmp_path: Path) -> None:
    yaml = site(tmp_path, 'images: img, labels: lab, image: "{id}_rgb.jpg"', {"img/0_rgb.jpg": "lab/0.png"})
    photo(tmp_path / "img" / "preview.jpg", 4)
    (report,) = run_check([str(yaml)], tmp_path, 0, None, True)
    (problem,) = report.problems
    assert problem.text == "left out: 1 photos that do not fit the template `image`"


def test_the_folder_of_another_split_below_is_not_looked_into(tmp_path: Path) -> None:
    site(tmp_path, "", {"img/0.jpg": "lab/0.png", "img/val/1.jpg": "lab/val/1.png"})
    text = SITE.format(split="images: img, labels: lab}, val: {images: img/val, labels: lab/val")
    dataset = load(str(own_yaml(tmp_path, text)))
    assert [len(open_split(dataset, tmp_path, split)[0]) for split in ("train", "val")] == [1, 1]


def test_label_maps_of_new_kinds_count_only_where_no_other_has_their_stem(tmp_path: Path) -> None:
    yaml = site(tmp_path, "images: img, labels: lab", {"img/0.jpg": "lab/0.png"})
    np.save(tmp_path / "lab" / "0.npy", np.zeros((64, 96), dtype=np.uint8))
    assert found(yaml) == {"img/0.jpg": "lab/0.png"}
    (tmp_path / "lab" / "0.png").unlink()
    assert found(yaml) == {"img/0.jpg": "lab/0.npy"}


@pytest.mark.parametrize("label", ["{}_mask.png", "{}-label.png", "mask_{}.bmp", "{}_gtFine_labelIds.png", "{}.png"])
def test_a_folder_of_photos_takes_no_label_map_beside_them_for_one_and_says_so(tmp_path: Path, label: str) -> None:
    for i in range(3):
        photo(tmp_path / "walks" / "deep" / f"{i}.jpg", i)
        palette(tmp_path / "walks" / "deep" / label.format(i).replace("_gtFine", ""), labels_array([0, 1], i))
    photo(tmp_path / "walks" / "deep" / "a_mask.png", 7)  # of nobody: a photo
    samples, line = open_training(load(str(tmp_path / "walks")), tmp_path)
    assert [Path(sample.image).name for sample in samples] == ["0.jpg", "1.jpg", "2.jpg", "a_mask.png"]
    assert line == "walks train: 4 images (left out: 3 label maps beside them)"
    (report,) = run_check([str(tmp_path / "walks")], tmp_path, 0, None, True)
    assert [problem.text for problem in report.problems] == ["left out: 3 label maps beside photos"]


def test_two_colour_photos_of_one_stem_are_two_photos(tmp_path: Path) -> None:
    photo(tmp_path / "walks" / "0.jpg", 0)
    photo(tmp_path / "walks" / "0.png", 1)
    assert len(open_training(load(str(tmp_path / "walks")), tmp_path)[0]) == 2

"""Lists of a dataset of one's own: what a line may look like, and that what is not understood is never guessed."""

import itertools
from pathlib import Path

import pytest

from mdp.io.datasets import load
from mdp.io.datasets._dataset import open_training
from mdp.io.errors import DatasetError
from tests.trees import grey, labels_array, own_yaml, photo

TEXT = "name: site\nsplits: {train: {images: img, labels: lab, list: list.csv}}\nclasses: {0: road, 1: car}\n"


def site(root: Path, lines: list[str], names: tuple[str, ...] = ("0", "1", "2"), text: str = TEXT) -> Path:
    """A dataset in a folder of the name `site`, with photos and label maps of these names, and its list."""
    home = root / "site"
    for seed, name in enumerate(names):
        photo(home / "img" / f"{name}.jpg", seed)
        grey(home / "lab" / f"{name}.png", labels_array([0, 1], seed))
    (home / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return own_yaml(home, text)


def found(yaml: Path) -> list[tuple[str, str]]:
    samples, _ = open_training(load(str(yaml)), yaml.parent)
    return [
        (Path(sample.image).relative_to(yaml.parent / "img").as_posix(), Path(sample.labels).stem) for sample in samples
    ]


def refusal(yaml: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        found(yaml)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("between", [",", ", ", "\t", " ", "   ", ";", " , "])
@pytest.mark.parametrize(
    "columns", [("img/{}.jpg", "lab/{}.png"), ("{}.jpg", "{}.png"), ("{}", "{}"), ('"{}"', '"{}"')]
)
def test_photo_and_label_map_are_paired_as_a_line_says(tmp_path: Path, between: str, columns: tuple[str, str]) -> None:
    shifted = [("0", "1"), ("1", "2"), ("2", "0")]
    lines = [between.join(text.format(name) for text, name in zip(columns, pair, strict=True)) for pair in shifted]
    assert found(site(tmp_path, lines)) == [(f"{image}.jpg", label) for image, label in shifted]


NAMES = ("a, b", "a b", "a\u00e9 (1)", "one,two,three", 'say "hi"', "c.v2;d")


def test_a_line_is_a_name_first_also_with_commas_spaces_and_quotes_in_it(tmp_path: Path) -> None:
    assert found(site(tmp_path, list(NAMES), NAMES)) == [(f"{name}.jpg", name) for name in NAMES]


@pytest.mark.parametrize("between", [",", "\t", " "])
@pytest.mark.parametrize("quoted", [False, True])
def test_pairs_of_names_with_commas_and_spaces_are_read(tmp_path: Path, between: str, quoted: bool) -> None:
    names = [f'"{name}"' if quoted else name for name in (n for n in NAMES if '"' not in n)]
    lines = [f'"img/{n}.jpg"{between}"lab/{n}.png"'.replace('""', '"') for n in (name.strip('"') for name in names)]
    lines = lines if quoted else [line.replace('"', "") for line in lines]
    expected = [(f"{name.strip(chr(34))}.jpg", name.strip(chr(34))) for name in names]
    assert found(site(tmp_path, lines, NAMES)) == expected


@pytest.mark.parametrize(
    ("header", "swapped"),
    [("image,mask", False), ("Image_Path\tLabel_Path", False), ("filename,label", False), ("mask,image", True),
     ("id", None), ("image", None), ('"image","mask"', False), ("rgb annotation", False)],
)  # fmt: skip
def test_a_line_that_heads_the_columns_is_no_photo(tmp_path: Path, header: str, swapped: bool | None) -> None:
    between = "\t" if "\t" in header else " " if " " in header else ","
    rows = [[f"img/{i}.jpg", f"lab/{(i + 1) % 3}.png"] for i in range(3)]
    lines = [between.join(row[::-1] if swapped else row) for row in rows] if swapped is not None else ["0", "1", "2"]
    shift = 0 if swapped is None else 1
    assert found(site(tmp_path, [header, *lines])) == [(f"{i}.jpg", str((i + shift) % 3)) for i in range(3)]


REFUSED = {
    "three columns": "img/0.jpg,lab/0.png,train",
    "no label map": "img/0.jpg,",
    "an unknown header": "x,y",
    "a mask in numbers": "0.jpg,1 20 35 4",
    "a label map that is not there": "img/0.jpg,lab/nothing.png",
    "label map first": "lab/0.png,img/0.jpg",
    "a label map alone": "lab/0.png",
    "a label map twice": "lab/0.png,lab/0.png",
    "folders of another set": "../../base/img/0",
    "folders of a set beside": "other/img/0",
    "folders of a set elsewhere": "/data/other/img/0.jpg",
    "a folder that is not there": "img/day/0.jpg",
    "a path of Windows": "img\\0.jpg",
    "a drive": "C:/img/0.jpg lab/0.png",
    "out of the folder": "../site/img/0.jpg,lab/0.png",
    "the folder itself": "img",
    "dots": "img/..",
    "many separators": ",".join("0" * 30),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_line_that_is_not_understood_is_refused_with_file_and_line(tmp_path: Path, name: str) -> None:
    yaml = site(tmp_path, ["1", "", REFUSED[name]])
    (tmp_path / "base" / "img").mkdir(parents=True)
    photo(tmp_path / "base" / "img" / "0.jpg", 9)
    message = refusal(yaml)
    assert message.startswith(f"{yaml.parent / 'list.csv'}: line 3: ") or (
        name == "the folder itself" and "1.jpg" not in message and "files are missing: " in message
    )


def test_a_line_that_can_be_read_in_two_ways_is_refused_and_quotes_decide(tmp_path: Path) -> None:
    names = ("a", "b,c", "a,b", "c")
    assert "line 1: 'a,b,c' can be read in 2 ways" in refusal(site(tmp_path, ["a,b,c"], names))
    assert found(site(tmp_path, ['"a","b,c"', '"a,b","c"'], names)) == [("a.jpg", "b,c"), ("a,b.jpg", "c")]


def test_a_name_in_several_folders_is_refused_and_its_folders_decide(tmp_path: Path) -> None:
    names = ("x/0", "y/0", "y/1")
    assert "may be" in (message := refusal(site(tmp_path, ["1", "0"], names)))
    assert message.startswith(f"{tmp_path / 'site' / 'list.csv'}: line 2: ")
    assert found(site(tmp_path, ["x/0", "img/y/0.jpg", "1"], names)) == [
        ("x/0.jpg", "0"),
        ("y/0.jpg", "0"),
        ("y/1.jpg", "1"),
    ]


@pytest.mark.parametrize("again", ["0.jpg", "img/0", "img/0.jpg,lab/0.png"])
def test_a_photo_that_is_named_twice_in_other_words_is_refused(tmp_path: Path, again: str) -> None:
    assert "line 3: " in refusal(site(tmp_path, ["0", "1", again]))


def test_ids_of_a_template_are_found(tmp_path: Path) -> None:
    text = TEXT.replace("labels: lab", 'labels: lab, image: "{id}_rgb.jpg", label: "{id}_gt.png"')
    for folder, stem in itertools.product("xy", "01"):
        photo(tmp_path / "site" / "img" / folder / f"{folder}{stem}_rgb.jpg", 0)
        grey(tmp_path / "site" / "lab" / folder / f"{folder}{stem}_gt.png", labels_array([0, 1], 0))
    yaml = site(tmp_path, ["x0", "y/y1", "x1_rgb.jpg"], (), text)
    assert [image for image, _ in found(yaml)] == ["x/x0_rgb.jpg", "y/y1_rgb.jpg", "x/x1_rgb.jpg"]


def test_a_list_that_may_lead_outside_names_photos_by_where_they_are(tmp_path: Path) -> None:
    text = TEXT.replace("images: img", "images: ../elsewhere/img") + "outside: true\n"
    yaml = site(tmp_path, ["../elsewhere/img/0.jpg", "1"], text=text)
    (tmp_path / "elsewhere").mkdir()
    (yaml.parent / "img").rename(tmp_path / "elsewhere" / "img")
    samples, _ = open_training(load(str(yaml)), yaml.parent)
    assert [Path(sample.image).name for sample in samples] == ["0.jpg", "1.jpg"]
    (yaml.parent / "list.csv").write_text("../other/img/0.jpg\n")
    assert "line 1: '../other/img/0.jpg' has other folders" in refusal(yaml)

"""Which photos a command line names, what they are called below it, and what it says of mistakes."""

import os
from pathlib import Path, PurePath

import pytest

from mdp.io.errors import DatasetError, MdpError, RecipeError
from mdp.io.inference.photos import find_photos, refuse_control_names


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def named(*texts: str) -> list[tuple[str, str]]:
    return [(photo.path.as_posix(), photo.name.as_posix()) for photo in find_photos(texts).photos]


def test_photos_of_a_folder_keep_their_name_below_it_and_other_files_are_counted(here: Path) -> None:
    touch("in/b/x.jpg", "in/a.PNG", "in/notes.txt", "in/b/Thumbs.db", "in/.hidden.jpg", "in/.git/y.jpg")
    found = find_photos(["in"])
    assert [(p.path.as_posix(), p.name.as_posix()) for p in found.photos] == [
        ("in/a.PNG", "a.PNG"),
        ("in/b/x.jpg", "b/x.jpg"),
    ]
    assert sorted(path.name for path in found.others) == ["Thumbs.db", "notes.txt"]
    assert named("in/") == named("in") == named("./in")


def test_a_photo_that_is_named_itself_is_called_by_its_file_name(here: Path) -> None:
    touch("in/b/x.jpg")
    assert named("in/b/x.jpg") == [("in/b/x.jpg", "x.jpg")]


def test_a_photo_that_is_named_twice_is_predicted_once(here: Path) -> None:
    touch("in/x.jpg", "in/y.jpg")
    assert named("in/x.jpg", "in", "./in/x.jpg", "in/*.jpg") == [("in/x.jpg", "x.jpg"), ("in/y.jpg", "y.jpg")]


def test_patterns_name_photos_from_their_fixed_part_on(here: Path) -> None:
    touch("in/day1/a.jpg", "in/day2/b.jpg", "in/day2/deep/c.jpg", "in/day2/d.txt")
    assert named("in/*/?.jpg") == [("in/day1/a.jpg", "day1/a.jpg"), ("in/day2/b.jpg", "day2/b.jpg")]
    assert named("in/day*") == named("in/**/*") == named("in/**")
    assert [name for _, name in named("in/day*")] == ["day1/a.jpg", "day2/b.jpg", "day2/deep/c.jpg"]
    assert [path.name for path in find_photos(["in/**"]).others] == ["d.txt"]
    assert named("in/day1/../*2/b.jpg") == [("in/day1/../day2/b.jpg", "day2/b.jpg")]
    assert named("in/*/../day2/b.jpg")[0][1] == "day2/b.jpg"


def test_a_name_never_leads_out_of_the_folder_of_predictions(here: Path) -> None:
    touch("out/x.jpg", "in/a/y.jpg")
    assert named("in/*/../../out/x.jpg") == [("in/a/../../out/x.jpg", "x.jpg")]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(here: Path) -> None:
    touch("x[1].jpg", "x1.jpg")
    assert named("x[1].jpg") == [("x[1].jpg", "x[1].jpg")]
    Path("x[1].jpg").unlink()
    assert named("x[1].jpg") == [("x1.jpg", "x1.jpg")]


def test_links_are_followed_but_never_in_a_circle(here: Path) -> None:
    touch("in/x.jpg", "elsewhere/y.jpg")
    os.symlink("../elsewhere", "in/there")
    os.symlink(".", "in/loop")
    os.symlink("self.d", "in/self.d")
    os.symlink("nowhere", "in/broken.jpg")
    assert [name for _, name in named("in")] == ["broken.jpg", "there/y.jpg", "x.jpg"]
    with pytest.raises(DatasetError, match=r"in/broken\.jpg: a link that leads nowhere"):
        find_photos(["in/broken.jpg"])


def test_predictions_are_no_photos(here: Path) -> None:
    touch("in/x.jpg", "in/old/predictions.json", "in/old/labels/x.png", "in/new/labels/x.png")
    assert [name for _, name in named("in")] == ["new/labels/x.png", "x.jpg"]
    for text in ("in", "in/**/*", "in/*"):
        assert [p.name.as_posix() for p in find_photos([text], [Path("in/new/labels")]).photos] == ["x.jpg"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("in/*.jpeg", r"no image matches 'in/\*\.jpeg'; did you mean 'in/\*\.jpg'\?"),
        ("*.jpg", r"no image matches '\*\.jpg'; did you mean '\*\*/\*\.jpg'\?"),
        ("inn/*.jpg", r"no image matches 'inn/\*\.jpg': inn: no such photo or folder; did you mean in\?"),
        ("in/n*", r"no image matches 'in/n\*' \(1 other file\); in has notes\.txt, photo1\.jpg"),
        ("in/photo1.jpeg", r"no such photo or folder; did you mean in/photo1\.jpg\?"),
        ("zz/y/photo1.jpg", r"zz/y/photo1\.jpg: no such photo or folder \(there is no zz\); \. has empty, in"),
        ("empty", r"empty: no photos in it \(empty has nothing\)"),
        ("text", r"text: no photos in it \(1 other file\)"),
        ("in/notes.txt", r"in/notes\.txt: expected a photo \(\.jpg"),
        ("voc", r"voc: a dataset's name, where photos were expected; `mdp eval --target voc --save`"),
        ("run", r"run: a run folder, not photos; name it by --run"),
        ("run/checkpoints/last.safetensors", r"a checkpoint, not a photo; name it by --run"),
        ("", r"an empty name where a photo was expected"),
        ("bad\x1b.jpg", r"bad\\x1b\.jpg: no such photo"),
    ],
)
def test_a_mistake_is_told_with_what_was_probably_meant(here: Path, text: str, words: str) -> None:
    touch("in/photo1.jpg", "in/notes.txt", "text/a.txt", "run/checkpoints/last.safetensors", "run/config.yaml")
    Path("empty").mkdir()
    with pytest.raises(MdpError, match=words) as caught:
        find_photos([text])
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, DatasetError | RecipeError)


def test_a_folder_that_cannot_be_read_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("in/x.jpg")

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(MdpError, match="in: the folder cannot be read: Permission denied") as caught:
        find_photos(["in"])
    assert caught.value.exit_code == 6


def test_names_that_a_terminal_would_obey_are_refused_and_odd_ones_are_not(here: Path) -> None:
    touch("in/a\nb/x.jpg", "in/中文 e\u0301.jpg", os.fsdecode(b"in/\xff.jpg"))
    photos = {photo.name: photo for photo in find_photos(["in"]).photos}
    assert len(photos) == 3
    with pytest.raises(DatasetError, match=r"in/a\\nb/x\.jpg: control characters in its name"):
        refuse_control_names(photos.pop(PurePath("a\nb/x.jpg")))
    for photo in photos.values():
        refuse_control_names(photo)

"""Photos with the annotations of a tool: COCO's JSON, or a folder of LabelMe's, Label Studio's or YOLO's files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mdp.io.annotations import label_studio, yolo
from mdp.io.annotations.drawing import COCO, LABEL_STUDIO, LABELME, YOLO
from mdp.io.annotations.labelme import photo_name
from mdp.io.annotations.marks import Annotated, Format
from mdp.io.datasets._dataset import Absent, LeftOut, Sample
from mdp.io.datasets._layouts import contents, names_of, refuse_controls
from mdp.io.datasets.own import borders
from mdp.io.datasets.own.endings import PHOTOS
from mdp.io.datasets.own.finding.folders import Files
from mdp.io.datasets.own.place import Place, Used
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.files.reading import is_dir, is_file, printable, shown

KEYS = ("annotations",)


@dataclass(frozen=True)
class Annotations:
    """The photos that annotation files list."""

    images: str
    annotations: str

    @property
    def paths(self) -> Mapping[str, str | None]:
        """The folder of photos, and the file or folder of annotations."""
        return {"images": self.images, "annotations": self.annotations}

    def samples(self, place: Place) -> list[Sample]:
        """The photos in the order of the file, or of the files' names."""
        path, where = place.folder / self.annotations, f"{place.where}.annotations: "
        if not (is_file(path) or is_dir(path)):
            raise Absent(f"{place.dataset}: {printable(path)} is missing ({contents(path.parent)}); {place.home}")
        found = format_at(path)
        annotated = found.annotated(path)
        photos = Photos(place.folder / self.images, place.border)
        images = [_photo(entry, photos, path, found) for entry in annotated]
        _refuse_twins(annotated, images)
        files = [path] if found is COCO else [Path(file) for entry in annotated for file in found.files(entry.labels)]
        borders.refuse_strays([(file, where) for file in files] + [(image, "") for image in images], place.border)
        pairs = zip(images, annotated, strict=True)
        return [Sample(str(image), entry.labels, place.dataset) for image, entry in pairs]

    def left_out(self, place: Place, used: Used) -> list[LeftOut]:
        """Photos that the annotations do not name."""
        folder = place.folder / self.images
        files = [str(folder / path) for path in Files(place.border).below(folder, PHOTOS, place.others)]
        taken = used()
        rest = [path for path in files if path not in taken]
        return [("photos that the annotations do not name", rest)] if rest else []


def source(split: Mapping[str, str], where: str) -> Annotations:
    """The files that a split names."""
    others = sorted(set(split) - {"images", "annotations", "count"})
    if others:
        raise RecipeError(f"{where}: annotations stand in place of {', '.join(others)}; take one of them")
    return Annotations(split.get("images", "."), split["annotations"])


def format_at(path: Path) -> Format:
    """The format of a file or folder of annotations.  Raises DatasetError for a folder that holds none."""
    if is_file(path):
        return COCO
    names = names_of(path)
    if any(map(label_studio.mask_name, names)):
        return LABEL_STUDIO
    if any(name.lower().endswith(".json") for name in names):
        return LABELME
    if yolo.text_files(path):
        return YOLO
    raise DatasetError(
        f"{printable(path)}: no annotations in this folder: neither JSON files of LabelMe, nor masks of Label "
        f"Studio (task-1-annotation-...png), nor text files of YOLO; {contents(path)}"
    )


class Photos:
    """The photos below a folder, by the names that annotation files have for them."""

    def __init__(self, folder: Path, border: str) -> None:
        self.folder = folder
        self._known: dict[str, list[str]] = {}
        for path in Files(border).below(folder, PHOTOS):
            for key in dict.fromkeys((path, PurePosixPath(path).name, PurePosixPath(path).stem)):
                self._known.setdefault(key, []).append(path)

    def named(self, name: str) -> list[Path]:
        """The photo of that path, or name, or stem; several where as many lie equally deep."""
        found = self._known.get(name) or self._known.get(PurePosixPath(name).name, [])
        depth = min((path.count("/") for path in found), default=0)
        exact = [name] if name in found else [path for path in found if path.count("/") == depth]
        return [self.folder / path for path in exact]


def _photo(entry: Annotated, photos: Photos, path: Path, found: Format) -> Path:
    """The photo of an entry.  Raises DatasetError, naming file and key, where it is missing or there are several."""
    names = list(entry.names)
    if found is LABELME and not photos.named(names[0]):
        names.append(photo_name(entry.labels))
    for name in names:
        matches = photos.named(name)
        if len(matches) > 1:
            raise DatasetError(
                f"{printable(matches[0])} and {printable(matches[1])}: {printable(path)} may mean either; "
                "remove one of them"
            )
        if matches:
            refuse_controls(matches[0])
            return matches[0]
    where = f"{printable(entry.labels if found is LABELME else path)}: {entry.where}"
    raise DatasetError(f"{where}: the photo {shown(names[-1])} is not in {contents(photos.folder)}")


def _refuse_twins(annotated: Sequence[Annotated], images: Sequence[Path]) -> None:
    """Raises DatasetError, naming both, for two annotations of one photo."""
    seen: dict[Path, Annotated] = {}
    for entry, image in zip(annotated, images, strict=True):
        if image in seen:
            raise DatasetError(
                f"{printable(image)}: annotated twice, by {printable(seen[image].labels)} and "
                f"{printable(entry.labels)}; keep one of them"
            )
        seen[image] = entry

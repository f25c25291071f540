"""A folder of photos and a folder of label maps, at any depth, matched by their names or by templates."""

from collections.abc import Mapping
from dataclasses import dataclass

from mdp.io.datasets._dataset import LeftOut, Sample
from mdp.io.datasets._layouts import paired
from mdp.io.datasets.own import borders
from mdp.io.datasets.own.finding.folders import Files
from mdp.io.datasets.own.finding.matching import Folders, find, hint
from mdp.io.datasets.own.finding.templates import template
from mdp.io.datasets.own.place import Place, Used
from mdp.io.errors import RecipeError

KEYS = ("image", "label", "labels")


@dataclass(frozen=True)
class LabelFiles:
    """Every photo below a folder with the label map of its name."""

    folders: Folders

    @property
    def paths(self) -> Mapping[str, str | None]:
        """Both folders and the templates."""
        templates = {"image": self.folders.image, "label": self.folders.label}
        texts = {key: made.text for key, made in templates.items() if made}
        return {"images": self.folders.images, "labels": self.folders.labels, **texts}

    def samples(self, place: Place) -> list[Sample]:
        """The photos and their label maps, sorted.  Raises DatasetError where photos have none."""
        found = find(self.folders, place, Files(place.border))
        pairs = [(place.folder / self.folders.images / photo, label) for photo, label in found.pairs.items()]
        borders.refuse_strays([(path, "") for pair in pairs for path in pair], place.border)
        return paired(place.dataset, pairs, hint(self.folders, found) + place.home)

    def left_out(self, place: Place, used: Used) -> list[LeftOut]:
        """Label maps without photo, and photos that the template does not fit."""
        found = find(self.folders, place, Files(place.border))
        own = set(found.pairs.values())
        rest, unfit = [str(path) for path in found.labels if path not in own], found.unfit
        taken = used() if rest or unfit else ()
        rest, unfit = ([path for path in paths if path not in taken] for paths in (rest, unfit))
        kinds = [("label maps without photo", rest), ("photos that do not fit the template `image`", unfit)]
        return [(kind, files) for kind, files in kinds if files]


def source(split: Mapping[str, str], where: str) -> LabelFiles:
    """The folders and templates that a split names."""
    return LabelFiles(folders_of(split, where))


def folders_of(split: Mapping[str, str], where: str) -> Folders:
    """The folders and templates that a split names.

    Raises RecipeError, `where` before it, for a template that names no label map.
    """
    image, label = (template(split[key], f"{where}.{key}") if key in split else None for key in ("image", "label"))
    known = sorted(image.fields) if image else ["id", "stem"]
    unknown = sorted(label.fields - set(known)) if label else []
    if unknown:
        source_of = "is not in the template `image`" if image else "stands for nothing without a template `image`"
        raise RecipeError(f"{where}.label: {{{unknown[0]}}} {source_of}; there is {{{'}, {'.join(known)}}}")
    if image and not label and len(known) > 1:
        raise RecipeError(f"{where}.label: expected a template beside `image`, which has {{{'}, {'.join(known)}}}")
    return Folders(split.get("images", "."), split.get("labels", "."), image, label)

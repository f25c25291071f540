"""How well frozen features carry the classes of a street through a drive: `mdp propagate` on CamVid's own drives.

    python examples/study/video.py --root DATA --weights FILE --backbone timm:tf_efficientnet_lite0

The photos of a drive that have a label map are a second apart.  A class is an object, void belongs to nothing; the map
of the first photo of every ten is carried through the nine after it.  Beside the weights stand random ones of the same
network, colours, and the first map kept as it is.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image

from mdp.io.recipe.layers import Layer
from mdp.io.unsupervised.asked import Propagation
from mdp.io.unsupervised.propagate import run_propagation

FRAMES = 10
VOID = 11  # in CamVid's label maps


def sequences(root: Path, folder: Path) -> list[tuple[Path, Path]]:
    """Folders of frames and masks, in the layout of DAVIS, of CamVid's test drives."""
    drives: dict[str, list[Path]] = {}
    for photo in sorted((root / "CamVid" / "test").iterdir()):
        drives.setdefault(photo.name.partition("_")[0], []).append(photo)
    found = []
    for drive, photos in drives.items():
        for number in range(len(photos) // FRAMES):
            frames, masks = (folder / f"{drive}-{number}" / kind for kind in ("frames", "masks"))
            frames.mkdir(parents=True)
            masks.mkdir()
            for photo in photos[FRAMES * number : FRAMES * (number + 1)]:
                (frames / photo.name).symlink_to(photo.resolve())
                labels = np.asarray(Image.open(root / "CamVid" / "testannot" / f"{photo.stem}.png"))
                Image.fromarray(np.where(labels == VOID, 255, labels + 1).astype(np.uint8)).save(
                    masks / f"{photo.stem}.png"
                )
            found.append((frames, masks))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--weights", required=True, help="a file, or a run")
    parser.add_argument("--backbone", default="", help="of a file that does not show it, and of random weights")
    parser.add_argument("--size", type=int, default=360)
    parser.add_argument("--every", type=int, default=1, help="only every so many-th sequence")
    given = parser.parse_args()
    layer: Layer = {"run": {"threads": 1}, **({"model": {"backbone": given.backbone}} if given.backbone else {})}
    with tempfile.TemporaryDirectory() as scratch:
        chosen = sequences(given.root, Path(scratch))[:: given.every]
        for source in (given.weights, "scratch", "colors"):
            scores = [
                run_propagation(
                    Propagation(source=source, frames=frames, masks=masks, size=given.size), layer, quiet=True
                )
                for frames, masks in chosen
            ]
            means = {key: 100 * mean(score[key] for score in scores) for key in ("j", "f", "j_and_f")}
            means["still"] = 100 * mean(score["still"]["j_and_f"] for score in scores)
            print(
                f"{source:40} {len(scores)} sequences  " + "  ".join(f"{k} {v:.1f}" for k, v in means.items()),
                flush=True,
            )


if __name__ == "__main__":
    main()

"""What the studies, `mdp compare` and its like, are asked.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mdp.bounds import Bounds, check_bounds
from mdp.given import DatasetNames, Given
from mdp.io.run.asked import RunOrFile

Starts = Annotated[tuple[str, ...], Given("--start starts", shown="[NAME=]KIND:PATH", repeat=True)]
Against = Annotated[tuple[str, ...], Given(shown="NAME", repeat=True)]


@dataclass(frozen=True, kw_only=True)
class CompareQuestion:
    """Fine-tune one target from several starting points, with the same budget, and say what can be claimed.

    What was done before is kept and what was interrupted goes on.  {seed} in a path is the cell's seed;
    NAME=KIND:PATH?key=value sets something for one start.

      mdp compare --target cityscapes --start scratch --start imagenet:resnet50.pth --start run:runs/pretrain/x
      mdp compare --target my.yaml --start scratch --start ours=run:runs/x-{seed} --fractions 1/8 --seeds 5
      mdp compare --show runs/compare/cityscapes
    """

    starts: Starts = ()  # a start: scratch, run:FOLDER, weights:FILE or imagenet:FILE (its backbone only); repeat it
    # for each
    shares: Annotated[str, Given("--fractions")] = "1/8,1/4,1"  # shares of the training images
    seeds: Annotated[int, Bounds(1, 1000)] = 3  # seeds 0, 1, ... of each cell
    split: str | None = None  # split to score; None: the dataset's validation split
    against: Against = ()  # compare with this start; None: the first
    keep: bool = False  # keep the checkpoints of cells that are scored
    redo: bool = False  # run cells again that were made with other settings or data; the old ones are kept aside
    show: Path | None = None  # print the tables of this compare.json, or of a folder of them, and run nothing

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Pretrain on two generated datasets, fine-tune a third with and without, compare.  Needs no files.

    mdp demo
    """

    seed: int = 0  # seed of everything [default: 0]
    out: Path | None = None  # folder for the three runs, instead of one under ./runs


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """Say which classes of several datasets may be the same thing, by a run's prototypes, or by votes on photos.

    Prints the best pairs, and writes tables, a mapping in YAML, a graph for Graphviz and taxonomy.html, a page with a
    map of all classes.

      mdp taxonomy runs/pretrain/2026-11-20_1432_voc+ade20k
      mdp taxonomy runs/pretrain/2026-11-20_1432_voc+ade20k --photos 20 --size 64
      mdp taxonomy runs/pretrain/2026-11-20_1432_voc+ade20k --json > taxonomy.json
    """

    run: RunOrFile  # a run's folder, or a file of weights
    photos: Annotated[int, Bounds(2, 10**9)] | None = None  # look at so many photos of each dataset, and go by what its
    # classes are called by the others' classifiers, on frozen features of RUN or of any FILE; None: prototypes alone
    datasets: DatasetNames = ()  # with --photos, these datasets; None: RUN's own
    size: Annotated[int, Bounds(16, 8192)] = 320  # with --photos, their longer side
    names: Annotated[float, Bounds(0, 100)] = 0.0  # with --photos, weight of equal names beside all votes of a class
    # [default: 0.0]
    words: Annotated[Path, Given("--words vectors")] | None = None  # with --names, vectors of class names, for names
    # that are alike
    truth: Path | None = None  # score the suggestions, and names alone, against this CSV file of relations
    out: Path | None = None  # folder to write to; None: RUN/taxonomy, with --photos RUN/taxonomy-photos
    overwrite: bool = False  # replace what has the same name and says something else

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.photos is None and (self.datasets or self.words or self.names):
            raise ValueError("--datasets, --names and --words go with --photos N")

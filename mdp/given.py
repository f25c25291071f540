"""How values are given on a command line, and what any command may be given besides settings.

How one is given stands beside its type, as bounds do, where its name and type do not say it:
`rate: Annotated[float, Bounds(0, 1), Given("--lr")]`.  Plain data: nothing here needs NumPy, torch or click.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from mdp.bounds import Bounds, parts_of


class Given(NamedTuple):
    """How a field is given: as an option of its own name, unless something else stands here."""

    flags: str = ""  # its flags, and at their end its name in MDP_... variables where that is another
    shown: str = ""  # what help has in the place of a value
    offers: str = ""  # what completion offers: a function of mdp.io, such as datasets.names
    only: bool = False  # and nothing else is known
    files: bool = False  # and files
    commas: bool = False  # names between commas
    repeat: bool = False  # more than once
    alone: str | None = None  # what its flag means without a value
    argument: bool = False  # by its place, without a flag
    variables: tuple[str, ...] = ()  # of the environment, besides MDP_...


def given_of(kind: type, name: str) -> Given:
    """How a field of a class is given."""
    return next((part for part in parts_of(kind)[name] if isinstance(part, Given)), Given())


RUNS = "run.folder.known"
Prefix = Annotated[str, Given(shown="PREFIX")]
Recipe = Given(shown="NAME|FILE", offers="recipe.shelf.recipe_names", files=True)
Root = Given(variables=("MDP_ROOT", "MDP_DATA"))
DatasetName = Annotated[str, Given(shown="NAME|FILE.yaml", offers="datasets.names")]
DatasetNames = Annotated[tuple[str, ...], Given(shown="A,B,C.yaml", offers="datasets.names", commas=True, repeat=True)]
Ratios = Annotated[tuple[float, ...], Given("--boundary", shown="0.02,0.03")]
Assignments = Annotated[tuple[str, ...], Given("--set assignments", shown="KEY=VALUE", repeat=True)]
Weights = Annotated[str, Given(shown="RUN|FILE", offers=RUNS, files=True)]
Resumed = Annotated[str, Given(shown="[RUN]", alone="", offers=RUNS, files=True)]


@dataclass(frozen=True, kw_only=True)
class Switches:
    """How to run, and what to start from; most are fields of a Request too."""

    config: Annotated[Path, Recipe] | None = None  # a recipe, or a YAML file of settings
    assignments: Assignments = ()  # any setting
    init: Weights | None = None  # start a fresh run from these weights
    resume: Resumed | None = None  # go on with an interrupted run (the newest; with --out, the one there, if any)
    target: DatasetName = ""  # another dataset with the same classes
    out: Path | None = None  # folder to write to, instead of one under ./runs
    overwrite: bool = False  # replace the run in --out
    processes: Annotated[int, Bounds(1, 1024)] | None = None  # processes that share the work, one for each GPU
    dry_run: bool = False  # say what the run would need, and stop
    print_config: bool = False  # print the YAML that reproduces the call, and stop
    json: Annotated[bool, Given("--json as_json")] = False  # print the result as JSON on stdout
    quiet: Annotated[bool, Given("-q --quiet")] = False  # no progress on stderr

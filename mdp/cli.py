"""The command line: parse, one call into mdp.io, print.

stdout is data, stderr is progress.  torch is imported inside the commands, so that `--help` answers at once.
"""

import difflib
import inspect as source
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click import Choice, FloatRange, IntRange
from click.shell_completion import CompletionItem

from mdp import __version__
from mdp.io.errors import MdpError, Preempted, ProcessError, Stopped
from mdp.io.export.targets import names as target_names
from mdp.io.journal import stderr
from mdp.io.processes.early import heed, take_signals
from mdp.io.processes.ending import Ending, drop_output, end, launched, speaks, tell
from mdp.io.processes.garbage import unsearched
from mdp.io.processes.openmp import sleep_soon
from mdp.io.recipe import words

if TYPE_CHECKING:
    from mdp.io.recipe.request import Request

Function = Callable[..., None]
Decorator = Callable[[Function], Function]
Reader = Callable[[Any], Any]
Found = TypeVar("Found")


class Group(click.Group):
    """A group that lists its commands in order of use and suggests the nearest one for a typo."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Whole sentences, on two lines where one is too short."""
        rows = [
            (name, command.get_short_help_str(200)) for name, command in self.commands.items() if not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"commands: {', '.join(self.commands)}"
            raise click.UsageError(f"no such command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


CONTEXT = {"auto_envvar_prefix": "MDP", "help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(cls=Group, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="mdp")
def cli() -> None:
    """Pretrain semantic segmentation on several labelled datasets at once.

    \b
      mdp demo                                          two minutes, no data needed
      mdp pretrain --datasets voc,ade20k --epochs 200   datasets under ./data
      mdp finetune --target cityscapes                  from the newest pretraining run
      mdp eval                                          the newest fine-tuning run
    """


# How commands and options are declared


def command(name: str, *calls: str, group: click.Group = cli) -> Callable[[Function], click.Command]:
    """A command whose help is its docstring, and below it these calls of it."""

    def declare(function: Function) -> click.Command:
        path = f"mdp {name}" if group is cli else f"mdp {group.name} {name}"
        examples = "".join(f"\n  {path} {call}".rstrip() for call in calls)
        return group.command(name, help=f"{source.cleandoc(function.__doc__ or '')}\n\n\b{examples}")(function)

    return declare


def together(*options: Decorator) -> Decorator:
    """Several options, in this order, as one."""
    return lambda function: reduce(lambda inner, option: option(inner), reversed(options), function)


def option(names: str, about: str, of: Any = None, read: Reader | None = None, **more: Any) -> Decorator:
    """An option that its command takes as an argument, of a type of click's, as `read` has it."""
    callback = partial(_read, read) if read else None
    return click.option(*names.split(), help=about, callback=callback, **_declared(names, of, more))


def setting(names: str, key: str, about: str, of: Any = None, read: Reader | None = None, **more: Any) -> Decorator:
    """An option that knows where its value goes: a setting by its full key, a field of Request, or a switch, by name.

    Its command does not see it; `_given` has what was given.
    """
    keep = partial(_keep, key, read)
    return click.option(*names.split(), help=about, expose_value=False, callback=keep, **_declared(names, of, more))


def _declared(names: str, of: Any, more: dict[str, Any]) -> dict[str, Any]:
    """Defaults that say something are shown; of --x/--no-x neither may be given."""
    default = {"default": None} if "/" in names else {}
    return {"type": of, "show_default": more.get("default") not in (None, ""), **default, **more}


def _read(read: Reader, ctx: click.Context, given: click.Parameter, value: Any) -> Any:
    """The value as `read` has it, whose ValueError is a mistake in this option."""
    try:
        return read(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=given.opts[0]) from error


def _keep(key: str, read: Reader | None, ctx: click.Context, given: click.Parameter, value: Any) -> None:
    """Keeps a value for `_given`; a flag that is off and has no --no-... says nothing."""
    if value not in (None, ()) and (value is not False or given.secondary_opts):
        ctx.ensure_object(dict)[key] = _read(read, ctx, given, value) if read else value


def _given() -> dict[str, Any]:
    """What was given of settings, fields of Request and switches, by key."""
    return click.get_current_context().ensure_object(dict)


def _request(**more: Any) -> "Request":
    with unsearched():
        from mdp.io.recipe.request import requested

    return requested(_given() | more)


def _layer() -> Any:
    """What was given of settings, as one layer."""
    return _request().asked


def _launch(refuse: Callable[[int], None]) -> None:
    """Becomes the launcher, and does not return, when several processes are asked for and this is not one of them.

    `refuse` raises beforehand what all of them would: a mistake is told once, and soon.
    """
    processes = _given().get("processes", 1)
    if processes > 1 and not launched():
        refuse(processes)
        from mdp.io.processes.launcher import launch

        raise click.exceptions.Exit(launch(processes, sys.argv[1:]))


def _nothing(processes: int) -> None:
    """Refuses nothing: what is wrong is found as soon by the processes themselves."""


def _show(found: Found, text: Callable[[Found], str], data: Callable[[Found], Any] | None = None,
          indent: int | None = 1) -> None:  # fmt: skip
    """Prints a result, for programs (`data` of it) or for people; of several processes one does."""
    if not speaks():
        return
    if "json" in _given():
        click.echo(json.dumps(data(found) if data else found, indent=indent))
    else:
        click.echo(text(found))


def _quiet() -> bool:
    return "quiet" in _given()


# Values


def _files(folder: str, *first: str) -> Choice[str]:
    """What a folder of this package has a file for, these first; nothing is imported."""
    names = {path.stem for path in (Path(__file__).parent / folder).glob("[a-z]*.py")}
    return Choice([*first, *sorted(names - set(first))])


def _complete_datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from mdp.io.datasets import names

    return _in_a_list(names(), incomplete)


def _complete_criteria(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _in_a_list(_files("core/criteria", "cross_entropy").choices, incomplete)


def _complete_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from mdp.io.run.folder import known

    return _or_files(map(str, known()), incomplete)


def _complete_recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from mdp.io.recipe.shelf import recipe_names

    return _or_files(recipe_names(), incomplete)


def _in_a_list(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """The words that begin as what stands behind the last comma."""
    done, comma, last = incomplete.rpartition(",")
    return [CompletionItem(done + comma + word) for word in words if word.startswith(last)]


def _or_files(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """The words that begin so; the shell completes paths where none does (bash takes what stands after `file` only)."""
    plain = [CompletionItem(word) for word in words if word.startswith(incomplete)]
    return [CompletionItem(incomplete, type="file"), *plain]


def _gallery_count(value: str | None) -> int | None:
    if value is None or (value.isdecimal() and 1 <= int(value) <= 1000):
        return None if value is None else int(value)
    raise click.BadParameter(f"expected a number of images, 1 to 1000, got {value!r}; RUN goes before --gallery")


Kind = dict[str, Any]  # what options of one kind are declared with
FLAG: Kind = {"is_flag": True}
FILE = click.Path(path_type=Path)
RECIPE: Kind = {"metavar": "NAME|FILE", "type": FILE, "shell_complete": _complete_recipes}
NEWEST: Kind = {"shell_complete": _complete_runs}  # a run, of which some command takes the newest
RUN: Kind = {"metavar": "RUN|FILE", "type": FILE, **NEWEST}
SOURCE: Kind = {"metavar": "RUN|FILE|timm:NAME|scratch|colors", **NEWEST}
DATASET: Kind = {"metavar": "NAME|FILE.yaml", "shell_complete": _complete_datasets}
DATASETS: Kind = {"metavar": "A,B,C.yaml", "shell_complete": _complete_datasets, "multiple": True}
ROOT: Kind = {"envvar": ["MDP_ROOT", "MDP_DATA"]}
MODE, BAD_SAMPLE = Choice(["whole", "slide"]), Choice(["stop", "skip"])
SIDE = IntRange(16, 8192)  # pixels
GALLERY = 24  # images

# Options of several commands

root = option("--root", "Folder of the datasets.", **ROOT, default="data")
own_root = setting("--root", "data.root", "Folder of the datasets [default: ./data].", **ROOT)
dry_run = setting("--dry-run", "dry_run", "Say what the run would need, and stop.", **FLAG)
result = setting("--json as_json", "json", "Print the result as JSON on stdout.", **FLAG)
facts = setting("--json as_json", "json", "Print as JSON.", **FLAG)
quiet = setting("-q --quiet", "quiet", "No progress on stderr.", **FLAG)
weights = option("--weights", "Of a run with an EMA: that [default], or the weights of its last step.",
                 Choice(["ema", "raw"]))  # fmt: skip
head = setting("--head", "model.head", "Segmentation head [default: deeplabv3].",
               _files("core/networks/heads", "deeplabv3", "deeplabv3plus", "fcn", "deeplabv3_torchvision"))  # fmt: skip
backbone = setting("--backbone", "model.backbone",
                   "resnet18, 34, 50 or 101, with _v1c for MMSegmentation's stem, or timm:NAME.")  # fmt: skip
device = setting("--device", "run.device", "auto, cpu, cuda, cuda:N or mps.")
workers = setting("--workers", "run.workers", "Loader processes; 0 loads in the main process.", int)
processes = setting("--processes", "processes", "Processes that share the work, one for each GPU.", IntRange(1, 1024))
boundary = option("--boundary", "How far boundaries reach, in shares of the diagonal.", default="0.03",
                  read=lambda text: tuple(words.numbers(text, "0.02,0.03")))  # fmt: skip


def which(about: str) -> Decorator:
    return option("--which", about, Choice(["last", "best"]), default="last")


def config(about: str, example: str) -> Decorator:
    return together(
        setting("--config", "config", f"A recipe, or a YAML file of settings; {about}.", **RECIPE),
        setting("--set assignments", "assignments", f"Any setting: {example}.", multiple=True, metavar="KEY=VALUE"),
    )


job = together(
    own_root,
    device,
    workers,
    setting("--out", "out", "Folder to write to, instead of one under ./runs.", FILE),
    config("see `mdp recipe list` and `show`", "run.seed=1"),
    result,
    quiet,
)
frozen = together(  # of the commands that look at features as they are
    click.argument("source", **SOURCE),
    own_root,
    setting("--backbone", "model.backbone", "Of scratch, or of a FILE that does not show it."),
    option("--init-from start", "Where in the file the backbone's names begin.", default="", metavar="PREFIX"),
    setting("--seed", "run.seed", "Seed of all that is drawn.", int),
    device,
    workers,
    config("its section model counts", "model.width=32"),
    option("--out", "Folder for scores and pictures, instead of one in the folder of RUN.", FILE),
    result,
    quiet,
)


def training(phase: str) -> Decorator:
    """The options that pretrain and finetune have besides."""
    return together(
        processes,
        setting("--epochs", f"{phase}.epochs", "Passes over the training images.", int),
        setting("--steps", f"{phase}.steps", "Steps in all.", int),
        setting("--batch-size", f"{phase}.batch_size", "Images a step.", int),
        setting("--lr", f"{phase}.lr", "Learning rate at the start.", float),
        setting("--optimizer", f"{phase}.optimizer", "What makes updates of gradients [default: sgd].",
                _files("io/training/optimizers", "sgd")),
        setting("--seed", "run.seed", "Seed of weights, order and augmentation.", int),
        setting("--overwrite", "overwrite", "Replace the run in --out.", **FLAG),
        setting("--resume", "resume", "Go on with an interrupted run (the newest; with --out, the one there, if any).",
                is_flag=False, flag_value="", metavar="[RUN]", **NEWEST),
        setting("--init-from", "run.init_from", "Where in the --init file the backbone's names begin.",
                metavar="PREFIX"),
        setting("--init-partial", "run.init_partial", "Take what fits of --init, also where much is missing.", **FLAG),
        setting("--precision", "run.precision", "Of networks in training.", Choice(["auto", "fp32", "bf16", "fp16"])),
        setting("--cache", "run.cache", "Keep photos decoded [default: off].", Choice(["off", "memory", "device"])),
        setting("--compile/--no-compile compiled", "run.compile", "Compile the networks."),
        setting("--accumulate", "run.accumulate", "Take each batch in so many parts, for less memory.", int),
        setting("--deterministic", "run.deterministic", "Use torch's deterministic algorithms.", **FLAG),
        setting("--on-bad-sample", "run.on_bad_sample", "When an image cannot be read.", BAD_SAMPLE),
        setting("--check/--no-check checked", "run.check", "Look at all files first [default: once]."),
        setting("--tensorboard/--no-tensorboard", "run.tensorboard", "Write event files (extra: tensorboard)."),
        setting("--wandb/--no-wandb", "run.wandb", "Tell Weights & Biases (extra: wandb)."),
        setting("--mlflow/--no-mlflow", "run.mlflow", "Tell MLflow (extra: mlflow)."),
        setting("--print-config", "print_config", "Print the YAML that reproduces the call, and stop.", **FLAG),
    )  # fmt: skip


def _train(kind: str) -> None:
    request = _request()
    from mdp.io.run.folder import ending_of
    from mdp.io.training.job import PHASES, refuse_early, run_phase

    phase = PHASES[kind]
    if "print_config" in _given():
        click.echo(phase.yaml(request), nl=False)
    elif "dry_run" in _given():
        click.echo(json.dumps(phase.describe(request), indent=2))
    else:
        _launch(partial(refuse_early, phase, request))
        folder = run_phase(phase, request)
        if speaks():
            _show(ending_of(folder), lambda ended: str(ended["run"]), indent=None)


# Commands


@command("pretrain", "--datasets voc,ade20k --epochs 200", "--datasets voc,my_site.yaml --mix both --batch-size 32",
         "--resume", "--datasets shapes-coarse,shapes-fine --config examples/recipes/tiny.yaml")  # fmt: skip
@setting("--datasets", "pretrain.datasets", "Names or YAML files, comma-separated or repeated; NAME:SPLIT picks a "
         "split.", read=words.names, **DATASETS)  # fmt: skip
@setting("--method", "method.name", "Pretraining method; see `mdp methods`.")
@backbone
@head
@setting("--mix", "method.mix", "Mix images across datasets.", Choice(["none", "region", "pixel", "both"]),
         lambda mix: {"region": mix in ("region", "both"), "pixel": mix in ("pixel", "both")})  # fmt: skip
@setting("--sparse", "method.sparse.variant", "Cross-class sparse coding.", Choice(["off", "csc1", "csc2"]))
@setting("--balance/--no-balance", "pretrain.balance", "Give every dataset an equal share of the images.")
@setting("--init", "init", "Start a fresh run from these weights.", metavar="RUN|FILE", **NEWEST)
@dry_run
@training("pretrain")
@job
def pretrain() -> None:
    """Pretrain one backbone on the union of several datasets."""
    _train("pretrain")


@command("finetune", "--target cityscapes",
         "--target my_site.yaml --init runs/pretrain/2026-11-20_1432_voc+ade20k --steps 5000",
         "--target voc --init scratch --criterion cross_entropy,dice=3")  # fmt: skip
@setting("--target", "finetune.target", "Dataset to fine-tune on.", **DATASET)
@setting("--init", "init", "Weights to start from [default: the newest pretraining run].", **NEWEST,
         metavar="RUN|FILE|scratch")  # fmt: skip
@backbone
@setting("--images", "finetune.images", "Train on so many images only, drawn by the seed.", int)
@setting("--backbone-only", "finetune.load", "Load the backbone but not the head.", read=lambda _: ["backbone"], **FLAG)
@head
@setting("--criterion", "criterion", "What is minimised, and what is added to it; see `mdp methods`.",
         read=words.criteria, metavar="NAME[,NAME=WEIGHT]...", shell_complete=_complete_criteria)  # fmt: skip
@setting("--head-init", "finetune.head_init", "Start the classifier at random, or from the prototypes of related "
         "source classes.", Choice(["random", "prototypes"]))  # fmt: skip
@dry_run
@training("finetune")
@job
def finetune() -> None:
    """Fine-tune a segmentor on a target dataset."""
    _train("finetune")


@command("eval", "", "runs/finetune/2026-11-20_1432_cityscapes --mode slide --save",
         "--scales 0.5,0.75,1,1.25,1.5,1.75 --flip", "--split val --json > scores.json",
         "runs/finetune/2026-11-20_1432_cityscapes --gallery 36")  # fmt: skip
@click.argument("run", required=False, **NEWEST)
@setting("--target", "target", "Another dataset with the same classes.", **DATASET)
@setting("--split", "eval.split", "Split to score [default: the dataset's validation split].")
@which("Checkpoint to score; best was chosen by the validation split.")
@weights
@setting("--mode", "eval.mode", "Whole images or sliding windows.", MODE)
@setting("--images", "eval.images", "Score the first so many images only.", int)
@setting("--scales", "eval.scales", "Average the scores of the image at several ratios of its size.",
         read=partial(words.numbers, such_as="0.5,1,1.5"), metavar="0.5,1,1.5")  # fmt: skip
@setting("--flip/--no-flip", "eval.flip", "Average with the mirrored image's scores.")
@setting("--max-memory", "eval.max_memory", "Memory to take beyond network and image.", metavar="2GB")
@option("--save", "Keep label PNGs and overlays of the predictions.", **FLAG)
@option("--gallery", f"Draw the N [{GALLERY}] images with the lowest mIoU, beside their labels and errors.",
        read=_gallery_count, is_flag=False, flag_value=str(GALLERY), metavar="[N]")  # fmt: skip
@option("--save-as", "Keep predictions as that benchmark's server takes them.", Choice(["cityscapes", "imagenet-s"]),
        multiple=True)  # fmt: skip
@option("-v --verbose", "Print the mean IoU by other rules too.", **FLAG)
@processes
@job
def evaluate(run: str | None, which: str, weights: str | None, save: bool, gallery: int | None,
             save_as: tuple[str, ...], verbose: bool) -> None:  # fmt: skip
    """Score a fine-tuned segmentor at the labels' own resolution.

    Without RUN the newest fine-tuning run is scored.  Of a --config, the sections run, data and eval are read: the
    network is the run's.
    """
    request = _request(init=run)
    from mdp.io.evaluation.job import refuse_early, run_evaluation
    from mdp.io.evaluation.scores import table

    _launch(lambda _: refuse_early(request, which, weights))
    scores, folder = run_evaluation(request, which, save, save_as, gallery, weights)
    if speaks():
        _show(scores, partial(table, verbose=verbose), indent=None)
        stderr.say(f"written to {folder}")


@command("predict", "photos/ --out predictions --overlay",
         "'photos/**/*.jpg' --run runs/finetune/2026-11-20_1432_cityscapes --mode slide",
         "photos/ --out predictions --skip-existing")  # fmt: skip
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO|FOLDER|'PATTERN'...", type=click.Path())
@setting("--run", "init", "Fine-tuning run, or a checkpoint of one [default: the newest].", metavar="RUN", **NEWEST)
@which("Checkpoint of the run; best was chosen by the validation split.")
@weights
@setting("--out", "out", "Folder to write to [default: a new one in RUN/predict].", FILE)
@option("--overlay", "Also write the photos, tinted by class.", **FLAG)
@option("--probabilities", "Also write .npy files, float16 (classes, height, width): large.", **FLAG)
@option("--raw", "Write the values of the dataset's own label maps, not class numbers.", **FLAG)
@setting("--mode", "eval.mode", "Whole images or sliding windows [default: RUN's].", MODE)
@option("--skip-existing", "Go on in --out: leave photos out whose files are there.", **FLAG)
@option("--overwrite", "Replace files in --out.", **FLAG)
@setting("--on-bad-sample", "run.on_bad_sample", "When a photo cannot be read.", BAD_SAMPLE, default="stop")
@device
@workers
@config("run and eval are read", "eval.scale=[2048,512]")
@result
@quiet
def predict(photos: tuple[str, ...], which: str, weights: str | None, overlay: bool, probabilities: bool, raw: bool,
            skip_existing: bool, overwrite: bool) -> None:  # fmt: skip
    """Predict label maps for photos of any size.

    Folders are searched at any depth, and what is made of FOLDER/a/x.jpg is OUT/labels/a/x.png: a palette PNG whose
    values are the class numbers of OUT/classes.csv.  Of a GeoTIFF there is x.tif besides, with the photo's
    georeference.  Photos are taken as they are stored: an EXIF rotation is not applied.
    """
    if skip_existing and overwrite:
        raise click.UsageError("--skip-existing keeps files and --overwrite replaces them; give one of the two")
    if skip_existing and "out" not in _given():
        raise click.UsageError("--skip-existing needs --out, the folder to go on in")
    request = _request()
    with unsearched():
        from mdp.io.inference.job import Wanted, run_predictions

    existing = "skip" if skip_existing else "overwrite" if overwrite else "stop"
    wanted = Wanted(photos=photos, overlays=overlay, probabilities=probabilities, raw=raw, existing=existing,
                    which=which, weights=weights)  # fmt: skip
    _show(run_predictions(request, wanted), lambda done: str(done["out"]), indent=None)


@command("export", "runs/pretrain/2026-11-20_1432_voc+ade20k --to torchvision",
         "runs/pretrain/2026-11-20_1432_voc+ade20k --to hub --out models",
         "runs/finetune/2026-11-20_1832_cityscapes --to onnx --segmentor")  # fmt: skip
@click.argument("run", **RUN)
@option("--to target", "Library that loads it.", Choice(target_names()), required=True)
@option("--out", "Folder to write to [default: RUN/export].", FILE)
@which("Checkpoint to take.")
@weights
@option("--segmentor", "The whole fine-tuned network, not only its backbone.", **FLAG)
@option("--size", "For images of this size only; onnx, torch_export [default: any].", IntRange(1, 16384), nargs=2,
        metavar="HEIGHT WIDTH")  # fmt: skip
@option("--overwrite", "Replace what has the same name and says something else.", **FLAG)
@result
def export(run: Path, target: str, out: Path | None, which: str, weights: str | None, segmentor: bool,
           size: tuple[int, int] | None, overwrite: bool) -> None:  # fmt: skip
    """Write the weights of a run as another library loads them, and check that they give the same features there."""
    with unsearched():
        from mdp.io.export.job import as_json, report, run_export

    _show(run_export(run, target, out, which, segmentor, overwrite, weights, size), report, as_json)


@command("compare", "--target cityscapes --start scratch --start imagenet:resnet50.pth --start run:runs/pretrain/x",
         "--target my.yaml --start scratch --start ours=run:runs/x-{seed} --fractions 1/8 --seeds 5",
         "--show runs/compare/cityscapes")  # fmt: skip
@setting("--target", "finetune.target", "Dataset to fine-tune on.", **DATASET)
@option("--start starts", "scratch, run:FOLDER, weights:FILE or imagenet:FILE (its backbone only); repeat it.",
        multiple=True, metavar="[NAME=]KIND:PATH")  # fmt: skip
@option("--fractions", "Shares of the training images.", default="1/8,1/4,1")
@option("--seeds", "Seeds 0, 1, ... of each cell.", IntRange(1, 1000), default=3)
@option("--split", "Split to score [default: the dataset's validation split].")
@option("--against", "Compare with this start [default: the first].", multiple=True, metavar="NAME")
@option("--keep", "Keep the checkpoints of cells that are scored.", **FLAG)
@option("--redo", "Run cells again that were made with other settings or data; the old ones are kept aside.", **FLAG)
@setting("--steps", "finetune.steps", "Fine-tuning steps, the same for all.", int)
@option("--show", "Print the tables of this compare.json, or of a folder of them, and run nothing.", FILE)
@job
def compare(starts: tuple[str, ...], fractions: str, seeds: int, split: str | None, against: tuple[str, ...],
            keep: bool, redo: bool, show: Path | None) -> None:  # fmt: skip
    """Fine-tune one target from several starting points, with the same budget, and say what can be claimed.

    What was done before is kept and what was interrupted goes on.  {seed} in a path is the cell's seed;
    NAME=KIND:PATH?key=value sets something for one start.
    """
    from mdp.io.report.compared import as_json, comparisons, read_comparison, reports

    if show is None:
        from mdp.io.studies.compare import parse_comparison, run_comparison

        if not starts:
            raise click.UsageError("give --start at least once, such as --start scratch --start run:FOLDER")
        show = run_comparison(_request(), parse_comparison(starts, fractions, seeds, split, against, keep, redo))
        stderr.say(f"written to {show}")
    _show([read_comparison(file) for file in comparisons(show)], reports, as_json, indent=None)


@command("report", "runs/pretrain/2026-11-20_1432_voc+ade20k", "runs/pretrain/a runs/pretrain/b --out both.html")
@click.argument("folders", nargs=-1, required=True, metavar="RUN...", type=FILE, **NEWEST)
@option("--out", "File to write [default: report.html in the first RUN].", FILE)
@option("-q --quiet", "Do not print where the page is.", **FLAG)
def write_report(folders: tuple[Path, ...], out: Path | None, quiet: bool) -> None:
    """Write one HTML page about runs: curves, scores, pictures, settings and how they ended.

    Runs may still be going on.  The page is one file that needs no network; of several runs it shows the curves
    together and the settings that differ.  Results of `mdp compare` may be among them.
    """
    from mdp.io.report.job import run_report

    page = run_report(folders, out, stderr.say)
    if not quiet:
        click.echo(str(page))


@command("demo", "")
@option("--seed", "Seed of everything.", int, default=0)
@option("--out", "Folder for the three runs, instead of one under ./runs.", FILE)
@result
def demo(seed: int, out: Path | None) -> None:
    """Pretrain on two generated datasets, fine-tune a third with and without, compare.  Needs no files."""
    from mdp.io.studies.demo import run_demo, sentence

    _show(run_demo(seed, out), sentence, indent=None)


@cli.group(cls=Group, invoke_without_command=True)
@root
@facts
@click.pass_context
def datasets(ctx: click.Context, root: str) -> None:
    """List the built-in datasets and what of them is under --root; `init` describes a folder of your own.

    \b
      mdp datasets
      mdp datasets --root data --json
      mdp datasets init photos
    """
    if ctx.invoked_subcommand is None:
        from mdp.io.recipe.catalogue import dataset_rows, dataset_table

        _show(dataset_rows(Path(root)), dataset_table)


@command("init", "photos --out -", "photos --out walks.yaml --overwrite", group=datasets)
@click.argument("folder", type=FILE)
@option("--out", "The YAML file to write, instead of FOLDER/NAME.yaml; - prints it.", metavar="FILE.yaml|-")
@option("--overwrite", "Replace the file.", **FLAG)
def datasets_init(folder: Path, out: str | None, overwrite: bool) -> None:
    """Look at a folder of photos and labels of any layout, and write the YAML file that describes it.

    What is not certain stands in it as a comment.  The path of the file is printed.
    """
    from mdp.io.datasets.draft.job import run_init

    click.echo(run_init(folder, out, overwrite))


@command("check", "voc ade20k", "my_site.yaml --strict", "camvid:train camvid:test --images 50 --json")
@click.argument("names", nargs=-1, metavar="[NAME|FILE.yaml[:SPLIT]]...", shell_complete=_complete_datasets)
@option("--datasets", "The same, comma-separated or repeated.", **DATASETS)
@root
@option("--workers", "Processes that read [default: one a core, 16 at most].", IntRange(0, 1024))
@option("--images", "Look at so many images of a split only, evenly spaced.", IntRange(1))
@option("--strict", "Take warnings for errors.", **FLAG)
@result
@quiet
def check(names: tuple[str, ...], datasets: tuple[str, ...], root: str, workers: int | None, images: int | None,
          strict: bool) -> None:  # fmt: skip
    """Read every image of datasets and say what is in them and what is wrong.

    Without SPLIT these are the splits that are trained and scored on.  Exit code 3 when there are errors.
    """
    with unsearched():
        from mdp.io.check.job import run_check
        from mdp.io.check.report import expect_sound, report_json, report_text

    reports = run_check(words.names((*names, *datasets)), Path(root), workers, images, _quiet())
    _show(reports, report_text, report_json)
    expect_sound(reports, strict)


@command("methods", "")
def methods() -> None:
    """List the pretraining methods, and the criteria of fine-tuning."""
    from mdp.io.recipe.catalogue import method_lines

    click.echo("\n".join(method_lines()))


@cli.group(cls=Group)
def recipe() -> None:
    """Settings and where they come from."""


@command("show", "", "--target cityscapes", "--method moco", "tiny", "examples/recipes/tiny.yaml", group=recipe)
@click.argument("file", required=False, **RECIPE)
@option("--target", "With the published fine-tuning schedule of this dataset.", default="")
@option("--method", "With the settings and the schedule of this pretraining method.", default="")
def recipe_show(file: Path | None, target: str, method: str) -> None:
    """Print every setting with its default, or with the values of a recipe: a NAME of `mdp recipe list` or a FILE."""
    from mdp.io.recipe.published import recipe_yaml

    click.echo(recipe_yaml(file, target, method), nl=False)


@command("list", "", "examples/recipes/paper --json", group=recipe)
@click.argument("folder", required=False, type=FILE)
@facts
def recipe_list(folder: Path | None) -> None:
    """List the recipes that come with mdp, or those below FOLDER, with the figure that each should reach.

    `--config NAME` takes one, and `mdp recipe show NAME` prints it.
    """
    from mdp.io.recipe.catalogue import recipe_rows, recipe_table

    _show(recipe_rows(folder), recipe_table)


@command("inspect", "resnet50.pth", "moco_v2_800ep_pretrain.pth.tar --json",
         "deeplabv3.pth --backbone resnet101 --set model.channels=256")  # fmt: skip
@click.argument("file", **{**RUN, "metavar": "FILE|RUN"})
@setting("--backbone", "model.backbone", "Hold it against this backbone [default: the ResNet that its shapes show].")
@option("--init-from", "Where in the file the backbone's names begin.", default="", metavar="PREFIX")
@config("its section model counts", "model.channels=256")
@facts
def inspect(file: Path, init_from: str) -> None:
    """Say what a weights file holds, and what of it --init would take.  Exit code 5 when it would refuse it.

    Reads .pth files of torchvision, timm, MMSegmentation, MoCo, DINO, SwAV, Lightning and the like, safetensors, and
    checkpoints of mdp; nothing in them is executed.  mdp feeds RGB images normalised by ImageNet's mean and deviation,
    a fresh run on timm:NAME by those that timm gives for it.
    """
    from mdp.io.recipe.request import requested
    from mdp.io.weights import inspect as weights

    found = weights.inspect(file, requested(_given()).asked, init_from)
    _show(found, weights.inspection)
    weights.expect_usable(found)


@command("taxonomy", "runs/pretrain/2026-11-20_1432_voc+ade20k",
         "runs/pretrain/2026-11-20_1432_voc+ade20k --json > taxonomy.json")  # fmt: skip
@click.argument("run", **RUN)
@option("--truth", "Score the suggestions, and names alone, against this CSV file of relations.", FILE)
@option("--out", "Folder to write to [default: RUN/taxonomy].", FILE)
@option("--overwrite", "Replace what has the same name and says something else.", **FLAG)
@result
@quiet
def taxonomy(run: Path, truth: Path | None, out: Path | None, overwrite: bool) -> None:
    """Say which classes of a pretraining run's datasets may be the same thing, by its prototypes.

    Prints the best pairs, and writes tables, a mapping in YAML, a graph for Graphviz and taxonomy.html, a page with a
    map of all classes.
    """
    from mdp.io.studies.taxonomy import run_taxonomy, table

    found, folder = run_taxonomy(run, out, overwrite, truth)
    _show(found, table)
    if not _quiet():
        stderr.say(f"written to {folder}")


@command("suspects", "runs/finetune/2026-11-20_1432_cityscapes --target cityscapes",
         "runs/pretrain/2026-11-20_1432_voc+ade20k --target camvid --folds 2 --out suspects",
         "runs/pretrain/2026-11-20_1432_voc+ade20k --target voc:train --json")  # fmt: skip
@option("--target", "Dataset whose labels are doubted: its training images, or those of NAME:SPLIT.", required=True,
        **DATASET)  # fmt: skip
@option("--folds", "Fit classes to frozen features, in so many folds, each without the images that it judges "
        "[default: RUN's own classifier or prototypes].", type=IntRange(2, 1000))  # fmt: skip
@option("--size", "Longer side at which frozen features see photos.", SIDE, default=320)
@option("--show shown", "Suspects of each kind on the page.", IntRange(1, 1000), default=24)
@frozen
def suspects(source: str, target: str, folds: int | None, size: int, shown: int, start: str, out: Path | None) -> None:
    """Rank the labels of a dataset by how strongly a model disagrees with them: probable mistakes.

    Regions with another name than the model's, regions without a label that the model knows, label maps that fit their
    photos better when moved by a few pixels, and classes that are called each other; with a page of crops.
    """
    from mdp.io.suspects.job import Asked, run_suspects, suspects_table

    asked = Asked(source=source, target=target, folds=folds, size=size, shown=shown, start=start, out=out)
    _show(run_suspects(asked, _layer(), _quiet())[0], suspects_table)


@command("retrieve", "runs/pretrain/2026-11-20_1432_voc+ade20k --target voc --out retrieved",
         "moco_v2_800ep_pretrain.pth.tar --target camvid:test --size 256",
         "scratch --backbone resnet50 --target voc", "colors --target voc --json")  # fmt: skip
@option("--target", "Dataset with labels; NAME:SPLIT asks about another split than the validation images.",
        required=True, **DATASET)  # fmt: skip
@option("--regions", "Regions of an image.", IntRange(1, 10_000), default=15)
@option("--size", "Both sides that images are resized to.", SIDE, default=512)
@processes
@frozen
def retrieve(source: str, target: str, regions: int, size: int, start: str, out: Path | None) -> None:
    """Score features without training anything: each region of an image takes the label of the nearest one known.

    The features of a run, a file of weights, of timm's published weights (those on this machine; nothing is fetched),
    and as controls of random weights (scratch) or of colours alone (colors).  Stride 16, by dilating the last stage.
    """
    from mdp.io.unsupervised.retrieve import Asked, refuse_early, retrieval_table, run_retrieval

    asked, layer = Asked(source=source, target=target, regions=regions, size=size, start=start, out=out), _layer()
    _launch(lambda _: refuse_early(asked, layer))
    _show(run_retrieval(asked, layer, _quiet()), retrieval_table)


@command("probe", "runs/pretrain/2026-11-20_1432_voc+ade20k --target voc --out probed",
         "moco_v2_800ep_pretrain.pth.tar --target camvid:test --classifier svm",
         "colors --folders by_class --classifier logistic --json")  # fmt: skip
@option("--target", "Dataset whose label maps say what is in an image; NAME:SPLIT scores another split.",
        default="", **DATASET)  # fmt: skip
@option("--folders", "A folder with a folder of photos for each class, or with train and val of such.", FILE)
@option("--classifier", "What is fitted [default: svm with --target, logistic with --folders].",
        Choice(["logistic", "svm", "sgd"]))  # fmt: skip
@option("--size", "Sides of what the backbone sees.", SIDE, default=224)
@option("--epochs", "Passes over the training images with sgd.", IntRange(1, 100_000), default=100)
@option("--lr", "Learning rate at the start with sgd.", FloatRange(0, 1e6, min_open=True), default=30.0)
@processes
@frozen
def probe(source: str, target: str, folders: Path | None, classifier: str | None, size: int, epochs: int, lr: float,
          start: str, out: Path | None) -> None:  # fmt: skip
    """Fit a linear classifier to frozen features and score it: what is in a photo, by the network's own features.

    Features come from what `mdp retrieve` takes.  Prints mAP where images have several classes, else top-1.
    """
    from mdp.io.unsupervised.probe import Asked, probe_table, refuse_early, run_probe

    asked = Asked(source=source, target=target, folders=folders, classifier=classifier, size=size, epochs=epochs,
                  rate=lr, start=start, out=out)  # fmt: skip
    layer = _layer()
    _launch(lambda _: refuse_early(asked, layer))
    _show(run_probe(asked, layer, _quiet()), probe_table)


@command("propagate", "runs/pretrain/2026-11-20_1432_voc+ade20k --frames bear/frames --masks bear/masks --out carried",
         "colors --frames bear/frames --masks bear/masks --json")  # fmt: skip
@option("--frames", "Folder of photos, in the order of their names.", FILE, required=True)
@option("--masks", "Folder with NAME.png of the first frame; those of others are scored.", FILE, required=True)
@option("--size", "Short side that frames are resized to.", SIDE, default=480)
@option("--context", "Earlier frames that are asked, besides the first.", IntRange(1, 10_000), default=20)
@option("--neighbours", "Most similar cells that speak for a cell.", IntRange(1, 10_000), default=10)
@option("--radius", "How many cells away they may lie.", FloatRange(0, 10_000), default=12.0)
@option("--temperature", "Of their weights: exp(cosine / temperature).", FloatRange(1e-4, 100), default=0.05)
@frozen
def propagate(source: str, frames: Path, masks: Path, size: int, context: int, neighbours: int, radius: float,
              temperature: float, start: str, out: Path | None) -> None:  # fmt: skip
    """Carry the mask of a video's first frame through the others by frozen features alone, and score it by J and F.

    Features come from what `mdp retrieve` takes, at stride 8 where the backbone can be dilated.
    """
    from mdp.io.unsupervised.propagate import Asked, propagation_table, run_propagation

    asked = Asked(source=source, frames=frames, masks=masks, size=size, context=context, neighbours=neighbours,
                  radius=radius, temperature=temperature, start=start, out=out)  # fmt: skip
    _show(run_propagation(asked, _layer(), _quiet()), propagation_table)


@cli.group(cls=Group)
def luss() -> None:
    """Segmentation without labels, and its benchmark, ImageNet-S."""


@command("cluster", "runs/pretrain/x --target my_site.yaml --clusters 2 --out luss",
         "resnet50.pth --target photos --clusters 2 --restarts 5 --out other", group=luss)  # fmt: skip
@click.argument("source", metavar="RUN|FILE|timm:NAME", **NEWEST)
@option("--target", "Dataset whose training photos are clustered; NAME:SPLIT picks a split.", required=True, **DATASET)
@setting("--clusters", "luss.clusters", "How many [default: as the target has categories].", int)
@setting("--features", "luss.features", "Of a photo's mean, its mean by attention, or its cells [default: attention "
         "where the run has some].", Choice(["pooled", "attention", "pixels"]))  # fmt: skip
@setting("--restarts", "luss.restarts", "Of k-means [default: 30].", int)
@setting("--seed", "run.seed", "Of the photos that clusters begin at.", int)
@setting("--overwrite", "overwrite", "Do it again where it was done with something else.", **FLAG)
@processes
@job
def luss_cluster(source: str, target: str) -> None:
    """Cluster the photos of a dataset by what a frozen network sees in them.

    Two stages, OUT/features and OUT/clusters, each of which is gone on with where it was stopped and kept where it is
    done: centroids.safetensors, assignment.csv and clusters.json.  Photos in folders of categories are compared with
    these, which uses labels and changes nothing.
    """
    from mdp.io.unsupervised.pipeline.cluster import clusters_table, run_clustering

    _launch(_nothing)
    found = run_clustering(_request(), source, target)
    if speaks():
        _show(found, clusters_table)


@command("label", "luss --split val", "luss --split train", group=luss)
@click.argument("folder", metavar="LUSS", type=FILE)
@option("--split", "Split of the target to label.", default="train")
@setting("--threshold", "luss.threshold", 'Of attention, below which a pixel is "other" [default: what the sweep over '
         "another split chose].", float)  # fmt: skip
@setting("--labels", "luss.labels", "centroids: each pixel its nearest; activation: the photo's own category, where a "
         "linear classifier of photos is active [default: centroids].",
         Choice(["centroids", "activation"]))  # fmt: skip
@option("--foreground", "A folder of masks (white: foreground), which take the place of attention.", FILE)
@setting("--overwrite", "overwrite", "Do it again where it was done with something else.", **FLAG)
@processes
@job
def luss_label(folder: Path, split: str, foreground: Path | None) -> None:
    """Give each pixel of a split the nearest cluster of LUSS, the folder of `mdp luss cluster`.

    A stage, LUSS/labels-SPLIT: label maps, levels of attention, marks.npz, index.json; LUSS/labels.yaml is a dataset
    of them.
    """
    from mdp.io.unsupervised.pipeline.label import labels_text, run_labelling

    _launch(_nothing)
    found = run_labelling(_request(), folder, split, foreground)
    if speaks():
        _show(found, labels_text)


@command("run", "--target shapes-objects --out luss_demo", "--target imagenet_s50 --method pass_s --out s50",
         group=luss)  # fmt: skip
@option("--target", "Dataset to segment: `train` is learnt from, its validation split scored.", required=True,
        **DATASET)  # fmt: skip
@setting("--method", "method.name", "Pretraining method of the representation.")
@setting("--seed", "run.seed", "Seed of everything.", int)
@job
def luss_run(target: str) -> None:
    """Go the whole way from photos to segmentation without labels, each stage skipped where it is done.

    Representation, pixel attention, clusters, labels, fine-tuning on them, predictions, scores; OUT/pipeline.html has
    pictures of each.  Without --config it takes the recipe luss/TARGET, where there is one.
    """
    from mdp.io.unsupervised.pipeline.run import pipeline_text, run_pipeline

    _show(run_pipeline(_request(), target), pipeline_text)


@command("score", "predictions --target imagenet_s50", "predictions --target imagenet_s50:validation --matching none",
         "first_annotator --labels second_annotator --matching none --boundary 0.02,0.03,0.04",
         "luss --split val", group=luss)  # fmt: skip
@click.argument("predictions", type=FILE)
@option("--target", "Dataset that they are predictions for; NAME:SPLIT picks a split.", default="", **DATASET)
@option("--labels", "A folder of label maps in its place; 1000 is ignored.", FILE)
@root
@option("--matching", "How categories get their names: images (in which both occur), none (their numbers are right), "
        "or a match.json.", default="images", metavar="images|none|FILE.json")  # fmt: skip
@boundary
@option("--out", "Folder to write scores.json and match.json to.", FILE)
@option("--submission", "Archive to write for the benchmark's servers, such as for imagenet_s50:test.", FILE)
@option("--method", "Text of the submission's method.txt.", FILE)
@option("--split", "PREDICTIONS is a folder of `mdp luss label`, of which this split is scored.", default="")
@option("--sweep", "Of a --split: choose the threshold of attention with the best mIoU.", **FLAG)
@option("--overwrite", "Of a --split: score again.", **FLAG)
@result
@quiet
def luss_score(predictions: Path, target: str, labels: Path | None, root: str, matching: str,
               boundary: tuple[float, ...], out: Path | None, submission: Path | None, method: Path | None, split: str,
               sweep: bool, overwrite: bool) -> None:  # fmt: skip
    """Score a folder of predicted label maps by all rules of ImageNet-S.

    A photo's prediction lies at the photo's own path with the ending .png: numbers in grey, or red + 256 green; 0 is
    "other".  Means are over "other" and all categories, absent ones counting 0.
    """
    from mdp.io.unsupervised.pipeline.sweep import run_label_scores
    from mdp.io.unsupervised.score import Asked, run_score, score_table
    from mdp.io.unsupervised.submission import run_submission, submission_text

    if (split or sweep) and (target or labels or out or submission):
        raise click.UsageError("--split scores what `mdp luss label` made; leave --target, --labels, --out and "
                               "--submission out")  # fmt: skip
    asked = Asked(predictions=predictions, target=target, labels=labels, root=Path(root), matching=matching, out=out,
                  ratios=boundary)  # fmt: skip
    if split or sweep:
        found = run_label_scores(predictions, split or "validation", sweep, matching, overwrite, _quiet())
        _show(found, score_table)
    elif submission:
        _show(run_submission(asked, submission, method, _quiet()), submission_text)
    else:
        _show(run_score(asked, _quiet()), score_table)


@command("nearest", "runs/pretrain/2026-11-20_1432_voc+ade20k --target imagenet_s50",
         "moco_v2_800ep_pretrain.pth.tar --target imagenet_s50:validation --out nearest",
         "scratch --backbone resnet18 --target camvid:test", group=luss)  # fmt: skip
@click.argument("weights", **SOURCE)
@option("--target", "Dataset whose photos are scored; NAME:SPLIT picks a split.", required=True, **DATASET)
@option("--labelled", "Split whose labels are matched with [default: the dataset's training split].", default="")
@backbone
@setting("--init-from", "run.init_from", "Where in the file the backbone's names begin.", metavar="PREFIX")
@setting("--neighbours", "luss.neighbours", "Labelled regions that vote [default: 10].", int)
@setting("--temperature", "luss.temperature", "Of the vote [default: 0.07].", float)
@setting("--short-side", "luss.short_side", "Pixels that photos are brought to [default: 256].", int)
@boundary
@own_root
@device
@workers
@processes
@setting("--out", "out", "Folder to write scores.json to.", FILE)
@config("its sections model, run, data and luss count", "run.seed=1")
@result
@quiet
def luss_nearest(weights: str, target: str, labelled: str, boundary: tuple[float, ...]) -> None:
    """Score features as they are: each pixel gets the class of the labelled regions nearest to it.

    Nothing is trained.  `scratch` are random weights and `colors` histograms of colours, as controls.  Scores are those
    of ImageNet-S.
    """
    from mdp.io.unsupervised.nearest import Asked, run_nearest
    from mdp.io.unsupervised.score import score_table

    _launch(_nothing)
    found = run_nearest(Asked(source=weights, target=target, labelled=labelled, request=_request(), ratios=boundary))
    if speaks():
        _show(found, score_table)


@cli.group(cls=Group)
def checkpoint() -> None:
    """Look into checkpoints: are they whole, what is in them, how do two differ."""


@command("verify", "runs/pretrain/2026-11-20_1432_voc+ade20k", "last.safetensors --json", group=checkpoint)
@click.argument("run", **RUN)
@facts
def checkpoint_verify(run: Path) -> None:
    """Say which checkpoints of a run are whole.  Exit code 5 when one is damaged."""
    from mdp.io.run.checkpoint_report import expect_whole, verify, verify_table

    verdicts = verify(run)
    _show(verdicts, verify_table)
    expect_whole(verdicts)


@command("show", "runs/finetune/2026-11-20_1432_cityscapes", "best.safetensors --json", group=checkpoint)
@click.argument("run", **RUN)
@facts
def checkpoint_show(run: Path) -> None:
    """Print what is in a checkpoint.  Of a run it is the last one."""
    from mdp.io.run.checkpoint_summary import describe, description

    _show(describe(run), description)


@command("diff", "runs/pretrain/a runs/pretrain/b", "last.safetensors best.safetensors", group=checkpoint)
@click.argument("first", **RUN)
@click.argument("second", **RUN)
@facts
def checkpoint_diff(first: Path, second: Path) -> None:
    """Say what differs.  Exit code 0 when all tensors are the same bit for bit, else 5."""
    from mdp.io.run.checkpoint_report import difference, difference_text, expect_equal

    found = difference(first, second)
    _show(found, difference_text)
    expect_equal(found)


def main() -> None:
    """The entry point: an `MdpError` becomes one clean line and its exit code; anything else is our bug."""
    take_signals()
    sleep_soon()
    if launched():
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it would dump its stack when another process is lost
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a path is printed byte by byte as it is
    code, words, tells, say = 0, "", False, stderr.say
    try:
        heed()
        code = cli.main(prog_name="mdp", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        code, words = 130, "interrupted"
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        code = error.exit_code
    except BrokenPipeError:
        drop_output()
    except Stopped as error:
        code, words = Preempted.exit_code, str(error)
    except MdpError as error:
        code, words = error.exit_code, str(error) if isinstance(error, Preempted) else f"error: {error}"
        tells = isinstance(error, ProcessError) and error.tells
    except Exception:
        tell(Ending(1), say)
        raise
    end(Ending(code if isinstance(code, int) else 0, words, tells), say)

"""The command line: parse, one call into mdp.io, print.

stdout is data, stderr is progress.  torch is imported inside the commands, so that `--help` answers at once.
"""

import difflib
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from mdp import __version__

if TYPE_CHECKING:
    from mdp.io.recipe.request import Request

Command = TypeVar("Command", bound=Callable[..., None])
_HERE = Path(__file__).parent
EXPORT_TARGETS = ("torchvision", "timm", "smp", "mmseg", "safetensors", "onnx", "hub")


class Group(click.Group):
    """A group that lists its commands in order of use and suggests the nearest one for a typo."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"commands: {', '.join(self.commands)}"
            raise click.UsageError(f"no such command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=Group,
    context_settings={"auto_envvar_prefix": "MDP", "help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="mdp")
def cli() -> None:
    """Pretrain semantic segmentation on several labelled datasets at once.

    \b
      mdp demo                                          three minutes, no data needed
      mdp pretrain --datasets voc,ade20k --epochs 200   datasets under ./data
      mdp finetune --target cityscapes                  from the newest pretraining run
      mdp eval                                          the newest fine-tuning run
    """


# Options that several commands share


def _complete_datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    done, comma, last = incomplete.rpartition(",")
    files = sorted((_HERE / "io" / "datasets").glob("[a-z]*.py"))
    names = [path.stem.replace("_", "-") if path.stem.startswith("shapes") else path.stem for path in files]
    return [CompletionItem(done + comma + name) for name in names if name.startswith(last)]


def _complete_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    found = sorted(str(path) for path in Path("runs").glob("*/*") if path.is_dir())
    return [CompletionItem(path) for path in found if path.startswith(incomplete)]


def shared(command: Command) -> Command:
    """The options that every job has."""
    options = [
        click.option("--root", envvar=["MDP_ROOT", "MDP_DATA"], help="Folder of the datasets [default: ./data]."),
        click.option("--device", help="auto, cpu, cuda or cuda:N."),
        click.option("--workers", type=int, help="Loader processes; 0 loads in the main process."),
        click.option("--out", type=click.Path(path_type=Path), help="Folder to write to, instead of one under ./runs."),
        click.option("--config", type=click.Path(path_type=Path), help="YAML file of settings; see `mdp recipe show`."),
        click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting: run.seed=1."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."),
        click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


processes_option = click.option(
    "--processes", type=click.IntRange(1), help="Processes that share the work, one for each GPU."
)


head_option = click.option(
    "--head", type=click.Choice(["deeplabv3", "deeplabv3plus", "fcn", "deeplabv3_torchvision"]),
    help="Segmentation head [default: deeplabv3].",
)  # fmt: skip


def training(command: Command) -> Command:
    """The options that pretrain and finetune have besides."""
    options = [
        processes_option,
        click.option("--steps", type=int, help="Steps in all."),
        click.option("--batch-size", type=int, help="Images a step."),
        click.option("--lr", type=float, help="Learning rate at the start."),
        click.option("--seed", type=int, help="Seed of weights, order and augmentation."),
        click.option("--overwrite", is_flag=True, help="Replace the run in --out."),
        click.option("--resume", is_flag=False, flag_value="", metavar="[RUN]", shell_complete=_complete_runs,
                     help="Go on with an interrupted run (the newest; with --out, the one there, if any)."),
        click.option("--init-from", metavar="PREFIX", help="Where in the --init file the backbone's names begin."),
        click.option("--init-partial", is_flag=True, help="Take what fits of --init, also where much is missing."),
        click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), help="Of the networks in training."),
        click.option("--compile/--no-compile", "compiled", default=None, help="Compile the networks."),
        click.option("--accumulate", type=int, help="Take each batch in so many parts, for less memory."),
        click.option("--deterministic", is_flag=True, help="Use torch's deterministic algorithms."),
        click.option("--on-bad-sample", type=click.Choice(["stop", "skip"]), help="When an image cannot be read."),
        click.option("--check/--no-check", "checked", default=None, help="Look at all files first [default: once]."),
        click.option("--tensorboard/--no-tensorboard", default=None, help="Write event files (extra: tensorboard)."),
        click.option("--print-config", is_flag=True, help="Print the YAML that reproduces the call, and stop."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _request(
    flags: dict[str, Any],
    *,
    config: Path | None,
    assignments: tuple[str, ...],
    out: Path | None,
    quiet: bool,
    **others: Any,
) -> "Request":
    """The layers, in order of precedence, as the jobs want them; flags that were not given are left out."""
    from mdp.io.recipe.layers import config_layer, merge, nest, set_layer
    from mdp.io.recipe.request import Request

    given = merge(*(nest(key, value) for key, value in flags.items() if value is not None))
    layers = (config_layer(config), given, set_layer(assignments))
    return Request(layers=layers, out=out, quiet=quiet, **others)


def _finish(folder: Path, as_json: bool) -> None:
    """The result of a training command: its run folder."""
    if not _speaks():
        return
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    click.echo(json.dumps({"run": str(folder), **status}) if as_json else str(folder))


# Commands


@cli.command()
@click.option("--datasets", multiple=True, metavar="A,B,C.yaml", shell_complete=_complete_datasets,
              help="Names or YAML files, comma-separated or repeated; NAME:SPLIT picks a split.")  # fmt: skip
@click.option("--epochs", type=int, help="Passes over the union of all images.")
@click.option("--method", help="Pretraining method; see `mdp methods`.")
@click.option("--backbone", help="resnet18, 34, 50 or 101, with _v1c for MMSegmentation's stem, or timm:NAME.")
@head_option
@click.option("--mix", type=click.Choice(["none", "region", "pixel", "both"]), help="Mix images across datasets.")
@click.option("--sparse", type=click.Choice(["off", "csc1", "csc2"]), help="Cross-class sparse coding.")
@click.option("--balance/--no-balance", default=None, help="Give every dataset an equal share of the images.")
@click.option("--init", metavar="RUN|FILE", shell_complete=_complete_runs, help="Start a fresh run from these weights.")
@click.option("--dry-run", is_flag=True, help="Say what the run would need, and stop.")
@training
@shared
def pretrain(
    datasets: tuple[str, ...],
    epochs: int | None,
    method: str | None,
    backbone: str | None,
    head: str | None,
    mix: str | None,
    sparse: str | None,
    balance: bool | None,
    dry_run: bool,
    steps: int | None,
    batch_size: int | None,
    lr: float | None,
    processes: int | None,
    print_config: bool,
    as_json: bool,
    **others: Any,
) -> None:
    """Pretrain one backbone on the union of several datasets.

    \b
      mdp pretrain --datasets voc,ade20k --epochs 200
      mdp pretrain --datasets voc,my_site.yaml --mix both --batch-size 32
      mdp pretrain --resume
      mdp pretrain --datasets shapes-coarse,shapes-fine --config examples/recipes/tiny.yaml
    """
    names = [name.strip() for text in datasets for name in text.split(",") if name.strip()]
    flags = {
        "pretrain.datasets": names or None,
        "pretrain.epochs": epochs,
        "pretrain.steps": steps,
        "pretrain.batch_size": batch_size,
        "pretrain.balance": balance,
        "pretrain.lr": lr,
        "method.name": method,
        "method.mix.region": None if mix is None else mix in ("region", "both"),
        "method.mix.pixel": None if mix is None else mix in ("pixel", "both"),
        "method.sparse.variant": sparse,
        "model.backbone": backbone,
        "model.head": head,
        **_take(others, RUN_FLAGS),
    }
    request = _request(flags, **others)
    if not (print_config or dry_run):
        _launch(processes)
    from mdp.io.recipe.layers import as_yaml
    from mdp.io.training import job as training_job
    from mdp.io.training.pretraining import describe_pretraining, pretrain_recipe

    if print_config:
        click.echo(as_yaml(pretrain_recipe(request), ("run", "data", "model", "method", "pretrain")), nl=False)
    elif dry_run:
        click.echo(json.dumps(describe_pretraining(request), indent=2))
    else:
        _finish(training_job.run_pretraining(request), as_json)


@cli.command()
@click.option("--target", metavar="NAME|FILE.yaml", shell_complete=_complete_datasets, help="Dataset to fine-tune on.")
@click.option("--init", metavar="RUN|FILE|scratch", shell_complete=_complete_runs,
              help="Weights to start from [default: the newest pretraining run].")  # fmt: skip
@click.option("--images", type=int, help="Train on so many images only, drawn by the seed.")
@click.option("--backbone-only", is_flag=True, help="Load the backbone but not the head.")
@head_option
@click.option("--head-init", type=click.Choice(["random", "prototypes"]),
              help="Start the classifier at random, or from the prototypes of related source classes.")  # fmt: skip
@training
@shared
def finetune(
    target: str | None,
    images: int | None,
    backbone_only: bool,
    head: str | None,
    head_init: str | None,
    steps: int | None,
    batch_size: int | None,
    lr: float | None,
    processes: int | None,
    print_config: bool,
    as_json: bool,
    **others: Any,
) -> None:
    """Fine-tune a segmentor on a target dataset.

    \b
      mdp finetune --target cityscapes
      mdp finetune --target my_site.yaml --init runs/pretrain/2026-11-20_1432_voc+ade20k --steps 5000
      mdp finetune --target voc --init scratch
    """
    flags = {
        "finetune.target": target,
        "finetune.images": images,
        "finetune.steps": steps,
        "finetune.batch_size": batch_size,
        "finetune.lr": lr,
        "finetune.load": ["backbone"] if backbone_only else None,
        "finetune.head_init": head_init,
        "model.head": head,
        **_take(others, RUN_FLAGS),
    }
    request = _request(flags, **others)
    if not print_config:
        _launch(processes)
    from mdp.io.recipe.layers import as_yaml
    from mdp.io.training import job as training_job
    from mdp.io.training.finetuning import finetune_recipe

    if print_config:
        click.echo(as_yaml(finetune_recipe(request)[0], ("run", "data", "model", "finetune", "eval")), nl=False)
    else:
        _finish(training_job.run_finetuning(request), as_json)


GALLERY = 24  # images


def _gallery_count(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if not (value.isdecimal() and 1 <= int(value) <= 1000):
        raise click.BadParameter(f"expected a number of images, 1 to 1000, got {value!r}; RUN goes before --gallery")
    return int(value)


@cli.command("eval")
@click.argument("run", required=False, shell_complete=_complete_runs)
@click.option("--target", metavar="NAME|FILE.yaml", shell_complete=_complete_datasets,
              help="Another dataset with the same classes.")  # fmt: skip
@click.option("--split", help="Split to score [default: the dataset's validation split].")
@click.option("--which", type=click.Choice(["last", "best"]), default="last", show_default=True,
              help="Checkpoint to score; best was chosen by the validation split.")  # fmt: skip
@click.option("--mode", type=click.Choice(["whole", "slide"]), help="Whole images or sliding windows.")
@click.option("--images", type=int, help="Score the first so many images only.")
@click.option("--scales", metavar="0.5,1,1.5", help="Average the scores of the image at several ratios of its size.")
@click.option("--flip/--no-flip", default=None, help="Average with the mirrored image's scores.")
@click.option("--max-memory", metavar="2GB", help="Memory to take beyond network and image.")
@click.option("--save", is_flag=True, help="Keep label PNGs and overlays of the predictions.")
@click.option("--gallery", is_flag=False, flag_value=str(GALLERY), callback=_gallery_count, metavar="[N]",
              help=f"Draw the N [{GALLERY}] images with the lowest mIoU, beside their labels and errors.")  # fmt: skip
@click.option("--save-as", multiple=True, type=click.Choice(["cityscapes", "imagenet-s"]),
              help="Keep predictions as that benchmark's server takes them.")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Print the mean IoU by other rules too.")
@processes_option
@shared
def evaluate(
    run: str | None,
    target: str | None,
    split: str | None,
    which: str,
    mode: str | None,
    images: int | None,
    scales: str | None,
    flip: bool | None,
    max_memory: str | None,
    save: bool,
    gallery: int | None,
    save_as: tuple[str, ...],
    verbose: bool,
    processes: int | None,
    as_json: bool,
    **others: Any,
) -> None:
    """Score a fine-tuned segmentor at the labels' own resolution.

    Without RUN the newest fine-tuning run is scored.  Of a --config, the sections run, data and eval are read: the
    network is the run's.

    \b
      mdp eval
      mdp eval runs/finetune/2026-11-20_1432_cityscapes --mode slide --save
      mdp eval --scales 0.5,0.75,1,1.25,1.5,1.75 --flip
      mdp eval --split val --json > scores.json
      mdp eval runs/finetune/2026-11-20_1432_cityscapes --gallery 36
    """
    flags = {
        "eval.split": split,
        "eval.mode": mode,
        "eval.images": images,
        "eval.scales": None if scales is None else _numbers("--scales", scales),
        "eval.flip": flip,
        "eval.max_memory": max_memory,
        **_take(others, PLACE_FLAGS),
    }
    request = _request(flags, init=run, target=target or "", **others)
    _launch(processes)
    from mdp.io.evaluation.job import run_evaluation
    from mdp.io.evaluation.scores import table

    scores, folder = run_evaluation(request, which, save, save_as, gallery)
    if _speaks():
        click.echo(json.dumps(scores) if as_json else table(scores, verbose))
        click.echo(f"written to {folder}", err=True)


@cli.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO|FOLDER|'PATTERN'...", type=click.Path())
@click.option("--run", metavar="RUN", shell_complete=_complete_runs,
              help="Fine-tuning run, or a checkpoint of one [default: the newest].")  # fmt: skip
@click.option("--which", type=click.Choice(["last", "best"]), default="last", show_default=True,
              help="Checkpoint of the run; best was chosen by the validation split.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to [default: a new one in RUN/predict].")
@click.option("--overlay", is_flag=True, help="Also write the photos, tinted by class.")
@click.option("--probabilities", is_flag=True, help="Also write .npy files, float16 (classes, height, width): large.")
@click.option("--raw", is_flag=True, help="Write the values of the dataset's own label maps, not class numbers.")
@click.option("--mode", type=click.Choice(["whole", "slide"]), help="Whole images or sliding windows [default: RUN's].")
@click.option("--skip-existing", is_flag=True, help="Go on in --out: leave photos out whose files are there.")
@click.option("--overwrite", is_flag=True, help="Replace files in --out.")
@click.option("--on-bad-sample", type=click.Choice(["stop", "skip"]), default="stop", show_default=True,
              help="When a photo cannot be read.")  # fmt: skip
@click.option("--device", help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=int, help="Loader processes; 0 loads in the main process.")
@click.option("--config", type=click.Path(path_type=Path), help="YAML file of settings; run and eval are read.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting: eval.scale=[2048,512].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def predict(
    photos: tuple[str, ...],
    run: str | None,
    which: str,
    overlay: bool,
    probabilities: bool,
    raw: bool,
    mode: str | None,
    skip_existing: bool,
    overwrite: bool,
    as_json: bool,
    **others: Any,
) -> None:
    """Predict label maps for photos of any size.

    Folders are searched at any depth, and what is made of FOLDER/a/x.jpg is OUT/labels/a/x.png: a palette PNG whose
    values are the class numbers of OUT/classes.csv.  Photos are taken as they are stored: an EXIF rotation is not
    applied.

    \b
      mdp predict photos/ --out predictions --overlay
      mdp predict 'photos/**/*.jpg' --run runs/finetune/2026-11-20_1432_cityscapes --mode slide
      mdp predict photos/ --out predictions --skip-existing
    """
    if skip_existing and overwrite:
        raise click.UsageError("--skip-existing keeps files and --overwrite replaces them; give one of the two")
    if skip_existing and others["out"] is None:
        raise click.UsageError("--skip-existing needs --out, the folder to go on in")
    flags = {"eval.mode": mode, **_take(others, PREDICT_FLAGS)}
    request = _request(flags, init=run, **others)
    from mdp.io.inference.job import Wanted, run_predictions

    wanted = Wanted(
        photos=photos,
        overlays=overlay,
        probabilities=probabilities,
        raw=raw,
        existing="skip" if skip_existing else "overwrite" if overwrite else "stop",
        which=which,
    )
    done = run_predictions(request, wanted)
    click.echo(json.dumps(done) if as_json else done["out"])


@cli.command()
@click.argument("run", metavar="RUN|FILE", type=click.Path(path_type=Path), shell_complete=_complete_runs)
@click.option("--to", "target", required=True, type=click.Choice(EXPORT_TARGETS), help="Library that loads it.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to [default: RUN/export].")
@click.option("--which", type=click.Choice(["last", "best"]), default="last", show_default=True,
              help="Checkpoint to take.")  # fmt: skip
@click.option("--segmentor", is_flag=True, help="The whole fine-tuned network, not only its backbone.")
@click.option("--overwrite", is_flag=True, help="Replace what has the same name and says something else.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def export(
    run: Path, target: str, out: Path | None, which: str, segmentor: bool, overwrite: bool, as_json: bool
) -> None:
    """Write the weights of a run as another library loads them, and check that they give the same features there.

    \b
      mdp export runs/pretrain/2026-11-20_1432_voc+ade20k --to torchvision
      mdp export runs/pretrain/2026-11-20_1432_voc+ade20k --to hub --out models
      mdp export runs/finetune/2026-11-20_1832_cityscapes --to onnx --segmentor
    """
    from mdp.io.export import job as export_job

    found = export_job.run_export(run, target, out, which, segmentor, overwrite)
    click.echo(json.dumps(export_job.as_json(found), indent=1) if as_json else export_job.report(found))


def _numbers(option: str, text: str) -> list[float]:
    """The numbers of a comma-separated list."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"expected numbers such as 0.5,1,1.5, got {text!r}", param_hint=option) from error


PREDICT_FLAGS = {"device": "run.device", "workers": "run.workers", "on_bad_sample": "run.on_bad_sample"}
PLACE_FLAGS = {"root": "data.root", "device": "run.device", "workers": "run.workers"}
RUN_FLAGS = {
    **PLACE_FLAGS,
    "seed": "run.seed",
    "precision": "run.precision",
    "compiled": "run.compile",
    "accumulate": "run.accumulate",
    "deterministic": "run.deterministic",
    "on_bad_sample": "run.on_bad_sample",
    "init_from": "run.init_from",
    "init_partial": "run.init_partial",
    "checked": "run.check",
    "tensorboard": "run.tensorboard",
}


def _take(options: dict[str, Any], keys: dict[str, str]) -> dict[str, Any]:
    """Takes the named options out of `options`, under the keys of their settings; a flag that is off says nothing."""
    taken = {key: options.pop(name) for name, key in keys.items()}
    once = ("run.deterministic", "run.init_partial")  # flags without a --no-...
    return {key: None if value is False and key in once else value for key, value in taken.items()}


def _launch(processes: int | None) -> None:
    """Becomes the launcher, and does not return, when several processes are asked for and this is not one of them."""
    from mdp.io.processes.launcher import launch, launched

    if processes is not None and processes > 1 and not launched():
        raise click.exceptions.Exit(launch(processes, sys.argv[1:]))


def _speaks() -> bool:
    """Whether this process prints: of several, the first."""
    return os.environ.get("RANK", "0") == "0"


@cli.command()
@click.option("--target", metavar="NAME|FILE.yaml", shell_complete=_complete_datasets, help="Dataset to fine-tune on.")
@click.option("--start", "starts", multiple=True, metavar="[NAME=]KIND:PATH",
              help="scratch, run:FOLDER, weights:FILE or imagenet:FILE (its backbone only); repeat it.")  # fmt: skip
@click.option("--fractions", default="1/8,1/4,1", show_default=True, help="Shares of the training images.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Seeds 0, 1, ... of each cell.")
@click.option("--split", help="Split to score [default: the dataset's validation split].")
@click.option("--against", multiple=True, metavar="NAME", help="Compare with this start [default: the first].")
@click.option("--keep", is_flag=True, help="Keep the checkpoints of cells that are scored.")
@click.option("--steps", type=int, help="Fine-tuning steps, the same for all.")
@click.option("--show", type=click.Path(path_type=Path),
              help="Print the tables of this compare.json, or of a folder of them, and run nothing.")  # fmt: skip
@shared
def compare(
    target: str | None,
    starts: tuple[str, ...],
    fractions: str,
    seeds: int,
    split: str | None,
    against: tuple[str, ...],
    keep: bool,
    steps: int | None,
    show: Path | None,
    as_json: bool,
    **others: Any,
) -> None:
    """Fine-tune one target from several starting points, with the same budget, and say what can be claimed.

    What was done before is kept and what was interrupted goes on.  {seed} in a path is the cell's seed;
    NAME=KIND:PATH?key=value sets something for one start.

    \b
      mdp compare --target cityscapes --start scratch --start imagenet:resnet50.pth --start run:runs/pretrain/x
      mdp compare --target my.yaml --start scratch --start ours=run:runs/x-{seed} --fractions 1/8 --seeds 5
      mdp compare --show runs/compare/cityscapes
    """
    from mdp.io.report.compared import comparisons, read_comparison, report

    if show is None:
        from mdp.io.studies.compare import Comparison, parse_shares, parse_start, run_comparison

        if not starts:
            raise click.UsageError("give --start at least once, such as --start scratch --start run:FOLDER")
        asked = Comparison(
            starts=tuple(parse_start(text) for text in starts),
            shares=parse_shares(fractions),
            seeds=seeds,
            split=split,
            against=against,
            keep=keep,
        )
        flags = {"finetune.target": target, "finetune.steps": steps, **_take(others, PLACE_FLAGS)}
        show = run_comparison(_request(flags, **others), asked)
        click.echo(f"written to {show}", err=True)
    found = [read_comparison(file) for file in comparisons(show)]
    click.echo(json.dumps(found if len(found) > 1 else found[0]) if as_json else "\n\n".join(map(report, found)))


@cli.command("report")
@click.argument("folders", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path),
                shell_complete=_complete_runs)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="File to write [default: report.html in the first RUN].")
@click.option("-q", "--quiet", is_flag=True, help="Do not print where the page is.")
def write_report(folders: tuple[Path, ...], out: Path | None, quiet: bool) -> None:
    """Write one HTML page about runs: curves, scores, pictures, settings and how they ended.

    Runs may still be going on.  The page is one file that needs no network; of several runs it shows the curves
    together and the settings that differ.  Results of `mdp compare` may be among them.

    \b
      mdp report runs/pretrain/2026-11-20_1432_voc+ade20k
      mdp report runs/pretrain/a runs/pretrain/b --out both.html
    """
    from mdp.io.report.job import run_report

    place = run_report(folders, out)
    if not quiet:
        click.echo(str(place))


@cli.command()
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the three runs, instead of one under ./runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def demo(seed: int, out: Path | None, as_json: bool) -> None:
    """Pretrain on two generated datasets, fine-tune a third with and without, compare.  Needs no files.

    \b
      mdp demo
    """
    from mdp.io.studies.demo import run_demo, sentence

    result = run_demo(seed, out)
    click.echo(json.dumps(result) if as_json else sentence(result))


@cli.command()
@click.option(
    "--root", envvar=["MDP_ROOT", "MDP_DATA"], default="data", show_default=True, help="Folder of the datasets."
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def datasets(root: str, as_json: bool) -> None:
    """List the built-in datasets and what of them is under --root.

    \b
      mdp datasets
      mdp datasets --root data --json
    """
    from mdp.io.recipe.catalogue import dataset_rows, dataset_table

    rows = dataset_rows(Path(root))
    click.echo(json.dumps(rows, indent=1) if as_json else dataset_table(rows))


@cli.command()
@click.argument("names", nargs=-1, metavar="[NAME|FILE.yaml[:SPLIT]]...", shell_complete=_complete_datasets)
@click.option("--datasets", multiple=True, metavar="A,B,C.yaml", shell_complete=_complete_datasets,
              help="The same, comma-separated or repeated.")  # fmt: skip
@click.option(
    "--root", envvar=["MDP_ROOT", "MDP_DATA"], default="data", show_default=True, help="Folder of the datasets."
)
@click.option("--workers", type=click.IntRange(0), help="Processes that read [default: one a core, 16 at most].")
@click.option("--images", type=click.IntRange(1), help="Look at so many images of a split only, evenly spaced.")
@click.option("--strict", is_flag=True, help="Take warnings for errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def check(
    names: tuple[str, ...],
    datasets: tuple[str, ...],
    root: str,
    workers: int | None,
    images: int | None,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Read every image of datasets and say what is in them and what is wrong.

    Without SPLIT these are the splits that are trained and scored on.  Exit code 3 when there are errors.

    \b
      mdp check voc ade20k
      mdp check my_site.yaml --strict
      mdp check camvid:train camvid:test --images 50 --json
    """
    from mdp.io.check.job import run_check
    from mdp.io.check.report import refuse_errors, report_json, report_text

    listed = [name.strip() for text in (*names, *datasets) for name in text.split(",") if name.strip()]
    reports = run_check(listed, Path(root), workers, images, quiet)
    click.echo(json.dumps(report_json(reports), indent=1) if as_json else report_text(reports))
    refuse_errors(reports, strict)


@cli.command()
def methods() -> None:
    """List the pretraining methods.

    \b
      mdp methods
    """
    from mdp.io.recipe.catalogue import method_lines

    click.echo("\n".join(method_lines()))


@cli.group(cls=Group)
def recipe() -> None:
    """Settings and where they come from."""


@recipe.command("show")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--target", default="", help="With the published fine-tuning schedule of this dataset.")
def recipe_show(file: Path | None, target: str) -> None:
    """Print every setting with its default, or with the values of a recipe FILE.

    \b
      mdp recipe show
      mdp recipe show --target cityscapes
      mdp recipe show examples/recipes/tiny.yaml
    """
    from mdp.io.recipe.layers import as_yaml, config_layer, nest, resolve
    from mdp.io.recipe.published import schedule_layer

    chosen = nest("finetune.target", target) if target else {}
    click.echo(as_yaml(resolve(schedule_layer(target), config_layer(file), chosen)), nl=False)


@recipe.command("list")
@click.argument("folder", default="examples/recipes", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def recipe_list(folder: Path, as_json: bool) -> None:
    """List the recipes below FOLDER [default: examples/recipes], with the figure that each should reach.

    \b
      mdp recipe list
      mdp recipe list examples/recipes/paper --json
    """
    from mdp.io.recipe.catalogue import recipe_rows, recipe_table

    rows = recipe_rows(folder)
    click.echo(json.dumps(rows, indent=1) if as_json else recipe_table(rows))


@cli.command()
@click.argument("file", metavar="FILE|RUN", type=click.Path(path_type=Path), shell_complete=_complete_runs)
@click.option("--backbone", help="Hold it against this backbone [default: the ResNet that its shapes show].")
@click.option("--init-from", default="", metavar="PREFIX", help="Where in the file the backbone's names begin.")
@click.option("--config", type=click.Path(path_type=Path), help="YAML file of settings; its section model counts.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting: model.channels=256.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def inspect(
    file: Path,
    backbone: str | None,
    init_from: str,
    config: Path | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what a weights file holds, and what of it --init would take.  Exit code 5 when it would refuse it.

    Reads .pth files of torchvision, timm, MMSegmentation, MoCo, DINO, SwAV, Lightning and the like, safetensors, and
    checkpoints of mdp; nothing in them is executed.  mdp feeds RGB images normalised by ImageNet's mean and deviation.

    \b
      mdp inspect resnet50.pth
      mdp inspect moco_v2_800ep_pretrain.pth.tar --json
      mdp inspect deeplabv3.pth --backbone resnet101 --set model.channels=256
    """
    from mdp.io.recipe.layers import config_layer, merge, nest, set_layer
    from mdp.io.weights import inspect as inspect_weights

    chosen = {} if backbone is None else nest("model.backbone", backbone)
    found = inspect_weights.inspect(file, merge(config_layer(config), chosen, set_layer(assignments)), init_from)
    click.echo(json.dumps(found, indent=1) if as_json else inspect_weights.inspection(found))
    inspect_weights.expect_usable(found)


@cli.command()
@click.argument("run", metavar="RUN|FILE", type=click.Path(path_type=Path), shell_complete=_complete_runs)
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to [default: RUN/taxonomy].")
@click.option("--overwrite", is_flag=True, help="Replace what has the same name and says something else.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def taxonomy(run: Path, out: Path | None, overwrite: bool, as_json: bool, quiet: bool) -> None:
    """Say which classes of a pretraining run's datasets may be the same thing, by its prototypes.

    Prints the best pairs, and writes tables, a mapping in YAML, a graph for Graphviz and taxonomy.html, a page with a
    map of all classes.

    \b
      mdp taxonomy runs/pretrain/2026-11-20_1432_voc+ade20k
      mdp taxonomy runs/pretrain/2026-11-20_1432_voc+ade20k --json > taxonomy.json
    """
    from mdp.io.studies import taxonomy

    facts, folder = taxonomy.run_taxonomy(run, out, overwrite)
    click.echo(json.dumps(facts, indent=1) if as_json else taxonomy.table(facts))
    if not quiet:
        click.echo(f"written to {folder}", err=True)


@cli.group(cls=Group)
def checkpoint() -> None:
    """Look into checkpoints: are they whole, what is in them, how do two differ."""


@checkpoint.command("verify")
@click.argument("run", metavar="RUN|FILE", type=click.Path(path_type=Path), shell_complete=_complete_runs)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def checkpoint_verify(run: Path, as_json: bool) -> None:
    """Say which checkpoints of a run are whole.  Exit code 5 when one is damaged.

    \b
      mdp checkpoint verify runs/pretrain/2026-11-20_1432_voc+ade20k
      mdp checkpoint verify last.safetensors --json
    """
    from mdp.io.run.checkpoint_report import expect_whole, verify, verify_table

    verdicts = verify(run)
    click.echo(json.dumps(verdicts, indent=1) if as_json else verify_table(verdicts))
    expect_whole(verdicts)


@checkpoint.command("show")
@click.argument("run", metavar="RUN|FILE", type=click.Path(path_type=Path), shell_complete=_complete_runs)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def checkpoint_show(run: Path, as_json: bool) -> None:
    """Print what is in a checkpoint.  Of a run it is the last one.

    \b
      mdp checkpoint show runs/finetune/2026-11-20_1432_cityscapes
      mdp checkpoint show best.safetensors --json
    """
    from mdp.io.run.checkpoint_summary import describe, description

    found = describe(run)
    click.echo(json.dumps(found, indent=1) if as_json else description(found))


@checkpoint.command("diff")
@click.argument("first", metavar="RUN|FILE", type=click.Path(path_type=Path), shell_complete=_complete_runs)
@click.argument("second", metavar="RUN|FILE", type=click.Path(path_type=Path), shell_complete=_complete_runs)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def checkpoint_diff(first: Path, second: Path, as_json: bool) -> None:
    """Say what differs.  Exit code 0 when all tensors are the same bit for bit, else 5.

    \b
      mdp checkpoint diff runs/pretrain/a runs/pretrain/b
      mdp checkpoint diff last.safetensors best.safetensors
    """
    from mdp.io.run.checkpoint_report import difference, difference_text, expect_equal

    found = difference(first, second)
    click.echo(json.dumps(found, indent=1) if as_json else difference_text(found))
    expect_equal(found)


def main() -> None:
    """The entry point: an `MdpError` becomes one clean line and its exit code; anything else is our bug."""
    words = ""
    try:
        code = cli.main(prog_name="mdp", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        code, words = 130, "interrupted"
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        from mdp.io.errors import MdpError, Preempted

        if not isinstance(error, MdpError):
            _end(1, "")
            raise
        code, words = error.exit_code, str(error) if isinstance(error, Preempted) else f"error: {error}"
    code = code if isinstance(code, int) else 0
    _end(code, words)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the work is done: a signal now would only spoil the exit code
    if "LOCAL_RANK" in os.environ:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # at a usual exit, threads that still wait for other processes may abort this one
    sys.exit(code)


def _end(code: int, words: str) -> None:
    """Says how it ended: of several processes the launcher does, or the first unless the cause is another's own."""
    if "LOCAL_RANK" in os.environ:
        from mdp.io.processes.launcher import Ending, leave

        if leave(Ending(code, words)):
            return
    if words and (_speaks() or code not in (8, 75, 130)):
        click.echo(words if _speaks() else f"process {os.environ['RANK']}: {words}", err=True)

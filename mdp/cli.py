"""The command line: parse, one call into mdp.io, print.

stdout is data, stderr is progress.  torch is imported inside the commands, so that `--help` answers at once.
"""

import difflib
import inspect as source
import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING
from functools import partial, reduce
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import click
from click import Choice, FloatRange, IntRange
from click.shell_completion import CompletionItem

from mdp import __version__
from mdp.io.errors import MdpError, Stopped
from mdp.io.export.asked import ExportQuestion
from mdp.io.export.targets import names as target_names
from mdp.io.inference.asked import Wanted
from mdp.io.journal import stderr
from mdp.io.processes.early import heed, take_signals
from mdp.io.processes.ending import Ending, drop_output, end, ending_of, launched, speaks, tell
from mdp.io.processes.garbage import unsearched
from mdp.io.processes.openmp import sleep_soon
from mdp.io.recipe import words
from mdp.io.recipe.fields import sentence, stated
from mdp.io.recipe.settings import SECTIONS
from mdp.io.studies.asked import CompareQuestion
from mdp.io.suspects.asked import SuspectsQuestion
from mdp.io.unsupervised.asked import Nearest, OfFeatures, Probe, Propagation, Retrieval, Score

if TYPE_CHECKING:
    from mdp.io.recipe.request import Request

Function = Callable[..., None]
Decorator = Callable[[Function], Function]
Reader = Callable[[Any], Any]
Found = TypeVar("Found")
Question = TypeVar("Question")
Kind = dict[str, Any]  # what options of one kind are declared with


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


class Option(click.Option):
    """An option; the words of one that is a field of settings are read beside the field when help is printed."""

    def __init__(self, *args: Any, words: Callable[[], str] | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self.words = words

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        self.help = self.help or (self.words and self.words())
        return super().get_help_record(ctx)


def command(
    name: str, *calls: str, group: click.Group = cli, asks: type | None = None
) -> Callable[[Function], click.Command]:
    """A command whose help is its docstring, and below it these calls of it.

    Of one that asks a question of mdp.io the help is the question's, whose fields are arguments and options.
    """

    def declare(function: Function) -> click.Command:
        path = f"mdp {name}" if group is cli else f"mdp {group.name} {name}"
        examples = "".join(f"\n  {path} {call}".rstrip() for call in calls)
        about = source.cleandoc((asks or function).__doc__ or "")
        options = asked(asks) if asks else together()
        return group.command(name, help=f"{about}\n\n\b{examples}")(options(function))

    return declare


def together(*options: Decorator) -> Decorator:
    """Several options, in this order, as one."""
    return lambda function: reduce(lambda inner, option: option(inner), reversed(options), function)


def option(names: str, about: str, of: Any = None, read: Reader | None = None, **more: Any) -> Decorator:
    """An option that its command takes as an argument, of a type of click's, as `read` has it."""
    callback = partial(_read, read) if read else None
    shown = more.get("default") not in (None, "")
    return click.option(*names.split(), help=about, type=of, callback=callback, show_default=shown, **more)


def setting(
    key: str, names: str = "", about: str = "", read: Reader | None = None, of: type | None = None, **more: Any
) -> Decorator:
    """An option that knows where its value goes: a setting by its full key, else a switch or a field, as of Request.

    What the field of a setting, or of the class `of`, says of itself need not be said again: type, bounds, words, help.
    Its command does not see it; `_given` has what was given.
    """
    section, _, name = key.rpartition(".")
    kind, flag = of or SECTIONS.get(section), f"--{name.replace('_', '-')}"
    if kind:
        more = _stated(kind, name, of is not None or section in UNLAYERED) | FIELDS.get(name, {}) | more
        flag = f"{flag}/--no-{flag[2:]}" if "is_flag" in more and of is None else flag
    names, read = names or more.pop("names", flag), read or more.pop("read", None)
    if "/" in names:
        more["default"] = None
    if about:
        more["help"] = about
    keep = partial(_keep, key, read)
    return click.option(*names.split(), cls=Option, expose_value=False, callback=keep, **more)


def settings(*keys: str) -> Decorator:
    """Settings whose flags have their names."""
    return together(*map(setting, keys))


def asked(kind: type) -> Decorator:
    """The fields of a question as arguments and options, but for what its bases have."""
    return together(
        *(_field(kind, name) for name in stated(kind) if name in kind.__annotations__ and name != "existing")
    )


def _field(kind: type, name: str) -> Decorator:
    if name in ARGUMENTS:
        return click.argument(name, expose_value=False, callback=partial(_keep, name, None), **ARGUMENTS[name])
    return setting(name, of=kind)


def _stated(kind: type, name: str, shows_default: bool) -> Kind:
    """What an option is declared with of a field: its type, whether it must be given, and its words."""
    field = stated(kind)[name]
    declared: Kind = {"words": partial(sentence, kind, name, shows_default), "required": field.default is MISSING}
    if field.words:
        return declared | {"type": Choice(field.words)}
    if field.kind is bool:
        return declared | FLAG
    if field.bounds and ... not in get_args(field.kind):
        low, high = field.bounds.low, field.bounds.high
        kept = high if high < UNTOLD else None
        number = FloatRange if field.kind is float else IntRange
        pair: Kind = {"nargs": 2, "metavar": "HEIGHT WIDTH"} if get_args(field.kind) else {}
        return declared | pair | {"type": number(low, kept)}  # type: ignore[arg-type]
    return declared | ({"type": FILE} if field.kind is Path else {})


def _read(read: Reader, ctx: click.Context, given: click.Parameter, value: Any) -> Any:
    """The value as `read` has it, whose ValueError is a mistake in this option."""
    try:
        return read(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=given.opts[0]) from error


def _keep(key: str, read: Reader | None, ctx: click.Context, given: click.Parameter, value: Any) -> None:
    """Keeps a value for `_given`; a flag that is off and has no --no-... says nothing."""
    if value not in (None, ()) and (value is not False or given.secondary_opts):
        kept = ctx.ensure_object(dict)
        if key in kept:
            raise click.UsageError(f"{given.opts[0]} contradicts another option; give one of the two")
        kept[key] = _read(read, ctx, given, value) if read else value


def _given() -> dict[str, Any]:
    """What was given of settings, questions, fields of Request and switches, by key."""
    return click.get_current_context().ensure_object(dict)


def _request(**more: Any) -> "Request":
    with unsearched():
        from mdp.io.recipe.request import requested

    return requested(_given() | more)


def _asked(kind: type[Question]) -> Question:
    """The question, of what was given."""
    return kind(**{key: value for key, value in _given().items() if key in stated(cast(type, kind))})


def _launch(refuse: Callable[[], None] = lambda: None) -> None:
    """Becomes the launcher, and does not return, when several processes are asked for and this is not one of them.

    `refuse` raises beforehand what all of them would: a mistake is told once, and soon.
    """
    processes = _given().get("processes", 1)
    if processes > 1 and not launched():
        refuse()
        from mdp.io.processes.launcher import launch

        raise click.exceptions.Exit(launch(processes, sys.argv[1:]))


def _show(
    found: Found, text: Callable[[Found], str], data: Callable[[Found], Any] | None = None, indent: int | None = 1
) -> None:
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


def _completed(module: str, names: str, files: bool = False) -> Kind:
    """Completes what a function of mdp.io names, after the last comma too; or names and files (paths have commas)."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        known = map(str, getattr(import_module(f"mdp.io.{module}"), names)())
        done, comma, last = ("", "", incomplete) if files else incomplete.rpartition(",")
        plain = [CompletionItem(done + comma + name) for name in known if name.startswith(last)]
        # the shell completes paths where no name fits; bash takes what stands after `file` only
        return [CompletionItem(incomplete, type="file"), *plain] if files else plain

    return {"shell_complete": complete}


FLAG: Kind = {"is_flag": True}
FILE = click.Path(path_type=Path)
RECIPE: Kind = {"metavar": "NAME|FILE", "type": FILE, **_completed("recipe.shelf", "recipe_names", files=True)}
NEWEST = _completed("run.folder", "known", files=True)  # a run, of which some command takes the newest
RUN: Kind = {"metavar": "RUN|FILE", "type": FILE, **NEWEST}
SOURCE: Kind = {"metavar": "RUN|FILE|timm:NAME|scratch|colors", **NEWEST}
DATASET: Kind = {"metavar": "NAME|FILE.yaml", **_completed("datasets", "names")}
DATASETS: Kind = {**DATASET, "metavar": "A,B,C.yaml", "multiple": True}
ROOT: Kind = {"envvar": ["MDP_ROOT", "MDP_DATA"]}
PREFIX: Kind = {"metavar": "PREFIX"}
ARGUMENTS: dict[str, Kind] = {  # fields of questions that are no options
    "source": SOURCE,
    "run": RUN,
    "predictions": {"type": FILE},
    "photos": {"nargs": -1, "required": True, "metavar": "PHOTO|FOLDER|'PATTERN'...", "type": click.Path()},
}
FIELDS: dict[str, Kind] = {  # how others are given, where their names and types do not say it
    "against": {"multiple": True, "metavar": "NAME"},
    "check": {"names": "--check/--no-check checked"},
    "compile": {"names": "--compile/--no-compile compiled"},
    "datasets": {"read": words.names, **DATASETS},
    "init_from": PREFIX,
    "library": {"names": "--to target", "type": Choice(target_names())},
    "matching": {"metavar": "images|none|FILE.json"},
    "max_memory": {"metavar": "2GB"},
    "overlays": {"names": "--overlay"},
    "rate": {"names": "--lr"},
    "ratios": {"names": "--boundary", "read": lambda text: tuple(words.numbers(text, "0.02,0.03"))},
    "root": ROOT,
    "scales": {"read": partial(words.numbers, such_as="0.5,1,1.5"), "metavar": "0.5,1,1.5"},
    "shares": {"names": "--fractions"},
    "shown": {"names": "--show shown"},
    "start": {"names": "--init-from start", **PREFIX},
    "starts": {"names": "--start starts", "multiple": True, "metavar": "[NAME=]KIND:PATH"},
    "target": DATASET,
}
UNLAYERED = ("run", "data", "luss")  # sections whose defaults no method, schedule or run replaces
UNTOLD = 10**5  # bounds from here on are not worth telling
GALLERY = 24  # images

# Options of several commands

root = option("--root", "Folder of the datasets.", **ROOT, default="data")
resources = settings("data.root", "run.device", "run.workers")
result = setting("json", "--json as_json", "Print the result as JSON on stdout.", **FLAG)
printed = together(result, setting("quiet", "-q --quiet", "No progress on stderr.", **FLAG))
which = option("--which", "Checkpoint to take; best was chosen by the validation split.", Choice(["last", "best"]),
               default="last")  # fmt: skip
weights = option("--weights", "Of a run with an EMA: that [default], or the weights of its last step.",
                 Choice(["ema", "raw"]))  # fmt: skip
heads = _files("core/networks/heads", "deeplabv3", "deeplabv3plus", "fcn", "deeplabv3_torchvision")
head = setting("model.head", about="Segmentation head [default: deeplabv3].", type=heads)
backbone = setting(
    "model.backbone", about="resnet18, 34, 50 or 101, with _v1c for MMSegmentation's stem, or timm:NAME."
)
processes = setting("processes", about="Processes that share the work, one for each GPU.", type=IntRange(1, 1024))


def config(about: str, example: str) -> Decorator:
    return together(
        setting("config", "--config", f"A recipe, or a YAML file of settings; {about}.", **RECIPE),
        setting("assignments", "--set assignments", f"Any setting: {example}.", multiple=True, metavar="KEY=VALUE"),
    )


job = together(
    resources,
    setting("out", about="Folder to write to, instead of one under ./runs.", type=FILE),
    config("see `mdp recipe list` and `show`", "run.seed=1"),
    printed,
)
frozen = together(  # of the commands that look at features as they are
    asked(OfFeatures),
    setting("model.backbone", about="Of scratch, or of a FILE that does not show it."),
    settings("run.seed"),
    resources,
    config("its section model counts", "model.width=32"),
    printed,
)
stage = together(  # of the pipeline without labels
    setting("overwrite", about="Do it again where it was done with something else.", **FLAG),
    processes,
    job,
)


def training(phase: str) -> Decorator:
    """The options that pretrain and finetune have besides."""
    return together(
        setting("dry_run", about="Say what the run would need, and stop.", **FLAG),
        processes,
        settings(*(f"{phase}.{name}" for name in ("epochs", "steps", "batch_size", "lr", "optimizer")), "run.seed"),
        setting("overwrite", about="Replace the run in --out.", **FLAG),
        setting("resume", about="Go on with an interrupted run (the newest; with --out, the one there, if any).",
                is_flag=False, flag_value="", metavar="[RUN]", **NEWEST),
        settings("run.init_from", "run.init_partial", "run.precision", "run.cache", "run.compile", "run.accumulate"),
        settings("run.deterministic", "run.on_bad_sample", "run.check", "run.tensorboard", "run.wandb", "run.mlflow"),
        setting("print_config", about="Print the YAML that reproduces the call, and stop.", **FLAG),
        job,
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
        _launch(partial(refuse_early, phase, request, _given().get("processes", 1)))
        folder = run_phase(phase, request)
        if speaks():
            _show(ending_of(folder), lambda ended: str(ended["run"]), indent=None)


# Commands


@command("pretrain", "--datasets voc,ade20k --epochs 200", "--datasets voc,my_site.yaml --mix both --batch-size 32",
         "--resume", "--datasets shapes-coarse,shapes-fine --config examples/recipes/tiny.yaml")  # fmt: skip
@setting("pretrain.datasets", about="Names or YAML files, comma-separated or repeated; NAME:SPLIT picks a split.")
@setting("method.name", "--method", "Pretraining method; see `mdp methods`.")
@backbone
@head
@setting("method.mix", "--mix", "Mix images across datasets.",
         lambda mix: {"region": mix in ("region", "both"), "pixel": mix in ("pixel", "both")},
         type=Choice(["none", "region", "pixel", "both"]))  # fmt: skip
@setting("method.sparse.variant", "--sparse", "Cross-class sparse coding.", type=Choice(["off", "csc1", "csc2"]))
@settings("pretrain.balance")
@setting("init", about="Start a fresh run from these weights.", metavar="RUN|FILE", **NEWEST)
@training("pretrain")
def pretrain() -> None:
    """Pretrain one backbone on the union of several datasets."""
    _train("pretrain")


@command("finetune", "--target cityscapes",
         "--target my_site.yaml --init runs/pretrain/2026-11-20_1432_voc+ade20k --steps 5000",
         "--target voc --init scratch --criterion cross_entropy,dice=3")  # fmt: skip
@settings("finetune.target")
@setting("init", about="Weights to start from [default: the newest pretraining run].", **NEWEST,
         metavar="RUN|FILE|scratch")  # fmt: skip
@backbone
@settings("finetune.images")
@setting("finetune.load", "--backbone-only", "Load the backbone but not the head.", lambda _: ["backbone"], **FLAG)
@head
@setting("criterion", "--criterion", "What is minimised, and what is added to it; see `mdp methods`.", words.criteria,
         metavar="NAME[,NAME=WEIGHT]...", **_completed("recipe.criteria", "criterion_names"))  # fmt: skip
@settings("finetune.head_init")
@training("finetune")
def finetune() -> None:
    """Fine-tune a segmentor on a target dataset."""
    _train("finetune")


@command("eval", "", "runs/finetune/2026-11-20_1432_cityscapes --mode slide --save",
         "--scales 0.5,0.75,1,1.25,1.5,1.75 --flip", "--split val --json > scores.json",
         "runs/finetune/2026-11-20_1432_cityscapes --gallery 36")  # fmt: skip
@click.argument("run", required=False, **NEWEST)
@setting("target", about="Another dataset with the same classes.", **DATASET)
@settings("eval.split")
@which
@weights
@settings("eval.mode", "eval.images", "eval.scales", "eval.flip", "eval.max_memory")
@option("--save", "Keep label PNGs and overlays of the predictions.", **FLAG)
@option("--gallery", f"Draw the N [{GALLERY}] images with the lowest mIoU, beside their labels and errors.",
        read=words.image_count, is_flag=False, flag_value=str(GALLERY), metavar="[N]")  # fmt: skip
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

    _launch(partial(refuse_early, request, which, weights))
    scores, folder = run_evaluation(request, which, save, save_as, gallery, weights)
    if speaks():
        _show(scores, partial(table, verbose=verbose), indent=None)
        stderr.say(f"written to {folder}")


@command("predict", "photos/ --out predictions --overlay",
         "'photos/**/*.jpg' --run runs/finetune/2026-11-20_1432_cityscapes --mode slide",
         "photos/ --out predictions --skip-existing", asks=Wanted)  # fmt: skip
@setting("init", "--run", "Fine-tuning run, or a checkpoint of one [default: the newest].", metavar="RUN", **NEWEST)
@setting("out", about="Folder to write to [default: a new one in RUN/predict].", type=FILE)
@setting("eval.mode", about="Whole images or sliding windows [default: RUN's].")
@setting(
    "existing", "--skip-existing", "Go on in --out: pass photos over whose files are there.", lambda _: "skip", **FLAG
)
@setting("existing", "--overwrite", "Replace files in --out.", lambda _: "overwrite", **FLAG)
@setting("run.on_bad_sample", about="When a photo cannot be read [default: stop].", default="stop")
@settings("run.device", "run.workers")
@config("run and eval are read", "eval.scale=[2048,512]")
@printed
def predict() -> None:
    request, wanted = _request(), _asked(Wanted)
    if wanted.existing == "skip" and request.out is None:
        raise click.UsageError("--skip-existing needs --out, the folder to go on in")
    with unsearched():
        from mdp.io.inference.job import run_predictions

    _show(run_predictions(request, wanted), lambda done: str(done["out"]), indent=None)


@command("export", "runs/pretrain/2026-11-20_1432_voc+ade20k --to torchvision",
         "runs/pretrain/2026-11-20_1432_voc+ade20k --to hub --out models",
         "runs/finetune/2026-11-20_1832_cityscapes --to onnx --segmentor", asks=ExportQuestion)  # fmt: skip
@result
def export() -> None:
    with unsearched():
        from mdp.io.export.job import as_json, report, run_export

    _show(run_export(_asked(ExportQuestion)), report, as_json)


@command("compare", "--target cityscapes --start scratch --start imagenet:resnet50.pth --start run:runs/pretrain/x",
         "--target my.yaml --start scratch --start ours=run:runs/x-{seed} --fractions 1/8 --seeds 5",
         "--show runs/compare/cityscapes", asks=CompareQuestion)  # fmt: skip
@settings("finetune.target")
@setting("finetune.steps", about="Fine-tuning steps, the same for all.")
@option("--show", "Print the tables of this compare.json, or of a folder of them, and run nothing.", FILE)
@job
def compare(show: Path | None) -> None:
    from mdp.io.report.compared import as_json, comparisons, read_comparison, reports

    if show is None:
        from mdp.io.studies.compare import parse_comparison, run_comparison

        show = run_comparison(_request(), parse_comparison(_asked(CompareQuestion)))
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
@result
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
@click.argument("names", nargs=-1, metavar="[NAME|FILE.yaml[:SPLIT]]...", **_completed("datasets", "names"))
@option("--datasets", "The same, comma-separated or repeated.", **DATASETS)
@root
@option("--workers", "Processes that read [default: one a core, 16 at most].", IntRange(0, 1024))
@option("--images", "Look at so many images of a split only, evenly spaced.", IntRange(1))
@option("--strict", "Take warnings for errors.", **FLAG)
@printed
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
@result
def recipe_list(folder: Path | None) -> None:
    """List the recipes that come with mdp, or those below FOLDER, with the figure that each should reach.

    `--config NAME` takes one, and `mdp recipe show NAME` prints it.
    """
    from mdp.io.recipe.catalogue import recipe_rows, recipe_table

    _show(recipe_rows(folder), recipe_table)


@command("inspect", "resnet50.pth", "moco_v2_800ep_pretrain.pth.tar --json",
         "deeplabv3.pth --backbone resnet101 --set model.channels=256")  # fmt: skip
@click.argument("file", **{**RUN, "metavar": "FILE|RUN"})
@setting("model.backbone", about="Hold it against this backbone [default: the ResNet that its shapes show].")
@option("--init-from", "Where in the file the backbone's names begin.", default="", **PREFIX)
@config("its section model counts", "model.channels=256")
@result
def inspect(file: Path, init_from: str) -> None:
    """Say what a weights file holds, and what of it --init would take.  Exit code 5 when it would refuse it.

    Reads .pth files of torchvision, timm, MMSegmentation, MoCo, DINO, SwAV, Lightning and the like, safetensors, and
    checkpoints of mdp; nothing in them is executed.  mdp feeds RGB images normalised by ImageNet's mean and deviation,
    a fresh run on timm:NAME by those that timm gives for it.
    """
    from mdp.io.weights import inspect as weights

    found = weights.inspect(file, _request().asked, init_from)
    _show(found, weights.inspection)
    weights.expect_usable(found)


@command("taxonomy", "runs/pretrain/2026-11-20_1432_voc+ade20k",
         "runs/pretrain/2026-11-20_1432_voc+ade20k --photos 20 --size 64",
         "runs/pretrain/2026-11-20_1432_voc+ade20k --json > taxonomy.json")  # fmt: skip
@click.argument("run", **RUN)
@option("--photos", "Look at so many photos of each dataset, and go by what its classes are called by the others' "
        "classifiers, on frozen features of RUN or of any FILE [default: prototypes alone].", IntRange(2))  # fmt: skip
@option("--datasets", "With --photos, these datasets [default: RUN's own].", read=words.names, **DATASETS)
@option("--size", "With --photos, their longer side.", IntRange(16, 8192), default=320)
@option("--names", "With --photos, weight of equal names beside all votes of a class.", FloatRange(0, 100), default=0.0)
@option("--words vectors", "With --names, vectors of class names, for names that are alike.", FILE)
@option("--truth", "Score the suggestions, and names alone, against this CSV file of relations.", FILE)
@setting("model.backbone", about="Of a FILE that does not show it.")
@settings("run.seed")
@resources
@option("--out", "Folder to write to [default: RUN/taxonomy, with --photos RUN/taxonomy-photos].", FILE)
@option("--overwrite", "Replace what has the same name and says something else.", **FLAG)
@printed
def taxonomy(run: Path, photos: int | None, datasets: tuple[str, ...], size: int, names: float, vectors: Path | None,
             truth: Path | None, out: Path | None, overwrite: bool) -> None:  # fmt: skip
    """Say which classes of several datasets may be the same thing, by a run's prototypes, or by votes on photos.

    Prints the best pairs, and writes tables, a mapping in YAML, a graph for Graphviz and taxonomy.html, a page with a
    map of all classes.
    """
    if photos is None:
        from mdp.io.studies.taxonomy import run_taxonomy, table

        if datasets or vectors or names:
            raise click.UsageError("--datasets, --names and --words go with --photos N")
        found, folder = run_taxonomy(run, out, overwrite, truth)
    else:
        from mdp.io.studies.taxonomy_votes import run_voted_taxonomy
        from mdp.io.studies.taxonomy_votes import voted_table as table
        from mdp.io.studies.votes import Asked

        question = Asked(source=str(run), photos=photos, datasets=tuple(datasets), size=size,
                      names=names, words=vectors)  # fmt: skip
        found, folder = run_voted_taxonomy(question, _request().asked, out, overwrite, truth, _quiet())
    _show(found, table)
    if not _quiet():
        stderr.say(f"written to {folder}")


@command("suspects", "runs/finetune/2026-11-20_1432_cityscapes --target cityscapes",
         "runs/pretrain/2026-11-20_1432_voc+ade20k --target camvid --folds 2 --out suspects",
         "runs/pretrain/2026-11-20_1432_voc+ade20k --target voc:train --json", asks=SuspectsQuestion)  # fmt: skip
@frozen
def suspects() -> None:
    from mdp.io.suspects.job import run_suspects, suspects_table

    _show(run_suspects(_asked(SuspectsQuestion), _request().asked, _quiet())[0], suspects_table)


@command("retrieve", "runs/pretrain/2026-11-20_1432_voc+ade20k --target voc --out retrieved",
         "moco_v2_800ep_pretrain.pth.tar --target camvid:test --size 256",
         "scratch --backbone resnet50 --target voc", "colors --target voc --json", asks=Retrieval)  # fmt: skip
@processes
@frozen
def retrieve() -> None:
    from mdp.io.unsupervised.retrieve import refuse_early, retrieval_table, run_retrieval

    question, layer = _asked(Retrieval), _request().asked
    _launch(partial(refuse_early, question, layer))
    _show(run_retrieval(question, layer, _quiet()), retrieval_table)


@command("probe", "runs/pretrain/2026-11-20_1432_voc+ade20k --target voc --out probed",
         "moco_v2_800ep_pretrain.pth.tar --target camvid:test --classifier svm",
         "colors --folders by_class --classifier logistic --json", asks=Probe)  # fmt: skip
@processes
@frozen
def probe() -> None:
    from mdp.io.unsupervised.probe import probe_table, refuse_early, run_probe

    question, layer = _asked(Probe), _request().asked
    _launch(partial(refuse_early, question, layer))
    _show(run_probe(question, layer, _quiet()), probe_table)


@command("propagate", "runs/pretrain/2026-11-20_1432_voc+ade20k --frames bear/frames --masks bear/masks --out carried",
         "colors --frames bear/frames --masks bear/masks --json", asks=Propagation)  # fmt: skip
@frozen
def propagate() -> None:
    from mdp.io.unsupervised.propagate import propagation_table, run_propagation

    _show(run_propagation(_asked(Propagation), _request().asked, _quiet()), propagation_table)


@cli.group(cls=Group)
def luss() -> None:
    """Segmentation without labels, and its benchmark, ImageNet-S."""


@command("cluster", "runs/pretrain/x --target my_site.yaml --clusters 2 --out luss",
         "resnet50.pth --target photos --clusters 2 --restarts 5 --out other", group=luss)  # fmt: skip
@click.argument("source", metavar="RUN|FILE|timm:NAME", **NEWEST)
@option("--target", "Dataset whose training photos are clustered; NAME:SPLIT picks a split.", required=True, **DATASET)
@settings("luss.clusters", "luss.features", "luss.restarts", "run.seed")
@stage
def luss_cluster(source: str, target: str) -> None:
    """Cluster the photos of a dataset by what a frozen network sees in them.

    Two stages, OUT/features and OUT/clusters, each of which is gone on with where it was stopped and kept where it is
    done: centroids.safetensors, assignment.csv and clusters.json.  Photos in folders of categories are compared with
    these, which uses labels and changes nothing.
    """
    from mdp.io.unsupervised.pipeline.cluster import clusters_table, run_clustering

    _launch()
    _show(run_clustering(_request(), source, target), clusters_table)


@command("label", "luss --split val", "luss --split train", group=luss)
@click.argument("folder", metavar="LUSS", type=FILE)
@option("--split", "Split of the target to label.", default="train")
@settings("luss.threshold", "luss.labels")
@option("--foreground", "A folder of masks (white: foreground), which take the place of attention.", FILE)
@stage
def luss_label(folder: Path, split: str, foreground: Path | None) -> None:
    """Give each pixel of a split the nearest cluster of LUSS, the folder of `mdp luss cluster`.

    A stage, LUSS/labels-SPLIT: label maps, levels of attention, marks.npz, index.json; LUSS/labels.yaml is a dataset
    of them.
    """
    from mdp.io.unsupervised.pipeline.label import labels_text, run_labelling

    _launch()
    _show(run_labelling(_request(), folder, split, foreground), labels_text)


@command("run", "--target shapes-objects --out luss_demo", "--target imagenet_s50 --method pass_s --out s50",
         group=luss)  # fmt: skip
@option("--target", "Dataset to segment: `train` is learnt from, its validation split scored.", required=True,
        **DATASET)  # fmt: skip
@setting("method.name", "--method", "Pretraining method of the representation.")
@settings("run.seed")
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
         "luss --split val", group=luss, asks=Score)  # fmt: skip
@printed
def luss_score() -> None:
    from mdp.io.unsupervised.pipeline.scores import run_scores, scores_text

    _show(run_scores(_asked(Score), _quiet()), scores_text)


@command("nearest", "runs/pretrain/2026-11-20_1432_voc+ade20k --target imagenet_s50",
         "moco_v2_800ep_pretrain.pth.tar --target imagenet_s50:validation --out nearest",
         "scratch --backbone resnet18 --target camvid:test", group=luss, asks=Nearest)  # fmt: skip
@backbone
@setting("run.init_from", about="Where in the file the backbone's names begin.")
@settings("luss.neighbours", "luss.temperature", "luss.short_side")
@resources
@processes
@setting("out", about="Folder to write scores.json to.", type=FILE)
@config("its sections model, run, data and luss count", "run.seed=1")
@printed
def luss_nearest() -> None:
    from mdp.io.unsupervised.nearest import run_nearest
    from mdp.io.unsupervised.score import score_table

    _launch()
    _show(run_nearest(_asked(Nearest), _request()), score_table)


@cli.group(cls=Group)
def checkpoint() -> None:
    """Look into checkpoints: are they whole, what is in them, how do two differ."""


@command("verify", "runs/pretrain/2026-11-20_1432_voc+ade20k", "last.safetensors --json", group=checkpoint)
@click.argument("run", **RUN)
@result
def checkpoint_verify(run: Path) -> None:
    """Say which checkpoints of a run are whole.  Exit code 5 when one is damaged."""
    from mdp.io.run.checkpoint_report import expect_whole, verify, verify_table

    verdicts = verify(run)
    _show(verdicts, verify_table)
    expect_whole(verdicts)


@command("show", "runs/finetune/2026-11-20_1432_cityscapes", "best.safetensors --json", group=checkpoint)
@click.argument("run", **RUN)
@result
def checkpoint_show(run: Path) -> None:
    """Print what is in a checkpoint.  Of a run it is the last one."""
    from mdp.io.run.checkpoint_summary import describe, description

    _show(describe(run), description)


@command("diff", "runs/pretrain/a runs/pretrain/b", "last.safetensors best.safetensors", group=checkpoint)
@click.argument("first", **RUN)
@click.argument("second", **RUN)
@result
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
    ending = Ending(0)
    try:
        heed()
        code = cli.main(prog_name="mdp", standalone_mode=False)
        ending = Ending(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        ending = Ending(error.exit_code)
    except BrokenPipeError:
        drop_output()
    except (click.exceptions.Abort, KeyboardInterrupt, Stopped, MdpError) as error:
        ending = ending_of(error)
        if isinstance(error, click.exceptions.Abort) and isinstance(error.__cause__, EOFError):
            tell(Ending(1), stderr.say)  # click takes the end of any file for Ctrl-D
            raise error.__cause__ from None
    except Exception:
        tell(Ending(1), stderr.say)
        raise
    end(ending, stderr.say)

"""The command line: parse, one call into mdp.io, print.

What a command is asked is a question, a class in the `asked.py` of a folder of mdp.io: its docstring is the command's
help, its fields are arguments and options.  Here stand the options that it has besides, and what it calls.

stdout is data, stderr is progress.  Commands import torch when they are called, and only then are their options made,
so that `--help` answers at once.
"""

import inspect as source
import io
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, fields
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

import click
from click import Choice, FloatRange, IntRange
from click.shell_completion import CompletionItem

from mdp import __version__
from mdp.io.errors import MdpError, Stopped
from mdp.io.journal import stderr
from mdp.io.processes.early import heed, take_signals
from mdp.io.processes.ending import Ending, drop_output, end, ending_of, launched, speaks, tell
from mdp.io.processes.garbage import unsearched
from mdp.io.processes.openmp import sleep_soon
from mdp.io.recipe import words

if TYPE_CHECKING:
    from mdp.io.check.asked import Check
    from mdp.io.datasets.draft.asked import Draft
    from mdp.io.evaluation.asked import Evaluation
    from mdp.io.export.asked import ExportQuestion
    from mdp.io.inference.asked import Wanted
    from mdp.io.recipe.asked import Listing, OneRecipe, Recipes
    from mdp.io.recipe.fields import Stated
    from mdp.io.recipe.request import Request
    from mdp.io.report.asked import Report
    from mdp.io.run.asked import OneRun, TwoRuns
    from mdp.io.studies.asked import CompareQuestion, Demo, Taxonomy
    from mdp.io.suspects.asked import SuspectsQuestion
    from mdp.io.unsupervised.asked import Nearest, Probe, Propagation, Retrieval, Score
    from mdp.io.unsupervised.pipeline.asked import Clustering, Labelling, Pipeline
    from mdp.io.weights.asked import Inspection

Function = Callable[..., None]
Reader = Callable[[Any], Any]
Result = TypeVar("Result")
Kind = dict[str, Any]  # what an option is declared with


# How options are declared


class Flag(NamedTuple):
    """An option that knows where its value goes: a setting by its full key, a field of its question, or a switch.

    What the field says of itself, its type, bounds, words and comment, need not be said again.
    """

    key: str
    names: str = ""
    read: Reader | None = None  # what becomes of the value; its ValueError is a mistake in this option
    more: Kind = {}  # noqa: RUF012 - nobody writes to it

    def parameter(self, question: type | None) -> click.Parameter:
        """The option or argument, for a command that is asked this question."""
        from mdp.io.recipe.fields import owner, reader, sentence, stated

        section, _, name = self.key.rpartition(".")
        flag, kind = f"--{name.replace('_', '-')}", owner(self.key, question)
        if kind is None:  # a setting that stands beside tensor code
            keep = partial(_keep, self.key, self.read)
            return Option((self.names or flag).split(), expose_value=False, callback=keep, **self.more)
        field = stated(kind)[name]
        given = field.given
        declared: Kind = {"expose_value": False, "callback": partial(_keep, self.key, self.read or reader(field))}
        declared |= {"required": field.default is MISSING, "metavar": given.shown or None, **_typed(field)}
        if given.offers:
            declared["shell_complete"] = partial(_complete, given.offers, given.files)
        if given.argument:
            return click.Argument([given.flags or name], nargs=-1 if get_args(field.kind) else 1, **declared)
        if section and "is_flag" in declared:
            flag, declared["default"] = f"{flag}/--no-{flag[2:]}", None  # neither was given
        declared |= {"envvar": given.variables or None, "multiple": given.repeat}
        declared |= {"words": partial(sentence, kind, name, kind is question or section in UNLAYERED)}
        return Option((self.names or given.flags or flag).split(), **declared | self.more)


def flag(key: str, names: str = "", about: str = "", read: Reader | None = None, **more: Any) -> Flag:
    return Flag(key, names, read, more | {"help": about} if about else more)


Flags = tuple[str | Flag, ...]  # a text is the key of one of which no more is said


class Option(click.Option):
    """An option; the words of one that is a field are read beside it when help is printed."""

    def __init__(self, *args: Any, words: Callable[[], str] | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self.words = words

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        self.help = self.help or (self.words and self.words())
        return super().get_help_record(ctx)


def _typed(field: "Stated") -> Kind:
    """A field's type as click's."""
    parts = get_args(field.kind)  # of a tuple
    single, given = parts[0] if parts else field.kind, field.given
    if given.alone is not None:
        return {"is_flag": False, "flag_value": given.alone, "type": str}
    if single is bool:
        return {"is_flag": True}
    if field.words or given.only:
        return {"type": Choice(field.words or _names(given.offers))}
    if field.bounds and ... not in parts:
        low, high = field.bounds.low, field.bounds.high
        number: Any = FloatRange if single is float else IntRange
        pair: Kind = {"nargs": 2, "metavar": "HEIGHT WIDTH"} if parts else {}
        return pair | {"type": number(low, high if high < UNTOLD else None)}
    if single is str and given.files and not given.offers:
        return {"type": click.Path()}
    return {"type": {Path: click.Path(path_type=Path), int: int}.get(single)}


def _keep(key: str, read: Reader | None, ctx: click.Context, given: click.Parameter, value: Any) -> None:
    """Keeps a value for `_given`; a flag that is off and has no --no-... says nothing."""
    if value not in (None, ()) and (value is not False or given.secondary_opts):
        kept = ctx.ensure_object(dict)
        if key in kept:
            raise click.UsageError(f"{given.opts[0]} contradicts another option; give one of the two")
        try:
            kept[key] = read(value) if read else value
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint=given.opts[0]) from error


def _names(function: str) -> list[str]:
    """What a function of mdp.io names."""
    module, _, name = function.rpartition(".")
    return list(map(str, getattr(import_module(f"mdp.io.{module}"), name)()))


def _complete(names: str, files: bool, ctx: click.Context, param: click.Parameter, part: str) -> list[CompletionItem]:
    """Completes what a function of mdp.io names, after the last comma too; or names and files (paths have commas)."""
    done, comma, last = ("", "", part) if files else part.rpartition(",")
    plain = [CompletionItem(done + comma + name) for name in _names(names) if name.startswith(last)]
    # the shell completes paths where no name fits; bash takes what stands after `file` only
    return [CompletionItem(part, type="file"), *plain] if files else plain


UNLAYERED = ("run", "data", "luss")  # sections whose defaults no method, schedule or run replaces
UNTOLD = 10**5  # bounds from here on are not worth telling


# How commands are declared


class Command(click.Command):
    """A command whose question, options and help are made when they are asked for: none reads what another needs."""

    def __init__(
        self, name: str, given: Flags, folder: str, group: "Group | None", function: Function, **more: Any
    ) -> None:
        super().__init__(name, callback=self.answer, **more)
        self.given = [Flag(flag) if isinstance(flag, str) else flag for flag in given]
        self.folder, self.function = folder, function
        del self.params, self.help
        if group:
            group.add_command(self)

    @cached_property
    def question(self) -> Any:
        """The class that its function asks for, of the folder's asked.py; None without one."""
        name = self.function.__annotations__.get("question")
        return getattr(import_module(f"mdp.io.{self.folder}.asked"), name) if name else None

    @cached_property
    def params(self) -> list[click.Parameter]:  # type: ignore[override]
        """The question's fields and what is given besides; a field that is one of these stands among them."""
        named = [flag.key for flag in self.given]
        own = [Flag(field.name) for field in (fields(self.question) if self.question else ())]
        flags = [*(flag for flag in own if flag.key not in named), *self.given]
        return [flag.parameter(self.question) for flag in flags]

    @cached_property
    def help(self) -> str:  # type: ignore[override]
        """The docstring of its function, or else of its question; lines that begin with mdp are examples."""
        about = source.cleandoc(self.function.__doc__ or self.question.__doc__)
        return re.sub(r"^ *mdp ", "  mdp ", about, flags=re.MULTILINE).replace("\n\n  mdp ", "\n\n\b\n  mdp ")

    def answer(self) -> None:
        self.function(*([self.asked()] if self.question else []))

    def asked(self) -> Any:
        """The question, of what was given."""
        given = _given()
        own = {field.name: given.pop(field.name) for field in fields(self.question) if field.name in given}
        try:
            return self.question(**own)
        except ValueError as error:
            raise click.UsageError(str(error)) from error


class Group(Command, click.Group):
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
            import difflib

            close = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"commands: {', '.join(self.commands)}"
            raise click.UsageError(f"no such command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


CONTEXT = {"auto_envvar_prefix": "MDP", "help_option_names": ["-h", "--help"], "max_content_width": 110}


def _about() -> None:
    """Pretrain semantic segmentation on several labelled datasets at once.

    mdp demo                                          two minutes, no data needed
    mdp pretrain --datasets voc,ade20k --epochs 200   datasets under ./data
    mdp finetune --target cityscapes                  from the newest pretraining run
    mdp eval                                          the newest fine-tuning run
    """


cli = click.version_option(__version__, prog_name="mdp")(Group("mdp", (), "", None, _about, context_settings=CONTEXT))


def command(name: str, *given: str | Flag, of: str = "", group: Group = cli) -> Callable[[Function], Command]:
    """A command that is asked a question of a folder, and given these besides: keys, or keys of which more is said."""
    return partial(Command, name, given, of, group)


def group(name: str, *given: str | Flag, of: str = "", **more: Any) -> Callable[[Function], Group]:
    return partial(Group, name, given, of, cli, **more)


# What commands do


def _given() -> dict[str, Any]:
    """What was given of settings, questions and switches, by key."""
    return click.get_current_context().ensure_object(dict)


def _quiet() -> bool:
    return "quiet" in _given()


def _request(**more: Any) -> "Request":
    with unsearched():
        from mdp.io.recipe.request import requested

    return requested(_given() | more)


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
    result: Result, text: Callable[[Result], str], data: Callable[[Result], Any] | None = None, indent: int | None = 1
) -> None:
    """Prints a result, for programs (`data` of it) or for people; of several processes one does."""
    if not speaks():
        return
    if "json" in _given():
        click.echo(json.dumps(data(result) if data else result, indent=indent))
    else:
        click.echo(text(result))


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


# Options of several commands


def _files(folder: str, *first: str) -> Choice[str]:
    """What a folder of this package has a file for, these first; nothing is imported."""
    names = {path.stem for path in (Path(__file__).parent / folder).glob("[a-z]*.py")}
    return Choice([*first, *sorted(names - set(first))])


def config(about: str, example: str) -> list[Flag]:
    words = {"config": f"A recipe, or a YAML file of settings; {about}.", "assignments": f"Any setting: {example}."}
    return [flag(key, about=about) for key, about in words.items()]


heads = _files("core/networks/heads", "deeplabv3", "deeplabv3plus", "fcn", "deeplabv3_torchvision")
head = flag("model.head", about="Segmentation head [default: deeplabv3].", type=heads)
backbone = flag("model.backbone", about="resnet18, 34, 50 or 101, with _v1c for MMSegmentation's stem, or timm:NAME.")
resources: Flags = ("data.root", "run.device", "run.workers")
job: Flags = (*resources, "out", *config("see `mdp recipe list` and `show`", "run.seed=1"), "json", "quiet")
frozen: Flags = (  # of the commands that look at features as they are
    "source", "start", "out", flag("model.backbone", about="Of scratch, or of a FILE that does not show it."),
    "run.seed", *resources, *config("its section model counts", "model.width=32"), "json", "quiet",
)  # fmt: skip
stage: Flags = (flag("overwrite", about="Do it again where it was done with something else."), "processes", *job)


def training(phase: str) -> Flags:
    """What pretrain and finetune are given besides."""
    schedule = (f"{phase}.{name}" for name in ("epochs", "steps", "batch_size", "lr", "optimizer"))
    return ("dry_run", "processes", *schedule, "run.seed", "overwrite", "resume", "run.init_from", "run.init_partial",
            "run.precision", "run.cache", "run.compile", "run.accumulate", "run.deterministic", "run.on_bad_sample",
            "run.check", "run.tensorboard", "run.wandb", "run.mlflow", "print_config", *job)  # fmt: skip


# Commands


@command("pretrain",
         flag("pretrain.datasets", about="Names or YAML files, comma-separated or repeated; NAME:SPLIT picks a split."),
         flag("method.name", "--method", "Pretraining method; see `mdp methods`."), backbone, head,
         flag("method.mix", "--mix", "Mix images across datasets.",
              lambda mix: {"region": mix in ("region", "both"), "pixel": mix in ("pixel", "both")},
              type=Choice(["none", "region", "pixel", "both"])),
         flag("method.sparse.variant", "--sparse", "Cross-class sparse coding.", type=Choice(["off", "csc1", "csc2"])),
         "pretrain.balance", "init", *training("pretrain"))  # fmt: skip
def pretrain() -> None:
    """Pretrain one backbone on the union of several datasets.

    mdp pretrain --datasets voc,ade20k --epochs 200
    mdp pretrain --datasets voc,my_site.yaml --mix both --batch-size 32
    mdp pretrain --resume
    mdp pretrain --datasets shapes-coarse,shapes-fine --config examples/recipes/tiny.yaml
    """
    _train("pretrain")


@command("finetune", "finetune.target",
         flag("init", about="Weights to start from [default: the newest pretraining run].",
              metavar="RUN|FILE|scratch"),
         backbone, "finetune.images",
         flag("finetune.load", "--backbone-only", "Load the backbone but not the head.", lambda _: ["backbone"],
              is_flag=True),
         head,
         flag("criterion", "", "What is minimised, and what is added to it; see `mdp methods`.", words.criteria,
              metavar="NAME[,NAME=WEIGHT]...",
              shell_complete=partial(_complete, "recipe.criteria.criterion_names", False)),
         "finetune.head_init", *training("finetune"))  # fmt: skip
def finetune() -> None:
    """Fine-tune a segmentor on a target dataset.

    mdp finetune --target cityscapes
    mdp finetune --target my_site.yaml --init runs/pretrain/2026-11-20_1432_voc+ade20k --steps 5000
    mdp finetune --target voc --init scratch --criterion cross_entropy,dice=3
    """
    _train("finetune")


@command("eval", "target", "eval.split", "which", "weights", "eval.mode", "eval.images", "eval.scales", "eval.flip",
         "eval.max_memory", "save", flag("gallery", read=words.image_count), "save_as", "verbose",
         "processes", *job, of="evaluation")  # fmt: skip
def evaluate(question: "Evaluation") -> None:
    request = _request(init=question.run)
    from mdp.io.evaluation.job import refuse_early, run_evaluation
    from mdp.io.evaluation.scores import table

    _launch(partial(refuse_early, request, question.which, question.weights))
    scores, folder = run_evaluation(
        request, question.which, question.save, question.save_as, question.gallery, question.weights
    )
    if speaks():
        _show(scores, partial(table, verbose=question.verbose), indent=None)
        stderr.say(f"written to {folder}")


@command("predict",
         flag("init", "--run", "Fine-tuning run, or a checkpoint of one [default: the newest].", metavar="RUN"),
         flag("out", about="Folder to write to [default: a new one in RUN/predict]."),
         flag("eval.mode", about="Whole images or sliding windows [default: RUN's]."),
         flag("existing", "--skip-existing", "Go on in --out: pass photos over whose files are there.",
              lambda _: "skip", is_flag=True, type=bool),
         flag("existing", "--overwrite", "Replace files in --out.", lambda _: "overwrite", is_flag=True, type=bool),
         flag("run.on_bad_sample", about="When a photo cannot be read [default: stop].", default="stop"),
         "run.device", "run.workers", *config("run and eval are read", "eval.scale=[2048,512]"), "json", "quiet",
         of="inference")  # fmt: skip
def predict(question: "Wanted") -> None:
    request = _request()
    if question.existing == "skip" and request.out is None:
        raise click.UsageError("--skip-existing needs --out, the folder to go on in")
    with unsearched():
        from mdp.io.inference.job import run_predictions

    _show(run_predictions(request, question), lambda done: str(done["out"]), indent=None)


@command("export", "json", of="export")
def export(question: "ExportQuestion") -> None:
    with unsearched():
        from mdp.io.export.job import as_json, report, run_export

    _show(run_export(question), report, as_json)


@command("compare", "finetune.target", flag("finetune.steps", about="Fine-tuning steps, the same for all."), "show",
         *job, of="studies")  # fmt: skip
def compare(question: "CompareQuestion") -> None:
    from mdp.io.report.compared import as_json, comparisons, read_comparison, reports

    show = question.show
    if show is None:
        from mdp.io.studies.compare import parse_comparison, run_comparison

        show = run_comparison(_request(), parse_comparison(question))
        stderr.say(f"written to {show}")
    _show([read_comparison(file) for file in comparisons(show)], reports, as_json, indent=None)


@command("report", flag("quiet", about="Do not print where the page is."), of="report")
def write_report(question: "Report") -> None:
    from mdp.io.report.job import run_report

    page = run_report(question.folders, question.out, stderr.say)
    if not _quiet():
        click.echo(str(page))


@command("demo", "json", of="studies")
def demo(question: "Demo") -> None:
    from mdp.io.studies.demo import run_demo, sentence

    _show(run_demo(question.seed, question.out), sentence, indent=None)


@group("datasets", "json", of="recipe", invoke_without_command=True)
def datasets(question: "Listing") -> None:
    if click.get_current_context().invoked_subcommand is None:
        from mdp.io.recipe.catalogue import dataset_rows, dataset_table

        _show(dataset_rows(Path(question.root)), dataset_table)


@command("init", of="datasets.draft", group=datasets)
def datasets_init(question: "Draft") -> None:
    from mdp.io.datasets.draft.job import run_init

    click.echo(run_init(question.folder, question.out, question.overwrite))


@command("check", "json", "quiet", of="check")
def check(question: "Check") -> None:
    with unsearched():
        from mdp.io.check.job import run_check
        from mdp.io.check.report import expect_sound, report_json, report_text

    names = (*question.names, *question.datasets)
    reports = run_check(names, Path(question.root), question.workers, question.images, _quiet())
    _show(reports, report_text, report_json)
    expect_sound(reports, question.strict)


@command("methods")
def methods() -> None:
    """List the pretraining methods, and the criteria of fine-tuning.

    mdp methods
    """
    from mdp.io.recipe.catalogue import method_lines

    click.echo("\n".join(method_lines()))


@group("recipe")
def recipe() -> None:
    """Settings and where they come from."""


@command("show", of="recipe", group=recipe)
def recipe_show(question: "OneRecipe") -> None:
    from mdp.io.recipe.published import recipe_yaml

    click.echo(recipe_yaml(question.file, question.target, question.method), nl=False)


@command("list", "json", of="recipe", group=recipe)
def recipe_list(question: "Recipes") -> None:
    from mdp.io.recipe.catalogue import recipe_rows, recipe_table

    _show(recipe_rows(question.folder), recipe_table)


@command("inspect",
         flag("model.backbone", about="Hold it against this backbone [default: the ResNet that its shapes show]."),
         "init_from", *config("its section model counts", "model.channels=256"), "json", of="weights")  # fmt: skip
def inspect(question: "Inspection") -> None:
    from mdp.io.weights.inspect import expect_usable, inspect, inspection

    result = inspect(question.file, _request().asked, question.init_from)
    _show(result, inspection)
    expect_usable(result)


@command("taxonomy", flag("model.backbone", about="Of a FILE that does not show it."), "run.seed", *resources, "out",
         "overwrite", "json", "quiet", of="studies")  # fmt: skip
def taxonomy(question: "Taxonomy") -> None:
    if question.photos is None:
        from mdp.io.studies.taxonomy import run_taxonomy, table

        result, folder = run_taxonomy(question.run, question.out, question.overwrite, question.truth)
    else:
        from mdp.io.studies.taxonomy_votes import run_voted_taxonomy
        from mdp.io.studies.taxonomy_votes import voted_table as table
        from mdp.io.studies.votes import Asked

        asked = Asked(source=str(question.run), photos=question.photos, datasets=tuple(question.datasets),
                      size=question.size, names=question.names, words=question.words)  # fmt: skip
        result, folder = run_voted_taxonomy(
            asked, _request().asked, question.out, question.overwrite, question.truth, _quiet()
        )
    _show(result, table)
    if not _quiet():
        stderr.say(f"written to {folder}")


@command("suspects", *frozen, of="suspects")
def suspects(question: "SuspectsQuestion") -> None:
    from mdp.io.suspects.job import run_suspects, suspects_table

    _show(run_suspects(question, _request().asked, _quiet())[0], suspects_table)


@command("retrieve", "processes", *frozen, of="unsupervised")
def retrieve(question: "Retrieval") -> None:
    from mdp.io.unsupervised.retrieve import refuse_early, retrieval_table, run_retrieval

    layer = _request().asked
    _launch(partial(refuse_early, question, layer))
    _show(run_retrieval(question, layer, _quiet()), retrieval_table)


@command("probe", "processes", *frozen, of="unsupervised")
def probe(question: "Probe") -> None:
    from mdp.io.unsupervised.probe import probe_table, refuse_early, run_probe

    layer = _request().asked
    _launch(partial(refuse_early, question, layer))
    _show(run_probe(question, layer, _quiet()), probe_table)


@command("propagate", *frozen, of="unsupervised")
def propagate(question: "Propagation") -> None:
    from mdp.io.unsupervised.propagate import propagation_table, run_propagation

    _show(run_propagation(question, _request().asked, _quiet()), propagation_table)


@group("luss")
def luss() -> None:
    """Segmentation without labels, and its benchmark, ImageNet-S."""


@command("cluster", "luss.clusters", "luss.features", "luss.restarts", "run.seed", *stage, of="unsupervised.pipeline",
         group=luss)  # fmt: skip
def luss_cluster(question: "Clustering") -> None:
    from mdp.io.unsupervised.pipeline.cluster import clusters_table, run_clustering

    _launch()
    _show(run_clustering(_request(), question.source, question.target), clusters_table)


@command("label", "split", "luss.threshold", "luss.labels", "foreground", *stage, of="unsupervised.pipeline",
         group=luss)  # fmt: skip
def luss_label(question: "Labelling") -> None:
    from mdp.io.unsupervised.pipeline.label import labels_text, run_labelling

    _launch()
    _show(run_labelling(_request(), question.folder, question.split, question.foreground), labels_text)


@command("run", flag("method.name", "--method", "Pretraining method of the representation."), "run.seed", *job,
         of="unsupervised.pipeline", group=luss)  # fmt: skip
def luss_run(question: "Pipeline") -> None:
    from mdp.io.unsupervised.pipeline.run import pipeline_text, run_pipeline

    _show(run_pipeline(_request(), question.target), pipeline_text)


@command("score", "json", "quiet", of="unsupervised", group=luss)
def luss_score(question: "Score") -> None:
    from mdp.io.unsupervised.pipeline.scores import run_scores, scores_text

    _show(run_scores(question, _quiet()), scores_text)


@command("nearest", backbone, flag("run.init_from", about="Where in the file the backbone's names begin."),
         "luss.neighbours", "luss.temperature", "luss.short_side", *resources, "processes",
         flag("out", about="Folder to write scores.json to."),
         *config("its sections model, run, data and luss count", "run.seed=1"), "json", "quiet",
         of="unsupervised", group=luss)  # fmt: skip
def luss_nearest(question: "Nearest") -> None:
    from mdp.io.unsupervised.nearest import run_nearest
    from mdp.io.unsupervised.score import score_table

    _launch()
    _show(run_nearest(question, _request()), score_table)


@group("checkpoint")
def checkpoint() -> None:
    """Look into checkpoints: are they whole, what is in them, how do two differ."""


@command("verify", "json", of="run", group=checkpoint)
def checkpoint_verify(question: "OneRun") -> None:
    """Say which checkpoints of a run are whole.  Exit code 5 when one is damaged.

    mdp checkpoint verify runs/pretrain/2026-11-20_1432_voc+ade20k
    mdp checkpoint verify last.safetensors --json
    """
    from mdp.io.run.checkpoint_report import expect_whole, verify, verify_table

    verdicts = verify(question.run)
    _show(verdicts, verify_table)
    expect_whole(verdicts)


@command("show", "json", of="run", group=checkpoint)
def checkpoint_show(question: "OneRun") -> None:
    """Print what is in a checkpoint.  Of a run it is the last one.

    mdp checkpoint show runs/finetune/2026-11-20_1432_cityscapes
    mdp checkpoint show best.safetensors --json
    """
    from mdp.io.run.checkpoint_summary import describe, description

    _show(describe(question.run), description)


@command("diff", "json", of="run", group=checkpoint)
def checkpoint_diff(question: "TwoRuns") -> None:
    """Say what differs.  Exit code 0 when all tensors are the same bit for bit, else 5.

    mdp checkpoint diff runs/pretrain/a runs/pretrain/b
    mdp checkpoint diff last.safetensors best.safetensors
    """
    from mdp.io.run.checkpoint_report import difference, difference_text, expect_equal

    result = difference(question.first, question.second)
    _show(result, difference_text)
    expect_equal(result)


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

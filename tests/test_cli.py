"""The command line in processes: the card's commands, what goes to which stream, every way to be wrong.

Most are forks of one that has imported torch; those for which the start itself matters are begun anew.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import yaml
from click import Choice

from mdp.bounds import words_of
from mdp.cli import cli
from mdp.core.networks.decode_heads import HEADS
from mdp.given import Switches
from mdp.io.export.targets import names as target_names
from mdp.io.recipe.fields import sentence
from mdp.io.recipe.layers import Recipe, as_layer
from mdp.io.recipe.settings import RunSettings
from tests import preloaded, trees
from tests.conftest import ROOT
from tests.documented import walk
from tests.patience import LONG, wait_until
from tests.preloaded import Done

# no command of a test needs more; MDP_* variables are the same as flags
SMALL = """
run: {workers: 0, threads: 1}
model: {backbone: resnet18, width: 8, output_stride: 16, channels: 8, dilations: [1, 2]}
method: {embedding: 8, hidden: 8}
pretrain: {batch_size: 4, crop: 32, validate_images: 2}
finetune: {steps: 3, batch_size: 2, crop: [32, 32], scale: [96, 64]}
eval: {scale: [96, 64]}
"""


class Shell(NamedTuple):
    """A folder to work in, with a small recipe by way of the environment."""

    folder: Path

    def environment(self) -> dict[str, str]:
        config = {f"MDP_{name}_CONFIG": "small.yaml" for name in ("PRETRAIN", "FINETUNE", "EVAL", "COMPARE")}
        return {**os.environ, **config, "NO_COLOR": "1", "COLUMNS": "100"}

    def __call__(self, command: str, **variables: str) -> Done:
        return preloaded.run(_words(command), self.folder, **{**self.environment(), **variables})

    def anew(self, command: str) -> Done:
        """The command by an interpreter of its own."""
        done = subprocess.run(
            [sys.executable, *_words(command)], cwd=self.folder, env=self.environment(), capture_output=True, text=True,
            timeout=LONG, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)


def _words(command: str) -> list[str]:
    assert command.startswith("mdp ")
    return ["-m", *command.split()]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "small.yaml").write_text(SMALL)
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder with miniature datasets and finished runs, for tests that only look."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "small.yaml").write_text(SMALL)
    for name in ("voc", "ade20k", "cityscapes"):
        trees.TREES[name](folder / "data")
    shell = Shell(folder)
    for command in ("mdp pretrain --datasets voc,ade20k --epochs 2", "mdp finetune --target cityscapes", "mdp eval"):
        done = shell.anew(command) if "eval" in command else shell(command)
        assert done.code == 0, done.err
    return shell


def test_the_cards_commands_work_as_written(home: Shell) -> None:
    (pretrained,) = (home.folder / "runs" / "pretrain").iterdir()
    (tuned,) = (home.folder / "runs" / "finetune").iterdir()
    assert pretrained.name.endswith("voc+ade20k")
    assert f"from {pretrained.relative_to(home.folder)}" in (tuned / "log.txt").read_text()
    scores = json.loads((tuned / "eval" / "cityscapes-val" / "scores.json").read_text())
    assert scores["dataset"] == "cityscapes"
    assert len(scores["classes"]) == 19
    assert "MMSegmentation" in scores["rule"]


def test_results_go_to_stdout_and_progress_to_stderr(home: Shell) -> None:
    done = home("mdp eval --json")
    assert json.loads(done.out)["split"] == "val"
    assert "scoring runs/finetune/" in done.err
    quiet = home("mdp eval --quiet")
    assert quiet.out.splitlines()[-1].startswith("mIoU ")
    assert "scoring" not in quiet.err


def test_saved_configurations_reproduce_the_call(home: Shell, tmp_path: Path) -> None:
    printed = home("mdp pretrain --datasets voc,ade20k --epochs 2 --lr 0.5 --set method.mix.region=true --print-config")
    assert printed.code == 0, printed.err
    assert yaml.safe_load(printed.out)["pretrain"]["lr"] == 0.5
    (home.folder / "printed.yaml").write_text(printed.out)
    again = home("mdp pretrain --config printed.yaml --print-config")
    assert again.out == printed.out


def test_flags_win_over_the_environment_and_set_over_flags(home: Shell) -> None:
    command = "mdp pretrain --datasets voc --lr 0.2 --print-config"
    environment = {"MDP_PRETRAIN_LR": "0.1", "MDP_PRETRAIN_SEED": "5"}
    found = yaml.safe_load(home(command, **environment).out)
    assert found["pretrain"]["lr"] == 0.2
    assert found["run"]["seed"] == 5
    found = yaml.safe_load(home(f"{command} --set pretrain.lr=0.3", **environment).out)
    assert found["pretrain"]["lr"] == 0.3


def test_a_dry_run_says_what_is_needed_and_writes_nothing(home: Shell) -> None:
    before = sorted(home.folder.rglob("*"))
    done = home("mdp pretrain --datasets voc,ade20k --epochs 5 --dry-run")
    needs = json.loads(done.out)
    assert needs["classes"] == 171
    assert needs["steps"] == 5 * needs["steps_an_epoch"]
    batches = needs["steps_an_epoch"]
    assert needs["state_bytes"] == 171 * (batches * (8 * 4 + 8) + 8 * 8 + 8) + 4 * batches
    assert sorted(home.folder.rglob("*")) == before


@pytest.mark.parametrize(
    "command", ["mdp methods", "mdp eval --split nothing", "mdp pretrain --datasets voc --epochs 5 --dry-run"]
)
def test_a_command_that_is_begun_anew_does_what_its_fork_does(home: Shell, command: str) -> None:
    assert home.anew(command) == home(command)


def test_ctrl_c_writes_a_checkpoint_and_resume_goes_on(shell: Shell) -> None:
    command = ["pretrain", "--datasets", "shapes-coarse,shapes-fine", "--steps", "100000", "--out", "run"]
    run = subprocess.Popen(
        [sys.executable, "-m", "mdp", *command],
        cwd=shell.folder, env=shell.environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    journal = shell.folder / "run" / "metrics.jsonl"
    wait_until(lambda: journal.is_file() and journal.stat().st_size > 500, "a few steps")
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=LONG)
    assert run.returncode == 75, err
    last = err.splitlines()[-1]
    assert last.startswith("stopped by SIGINT after step")
    assert "--resume run" in last
    status = json.loads((shell.folder / "run" / "status.json").read_text())
    assert status["state"] == "preempted"
    more = shell("mdp pretrain --resume run --set pretrain.steps=5")
    assert more.code == 2
    assert "pretrain.steps differ from the run's" in more.err


WRONG = [
    ("mdp pretrian", 2, "no such command 'pretrian'; did you mean 'pretrain'?"),
    ("mdp pretrain --dataset voc", 2, "--datasets"),
    ("mdp pretrain", 2, "no datasets: give --datasets"),
    ("mdp pretrain --datasets voc,ade2k", 2, "unknown dataset 'ade2k'; did you mean 'ade20k'?"),
    ("mdp pretrain --datasets gone.yaml", 2, "gone.yaml"),
    ("mdp pretrain --datasets voc,voc", 2, "two datasets have the same name"),
    ("mdp pretrain --datasets voc:trian", 2, "unknown split 'trian'"),
    ("mdp pretrain --datasets voc --root nowhere", 3, "there is no folder nowhere"),
    ("mdp pretrain --datasets voc --config typo.yaml", 2, "unknown setting pretrain.bach_size; did you mean"),
    ("mdp pretrain --datasets voc --config twice.yaml", 2, "key 'lr' is given twice"),
    ("mdp pretrain --datasets voc --lr fast", 2, "'fast' is not a valid float"),
    ("mdp pretrain --datasets voc --set pretrain.lr", 2, "expected KEY=VALUE"),
    ("mdp pretrain --datasets voc --method mdp", 2, "unknown method 'mdp'"),
    ("mdp pretrain --datasets voc --device tpu", 6, "expected auto, cpu, cuda, cuda:N or mps"),
    ("mdp pretrain --datasets voc --out full", 2, "the folder is not empty; choose another or add --overwrite"),
    ("mdp pretrain --datasets voc --out full --overwrite", 2, "replaces runs of mdp only"),
    ("mdp pretrain --datasets voc --init nothing.pth", 5, "nothing.pth"),
    ("mdp pretrain --resume nothing", 5, "nothing: expected a run folder"),
    ("mdp finetune --target voc --init small.yaml", 5, "small.yaml"),
    ("mdp finetune --target voc --set model.width=12", 5, "[8, 3, 7, 7] in the file, [12, 3, 7, 7] in the network"),
    ("mdp finetune", 2, "no target"),
    ("mdp pretrain --datasets letters --root full", 2, "letters: no labels, and the method multi_dataset needs them"),
    ("mdp pretrain --datasets voc --method moco --set method.hidden=3", 2, "unknown setting method.hidden"),
    ("mdp finetune --target letters", 2, "letters: no labels; fine-tuning needs a labelled target"),
    ("mdp finetune --target voc --init scratch --head-init prototypes", 2, "scratch has no prototypes"),
    ("mdp compare --target voc", 2, "give --start at least once"),
    ("mdp compare --start scratch", 2, "no target"),
    ("mdp compare --target voc --start file:x", 2, "expected scratch, run:FOLDER, weights:FILE or imagenet:FILE"),
    ("mdp compare --target voc --start run:nothing", 5, "nothing: expected a run folder"),
    ("mdp compare --target voc --start scratch --fractions 2", 2, "above 0 and at most 1"),
    ("mdp compare --show nothing", 2, "expected a compare.json"),
    ("mdp recipe list nothing", 2, "nothing"),
    ("mdp eval nothing", 5, "nothing: expected a run folder"),
    ("mdp eval --split nothing", 2, "unknown split 'nothing'"),
    ("mdp eval --config typo.yaml", 2, "unknown setting pretrain.bach_size"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "code", "message"), WRONG, ids=[wrong[0] for wrong in WRONG])
def test_a_mistake_is_one_clear_line_with_its_exit_code(home: Shell, command: str, code: int, message: str) -> None:
    (home.folder / "typo.yaml").write_text("pretrain: {bach_size: 3}\n")
    (home.folder / "twice.yaml").write_text("pretrain:\n  lr: 1\n  lr: 2\n")
    (home.folder / "full").mkdir(exist_ok=True)
    (home.folder / "full" / "letter.txt").write_text("dear")
    (home.folder / "letters").mkdir(exist_ok=True)
    runs = sorted((home.folder / "runs").glob("*/*"))
    done = home(command)
    assert done.code == code, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert len([line for line in done.err.splitlines() if line.lower().startswith("error")]) == 1
    assert (home.folder / "full" / "letter.txt").read_text() == "dear"
    assert sorted((home.folder / "runs").glob("*/*")) == runs


def own(shell: Shell, command: str = "mdp pretrain --datasets site_a.yaml --epochs 1") -> Done:
    done = shell(command)
    assert "Traceback" not in done.err, done.err
    return done


def test_damaged_files_of_ones_own_data_are_named(shell: Shell) -> None:
    trees.own_tree(shell.folder)
    photo = shell.folder / "images" / "train" / "shot_1.JPG"
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2])
    cut = own(shell)
    assert cut.code == 3
    assert str(photo) in cut.err
    assert "truncated" in cut.err
    photo.write_bytes(whole)

    labels = shell.folder / "labels" / "train" / "shot_1.png"
    whole = labels.read_bytes()
    trees.grey(labels, trees.labels_array([0, 1], 0, (60, 90)))
    other = own(shell)
    assert other.code == 3
    assert "the label map is 90 x 60 pixels" in other.err
    assert "96 x 64" in other.err

    trees.grey(labels, trees.labels_array([0, 1, 77, 78], 0))
    outside = own(shell)
    assert outside.code == 3
    assert str(labels) in outside.err
    assert "77 (" in outside.err
    assert "ignore: [5, 77, 78]" in outside.err or "ignore: [77, 78]" in outside.err
    assert "site_a.yaml" in outside.err
    labels.write_bytes(whole)

    for path in (shell.folder / "images" / "val").iterdir():
        path.unlink()
    empty = own(shell, "mdp finetune --target site_a.yaml --init scratch")
    assert empty.code == 3
    assert "val" in empty.err


def test_a_label_map_in_colour_without_a_table_proposes_one(shell: Shell) -> None:
    trees.own_tree(shell.folder)
    for path in (shell.folder / "labels" / "train").iterdir():
        trees.photo(path, 0)
    done = own(shell)
    assert done.code == 3
    assert "needs a colour table" in done.err
    assert 'colors: ["#' in done.err


def test_a_damaged_checkpoint_is_refused_by_name(home: Shell, tmp_path: Path) -> None:
    (tuned,) = (home.folder / "runs" / "finetune").iterdir()
    whole = (tuned / "checkpoints" / "last.safetensors").read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 4
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    done = home(f"mdp eval {tmp_path}/damaged.safetensors")
    assert done.code == 5
    assert "damaged.safetensors: damaged" in done.err


def test_lists_of_datasets_and_methods(home: Shell) -> None:
    rows = json.loads(home("mdp datasets --json").out)
    found = {row["name"]: row["splits"] for row in rows}
    assert found["voc"]["val"] == {"found": 2, "official": 1449}
    assert found["cityscapes"]["train"]["official"] == 2975
    table = home("mdp datasets").out
    assert "shapes-target" in table
    assert "multi_dataset" in home("mdp methods").out
    assert "table3_voc_ade" in home(f"mdp recipe list {ROOT / 'examples' / 'recipes'}").out
    assert yaml.safe_load(home("mdp recipe show --target cityscapes").out)["finetune"]["crop"] == [512, 1024]
    assert yaml.safe_load(home("mdp recipe show --method moco").out)["method"]["queue"] == 65536


def test_a_comparison_that_was_killed_goes_on_and_shows_its_tables_again(shell: Shell) -> None:
    command = "mdp compare --target shapes-target --start scratch --fractions 1/4 --seeds 2 --steps 3 --out cmp"
    words = [*command.split()[1:], "--set", "eval.images=4", "--set", "run.workers=0"]
    first = shell.folder / "cmp" / "cells" / "scratch" / "1-4_seed0.json"
    with preloaded.Started(["-m", "mdp", *words], shell.folder, **shell.environment()) as run:
        wait_until(first.is_file, "the first cell")
        run.kill()
    done = shell(" ".join(["mdp", *words]))
    assert done.code == 0, done.err
    assert "2/2: mIoU" in done.err
    assert "(2)" in done.out
    assert shell("mdp compare --show cmp").out == done.out
    assert len(json.loads(shell("mdp compare --show cmp/compare.json --json").out)["cells"]) == 2


def test_the_examples_in_help_texts_are_commands_that_exist() -> None:
    for name, command in cli.commands.items():
        lines = [line.strip() for line in (command.help or "").splitlines() if line.strip().startswith("mdp ")]
        for line in lines:
            words = line.split()
            assert words[1] in cli.commands, f"{name}: {line}"
            known = {option for parameter in cli.commands[words[1]].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, f"{name}: {line}"


def test_every_option_that_is_a_setting_has_the_key_of_one() -> None:
    known = {f"{section}.{key}" for section, values in as_layer(Recipe()).items() for key in values}
    known |= {"method.sparse.variant", "criterion"}
    known |= {field.name for kind in (*QUESTIONS.values(), Switches) for field in fields(kind)}
    found = [key for _, command in walk(cli) for key in keys_of(command)]
    assert len(found) > 60
    assert set(found) <= known


QUESTIONS = {name: command.question for name, command in walk(cli) if getattr(command, "question", None)}


def keys_of(command: click.Command) -> list[str]:
    """Where the values go that a command does not see itself."""
    kept = [parameter.callback for parameter in command.params if isinstance(parameter.callback, partial)]
    return [callback.args[0] for callback in kept if isinstance(callback.args[0], str)]


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_field_of_a_question_can_be_given_and_has_words(name: str) -> None:
    names = [field.name for field in fields(QUESTIONS[name])]
    assert set(names) <= set(keys_of(dict(walk(cli))[name]))
    assert not [field for field in names if len(sentence(QUESTIONS[name], field, False)) < 5]


def test_a_flag_takes_what_its_setting_takes(home: Shell) -> None:
    for flag, setting in (("--workers 1025", "1025"), ("--workers -1", "-1"), ("--precision fp8", "fp8")):
        done = home(f"mdp pretrain --datasets voc {flag}")
        assert done.code == 2
        assert f"'{setting}' is not" in done.err or f"{setting} is not" in done.err
    (precision,) = (p for p in cli.commands["pretrain"].params if p.name == "precision")
    assert tuple(precision.type.choices) == words_of(RunSettings)["precision"]


def test_what_is_a_file_of_its_own_is_offered_by_the_command_line() -> None:
    choices = {p.name: p.type.choices for _, command in walk(cli) for p in command.params if isinstance(p.type, Choice)}
    assert list(choices["head"]) == list(HEADS)
    assert list(choices["target"]) == target_names()


def test_tiny_yaml_serves_all_three_commands(shell: Shell) -> None:
    tiny = ROOT / "examples" / "recipes" / "tiny.yaml"
    small = "--set run.workers=0 --set model.width=8 --set model.channels=8 --batch-size 4 --set eval.images=3"
    sets = "--datasets shapes-coarse,shapes-fine --set pretrain.validate_images=2"
    done = shell(f"mdp pretrain {sets} --config {tiny} --steps 2 {small}")
    assert done.code == 0, done.err
    done = shell(f"mdp finetune --target shapes-target --config {tiny} --steps 2 {small}")
    assert done.code == 0, done.err
    done = shell(f"mdp eval --config {tiny} --images 3")
    assert done.code == 0, done.err


def test_the_end_of_a_file_that_nobody_expected_is_a_bug_and_no_ctrl_c(tmp_path: Path) -> None:
    """click takes an EOFError from wherever it comes for a Ctrl-D."""
    code = (
        "import sys\nimport mdp.io.run.checkpoint_summary as summary\nfrom mdp.cli import main\n"
        "def describe(run):\n    raise EOFError('from below')\n"
        "summary.describe = describe\nsys.argv = ['mdp', 'checkpoint', 'show', 'run']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "EOFError: from below" in done.stderr
    assert "interrupted" not in done.stderr

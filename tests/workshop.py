"""A folder in which the documents' commands run as they are written, most of them inside this process.

Datasets are miniatures, networks narrow and runs two steps long; what a command asks for is resolved all the same.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from glob import glob
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch.distributed.run import get_args_parser

from mdp import cli as command_line
from mdp.core.networks import build_segmentor
from mdp.core.networks.resnet import ResNet
from mdp.io.errors import MdpError
from mdp.io.recipe.layers import Layer, merge, resolve
from mdp.io.recipe.request import Request
from mdp.io.studies import compare, demo
from mdp.io.training.job import run_finetuning, run_pretraining
from mdp.io.unsupervised.pipeline import run as pipeline
from tests import trees
from tests.conftest import ROOT
from tests.documented import Command, fences
from tests.export_runs import make_run

SMALL: Layer = {  # over whatever a command says: what it costs, not what it does
    "run": {"workers": 0, "threads": 1},
    "model": {"backbone": "resnet18", "width": 8, "output_stride": 16, "channels": 8, "dilations": [1, 2]},
    "pretrain": {"steps": 2, "batch_size": 4, "crop": 32, "validate_epochs": 0, "validate_images": 2},
    "finetune": {"steps": 2, "batch_size": 2, "crop": [32, 32], "scale": [96, 64], "validate_steps": 0},
    "eval": {"scale": [96, 64], "images": 4},
    "luss": {"short_side": 32, "restarts": 2, "attention_epochs": 1},
}


def workshop(folder: Path) -> Path:
    """A folder with all that the documents name: datasets under data/, photos, YAML files, weights and runs."""
    data = folder / "data"
    for tree in (trees.coco_stuff_tree, trees.camvid_tree, trees.voc_tree, trees.ade20k_tree, trees.cityscapes_tree):
        tree(data)
    for home in (data, folder):
        labelmefacade_tree(home / "labelmefacade")
    msrc_tree(data / "MSRC_v2")
    clothing_tree(data / "clothing-co-parsing")
    site_tree(folder)
    label_map_folders(folder)
    for seed, name in enumerate(("one.jpg", "of_may/two.jpg")):
        trees.photo(folder / "photos" / name, seed)
    for seed in range(4):
        trees.photo(folder / "pictures" / f"{seed}.jpg", seed)
    for seed, name in enumerate(f"{kind}/{number}.jpg" for kind in ("cats", "dogs") for number in range(5)):
        trees.photo(folder / "by_class" / name, seed)
    for seed in range(3):
        trees.photo(folder / "bear" / "frames" / f"{seed:05d}.jpg", seed)
        trees.grey(folder / "bear" / "masks" / f"{seed:05d}.png", trees.labels_array([0, 1, 2], seed))
    for name in ("examples", "docs/study"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "constraints.txt", folder)
    weights(folder)
    finished_runs(folder)
    return folder


def site_tree(folder: Path) -> None:
    """A dataset of one's own that has nothing wrong with it, under the two names that documents give it."""
    for seed, split in enumerate(("train", "train", "val")):
        trees.photo(folder / "images" / split / f"{seed}.jpg", seed)
        trees.grey(folder / "labels" / split / f"{seed}.png", trees.labels_array([0, 1, 2], seed))
    for name in ("my_site", "my"):
        trees.own_yaml(
            folder,
            """
            name: site_a
            splits:
              train: {images: images/train, labels: labels/train}
              val: {images: images/val, labels: labels/val}
            classes: {0: sky, 1: road, 2: vehicle}
            """,
            f"{name}.yaml",
        )


def label_map_folders(folder: Path) -> None:
    """ImageNet-S in small, and folders of label maps that belong together."""
    trees.imagenet_s_tree(folder / "data")
    maps = folder / "data" / "ImageNetS50" / "validation-segmentation"
    for name in ("predictions", "test_predictions", "test_label_maps", "first_annotator", "second_annotator"):
        shutil.copytree(maps, folder / name)


def labelmefacade_tree(home: Path) -> None:
    colors = np.array([[0, 0, 0], [128, 0, 0], [128, 0, 128], [0, 128, 128], [0, 128, 0]], dtype=np.uint8)
    names = ["05june05_static_street_boston__p1010736", "two", "three", "four"]
    for seed, name in enumerate(names):
        trees.photo(home / "images" / f"{name}.jpg", seed)
        trees.grey(home / "labels" / f"{name}.png", colors[trees.labels_array(range(5), seed)])
    for split, listed in (("splits/train_300", names[:2]), ("splits/val_100", names[2:]), ("train", names[:1]),
                          ("test", names[1:])):  # fmt: skip
        trees.lines(home / f"{split}.txt", listed)


def msrc_tree(home: Path) -> None:
    for seed, split in enumerate(("Train", "Validation", "Test")):
        trees.photo(home / "Images" / f"{seed}_1_s.bmp", seed)
        trees.palette(home / "GroundTruth" / f"{seed}_1_s_GT.png", trees.labels_array([0, 1, 2, 7], seed))
        trees.lines(home / "splits" / f"{split}.txt", [f"{seed}_1_s"])


def clothing_tree(home: Path) -> None:
    for seed, split in enumerate(("train", "val")):
        trees.photo(home / "photos" / f"000{seed}.jpg", seed)
        trees.grey(home / "annotations" / "pixel-level-png" / f"000{seed}.png", trees.labels_array([0, 19, 41], seed))
        trees.lines(home / f"{split}.txt", [f"000{seed}"])


def weights(folder: Path) -> None:
    """Weights files by the names that documents use, of a network as narrow as the runs'."""
    bare = ResNet("resnet18", 8).state_dict()
    whole = {**bare, "fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}
    for name in ("resnet50.pth", "FILE.pth"):
        torch.save(whole, folder / name)
    moco = {f"module.encoder_q.{name}": tensor for name, tensor in whole.items()}
    torch.save({"state_dict": moco}, folder / "moco_v2_800ep_pretrain.pth.tar")
    model = resolve({"model": {**SMALL["model"], "backbone": "resnet101", "channels": 256}}).model
    torch.save(build_segmentor(model, 3, torch.Generator()).state_dict(), folder / "deeplabv3.pth")
    (folder / "FOLDER").mkdir()
    save_file(bare, folder / "FOLDER" / "model.safetensors")


def finished_runs(folder: Path) -> None:
    """Runs by the names that documents use: one of each kind was trained, the others are copies."""
    runs = folder / "runs"
    trained = {"pretrain": {"datasets": ["voc", "ade20k"]}, "finetune": {"target": "cityscapes"}}
    layers = ({**trained, "data": {"root": str(folder / "data")}}, SMALL)
    first = run_pretraining(Request(layers=layers, quiet=True, out=runs / "x"))
    second = run_finetuning(Request(layers=layers, quiet=True, out=runs / "finetune" / "x", init=str(first)))
    for name in ("y", *(f"x-{seed}" for seed in range(5)),
                 *(f"pretrain/{name}" for name in ("x", "a", "b", "2026-11-20_1432_voc+ade20k"))):  # fmt: skip
        copied(first, runs / name)
    for name in ("2026-11-20_1432_cityscapes", "2026-11-20_1832_cityscapes"):
        copied(second, runs / "finetune" / name)
    for name in ("last", "best"):
        shutil.copy(first / "checkpoints" / "last.safetensors", folder / f"{name}.safetensors")
    (runs / "compare" / "cityscapes").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "study" / "camvid.json", runs / "compare" / "cityscapes" / "compare.json")


def copied(source: Path, target: Path) -> Path:
    """A copy of a folder that shares weights and checkpoints with it: mdp replaces such files, and changes none."""
    return Path(shutil.copytree(source, target, copy_function=_linked))


def _linked(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def described_files(text: str, folder: Path) -> None:
    """Writes the YAML files that a document shows whole: those whose first line is a comment with the file's name."""
    for language, _, block in fences(text):
        if language == "yaml" and (named := re.fullmatch(r"# (\w+\.yaml)", block[0])):
            (folder / named[1]).write_text("\n".join(block))


# Running


@dataclass
class Shell:
    """A place in which commands run one after the other, most of them inside this process."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, command: Command) -> None:
        """Runs a command as a reader would; fails, naming it, when it does not end as it says."""
        words = [part for word in _words(command) for part in self._expanded(*word, command)]
        given = {}
        while words and (assigned := re.fullmatch(r"([A-Za-z_]\w*)=(.*)", words[0])):
            given[assigned[1]] = assigned[2]
            words = words[1:]
        if not words:
            self.variables |= given
            return
        target = words.pop() if len(words) > 2 and words[-2] == ">" else None
        if target:
            words.pop()
        code, told = self._call(words, given, command)
        if target:
            (self.folder / target).write_text(told)
        comment = re.search(r"#.*\bexit code (\d+)", command.text)
        expected = int(comment[1]) if comment else 0
        assert code == expected, f"{command.place}: `{command.text}` ended with exit code {code}: {told[-1500:]}"

    def _expanded(self, word: str, quoted: bool, command: Command) -> list[str]:
        """The word with its variables filled in, and what lies there in the place of a pattern."""

        def value(found: re.Match[str]) -> str:
            name = found[1] or found[2]
            assert name in self.variables, f"{command.place}: ${name} is set nowhere in this document"
            return self.variables[name]

        whole = word if word.startswith("$(") else re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, word)
        return sorted(glob(whole)) or [whole] if "*" in whole and not quoted else [whole]

    def _call(self, words: list[str], given: dict[str, str], command: Command) -> tuple[int, str]:
        kinds: list[tuple[str, Callable[[], tuple[int, str]]]] = [
            ("mdp ", lambda: self._mdp(words[1:])),
            ("python -m mdp ", lambda: self._mdp(words[3:])),
            ("torchrun ", lambda: self._torchrun(words[1:], command)),
            ("pip install ", lambda: self._pip(words[2:])),
            ("python examples/", lambda: self._python(words[1:])),
            ("examples/", lambda: self._script(words, given, command)),
            ("eval ", lambda: self._bash(command.text, given)),
        ]
        line = " ".join(words) + " "
        run = next((run for start, run in kinds if line.startswith(start)), None)
        assert run, f"{command.place}: `{command.text}`: tests/workshop.py does not know how to run this"
        return run()

    def _mdp(self, words: list[str]) -> tuple[int, str]:
        with self._widened(words):
            done = CliRunner().invoke(command_line.cli, words, prog_name="mdp", auto_envvar_prefix="MDP")
        if isinstance(done.exception, MdpError):
            return self._excused(done.exception), f"error: {done.exception}"
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout if done.exit_code == 0 else done.output

    def _excused(self, error: MdpError) -> int:
        """An extra that is not installed here is no fault of the command, as long as the error names it."""
        named = re.search(r"pip install 'mdp-segmentation\[(\w+)\]'", str(error))
        return 0 if named and named[1] in extras() else error.exit_code

    @contextmanager
    def _widened(self, words: list[str]) -> Iterator[None]:
        """For an export, a network of the published width in the place of the run's: libraries know no narrower."""
        if words[:1] != ["export"] or {"safetensors", "onnx"} & set(words):
            yield
            return
        run, aside = self.folder / words[1], self.folder / "aside"
        kind = "finetune" if "target:" in (run / "config.yaml").read_text() else "pretrain"
        run.rename(aside)
        make_run(run, kind)
        yield
        if (run / "export").is_dir():
            shutil.copytree(run / "export", aside / "export")
        shutil.rmtree(run)
        aside.rename(run)

    def _torchrun(self, words: list[str], command: Command) -> tuple[int, str]:
        """Its own options by its own parser, the command inside in this process."""
        asked = get_args_parser().parse_args(words)
        assert (asked.module, asked.training_script) == (True, "mdp"), command
        return self._mdp(asked.training_script_args)

    def _pip(self, words: list[str]) -> tuple[int, str]:
        """Nothing is installed: the files and extras that are named have to exist."""
        for option, value in pairwise(words):
            if option in ("-c", "-r", "--constraint", "--requirement"):
                assert (ROOT / value).is_file(), value
        for word in words:
            if named := re.fullmatch(r"(?:\.|mdp-segmentation)\[([\w,]+)\]", word):
                assert set(named[1].split(",")) <= extras(), word
        return 0, ""

    def _python(self, words: list[str]) -> tuple[int, str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words)
            runpy.run_path(words[0], run_name="__main__")
        return 0, ""

    def _script(self, words: list[str], given: dict[str, str], command: Command) -> tuple[int, str]:
        """The script with a stand-in for mdp that notes its arguments; each call's settings are looked at."""
        noted = self.folder / "noted"
        code, told = self._bash(shlex.join(words), {**given, "NOTED": str(noted)})
        for line in noted.read_text().splitlines() if noted.exists() else []:
            call = json.loads(line)
            if call[0] == "pretrain":
                shutil.copytree(self.folder / "runs" / "x", call[call.index("--out") + 1])  # as if it had run
                call.append("--print-config")
            ended, words_of_it = self._mdp(call)
            assert ended == 0, f"{command.place}: mdp {shlex.join(call)}: {words_of_it}"
        assert noted.exists(), f"{command.place}: `{command.text}` calls no mdp: {told}"
        noted.unlink()
        return code, told

    def _bash(self, text: str, given: dict[str, str]) -> tuple[int, str]:
        environment = {**os.environ, "MDP_DATA": "data", "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", **given}
        done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


def _words(command: Command) -> Iterator[tuple[str, bool]]:
    """The words of a command as a shell tells them apart, and whether each was quoted."""
    words = shlex.split(command.text, comments=True)
    raw = shlex.shlex(command.text, posix=False, punctuation_chars=False)
    raw.whitespace_split = True
    spelled = list(raw)
    assert len(words) == len(spelled), f"{command.place}: `{command.text}`: quotes within a word"
    yield from ((word, spelling != word) for word, spelling in zip(words, spelled, strict=True))


def extras() -> set[str]:
    """The names of the optional dependencies."""
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


_STAND_IN = f"""#!{sys.executable}
import json, os, sys
if "NOTED" in os.environ:
    with open(os.environ["NOTED"], "a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\\n")
else:
    sys.path.insert(0, {str(ROOT)!r})
    from mdp.cli import main
    main()
"""


@contextmanager
def shell_in(folder: Path) -> Iterator[Shell]:
    """A shell in the folder; what its commands cost is made small."""
    (folder / "bin").mkdir()
    (folder / "bin" / "mdp").write_text(_STAND_IN)
    (folder / "bin" / "mdp").chmod(0o755)
    (folder / "narrow.yaml").write_text("model: {width: 8, output_stride: 16, dilations: [1, 2]}\n")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("MDP_"):
                patch.delenv(name)
        patch.setenv("MDP_INSPECT_CONFIG", "narrow.yaml")
        patch.setenv("MDP_CHECK_WORKERS", "0")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.chdir(folder)
        patch.setattr(command_line, "_request", _cheap(command_line._request))
        patch.setattr(compare, "run_comparison", _short(compare.run_comparison))
        patch.setattr(pipeline, "run_pipeline", _planned)
        patch.setattr(demo, "RECIPE", merge(demo.RECIPE, SMALL, {"eval": {"scale": None}}))
        # one process in the place of several, which tests/test_launcher.py and tests/test_distributed.py have
        patch.setattr(command_line, "launched", lambda: True)
        yield Shell(folder)
    torch.set_num_threads(threads)
    if torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(False)


def _cheap(original: Callable[..., Request]) -> Callable[..., Request]:
    """The command's settings are resolved as they are; the job gets a small network and two steps."""

    def request(**more: Any) -> Request:
        asked = original(**more)
        if click.get_current_context().info_name == "inspect":
            return asked  # it holds a file against the network that is asked for
        resolve(*asked.layers)
        return replace(asked, layers=(*asked.layers, SMALL))

    return request


def _planned(request: Request, target: str) -> dict[str, Any]:
    """Of the whole way without labels, which tests/test_stages.py goes, its settings only."""
    resolve(*pipeline.layers_of_run(replace(request, layers=request.layers[:-1]), target))
    scores = {"miou": 0.0, "miou_interval": None, "image_accuracy": 0.0, "f_beta": 0.0}
    return {"target": target, "split": "validation", "labels": scores, "finetuned": scores, "page": ""}


def _short(original: Callable[..., Path]) -> Callable[..., Path]:
    """Of a comparison one seed and the smallest share; of the study's, which needs its runs, the settings only."""

    def run(request: Request, asked: compare.Comparison) -> Path:
        if request.out and "study" in request.out.parts:
            return Path("docs/study")
        return original(request, replace(asked, seeds=1, shares=asked.shares[:1]))

    return run

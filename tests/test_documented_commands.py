"""Every command that a document shows runs as it is written."""

import shutil
from pathlib import Path

import pytest

from mdp.cli import cli
from tests.conftest import ROOT
from tests.documented import (
    DOCUMENTS,
    NOT_RUN,
    Command,
    all_commands,
    commands,
    inline_commands,
    reason_not_to_run,
    walk,
)
from tests.workshop import copied, described_files, shell_in, workshop

FOUND = all_commands()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workshop(tmp_path_factory.mktemp("prepared") / "workshop")


@pytest.mark.usefixtures("bare_runs")
@pytest.mark.parametrize(
    "document", [pytest.param(name, marks=[pytest.mark.whole_runs] if name == "README.md" else []) for name in FOUND]
)
def test_the_commands_of_a_document_run_in_their_order(document: str, prepared: Path, tmp_path: Path) -> None:
    folder = copied(prepared, tmp_path / "here")
    described_files((ROOT / document).read_text(encoding="utf-8"), folder)
    with shell_in(folder) as shell:
        for command in FOUND[document]:
            if reason_not_to_run(command) is None:
                shell.run(command)


def test_what_is_not_run_is_in_a_document() -> None:
    shown = [command for listed in FOUND.values() for command in listed]
    assert len(shown) > 30
    for start in NOT_RUN:
        assert any(command.text.startswith(start) for command in shown), f"{start}: no document shows this any more"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_within_sentences_exist_with_their_options(document: str) -> None:
    known = dict(walk(cli))
    for shown in inline_commands((ROOT / document).read_text(encoding="utf-8")):
        words = [word for part in shown.split() for word in part.split("=")[:1]]
        name = "mdp"
        for word in words[1:]:
            name = f"{name} {word}" if f"{name} {word}" in known else name
        assert not words[1].islower() or words[1].startswith("-") or name != "mdp", (
            f"{document}: `{shown}`: no such command"
        )
        options = {option for part in known[name].params for option in (*part.opts, *part.secondary_opts)}
        wrong = [word for word in words if word.startswith("--") and word not in options | {"--help", "--version"}]
        assert not wrong, f"{document}: `{shown}`: {name} has no {wrong}"


# What would slip through if these checks were wrong

PAGE = """
Text, and a block of output:
```
class  its pair
```
```
D=data
FRACTIONS=1 mdp eval $D \\
  --split test  # exit code 2
# a comment

mdp check $D
```
```bash
srun mdp pretrain
```
- in a list:

  ```sh
  frobnicate --all
  mdp methods
  ```
"""


def test_commands_are_found_with_their_lines_and_nothing_else() -> None:
    assert commands("a.md", PAGE) == [
        Command("a.md:7", "D=data"),
        Command("a.md:8", "FRACTIONS=1 mdp eval $D --split test  # exit code 2"),
        Command("a.md:12", "mdp check $D"),
        Command("a.md:20", "frobnicate --all"),
        Command("a.md:21", "mdp methods"),
    ]
    assert inline_commands("Say `mdp eval\n--split x` and\n```\nmdp `mdp no`\n```\nor `mdp check`.") == [
        "mdp eval --split x", "mdp check"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frobnicate --all", "x.md:3: `frobnicate --all`: tests/workshop.py does not know"),
        ("mdp check $NOTHING", r"x.md:3: \$NOTHING is set nowhere"),
        ("mdp recipe show --target nothing --all", "x.md:3: .* exit code 2: .*[Nn]o such option"),
        ("mdp pretrain --datasets voc --set pretrain.stepz=2", "x.md:3: .* exit code 2: .*stepz"),
        ("mdp checkpoint verify gone", "x.md:3: .* exit code 5"),
        ("mdp methods  # exit code 3", "x.md:3: .* exit code 0"),
        ("examples/nothing.sh", "x.md:3: .* calls no mdp"),
        ("pip install '.[nothing]'", "nothing"),
        ("pip install -r nothing.txt", "nothing.txt"),
    ],
)
def test_a_command_that_does_not_run_is_told_with_its_place(text: str, words: str, tmp_path: Path) -> None:
    with shell_in(tmp_path) as shell, pytest.raises(AssertionError, match=f"(?s){words}"):
        shell.run(Command("x.md:3", text))


def test_patterns_stand_for_what_lies_there_unless_they_are_quoted(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("a.json", "b.json"):
        shutil.copy(ROOT / "docs" / "study" / "camvid.json", tmp_path / "docs" / name)
    with shell_in(tmp_path) as shell:
        shell.run(Command("x.md:3", "mdp report docs/*.json --out one.html"))
        shell.run(Command("x.md:4", "mdp report 'docs/*.json' --out two.html  # nothing of that name: exit code 2"))
    assert (tmp_path / "one.html").exists()


def test_what_a_command_prints_goes_where_it_is_sent(tmp_path: Path) -> None:
    with shell_in(tmp_path) as shell:
        shell.run(Command("x.md:3", "mdp methods > methods.txt"))
        shell.run(Command("x.md:4", "NAME=gone"))
        shell.run(Command("x.md:5", "mdp checkpoint verify ${NAME}  # nothing there: exit code 5"))
    assert "multi_dataset" in (tmp_path / "methods.txt").read_text()

"""Every command's `--help` has examples, and each of them runs as it is written."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mdp.cli import cli
from tests.documented import help_examples, walk
from tests.workshop import shell_in, workshop

pytestmark = pytest.mark.usefixtures("bare_runs")  # those of test_cli.py and of the README are whole
COMMANDS = dict(walk(cli))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_a_command_in_use(name: str) -> None:
    command = COMMANDS[name]
    if isinstance(command, click.Group) and name != "mdp":
        return  # its commands have theirs
    examples = help_examples(name, command)
    assert examples, f"{name} --help has no example: a line beginning with `{name}` in the docstring, after \\b"
    assert all(example.text.startswith(name) for example in examples)


def test_the_examples_of_help_run_in_their_order(tmp_path: Path) -> None:
    with shell_in(workshop(tmp_path / "workshop")) as shell:
        for name, command in COMMANDS.items():
            for example in help_examples(name, command):
                shell.run(example)


def test_the_list_of_commands_has_whole_sentences() -> None:
    words = " ".join(CliRunner().invoke(cli, ["--help"]).output.partition("Commands:")[2].split())
    assert "..." not in words
    assert "curves, scores, pictures, settings and how they ended." in words

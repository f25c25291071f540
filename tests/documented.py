"""The commands that the documents and `--help` show.

A fenced block without a language (or `sh`) that has a command in it is one that a reader pastes: each of its lines is
run.  Blocks marked `bash`, `console`, `python`, `yaml`, `text` and the like are shown only.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import click

from tests.conftest import ROOT

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md",
             *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]  # fmt: skip
NOT_RUN = {  # how a command begins that is not run here, and why
    "make demo": "makes an environment and trains for minutes; `mdp demo` is run, with fewer steps",
    "make test": "is what runs this",
    "python -m benchmarks": "measures for minutes to hours; tests/test_benchmarks.py runs its smallest cases",
    "python tests/stress/": "runs for minutes to hours, by hand",
    "python -m tests.stress.": "runs for minutes to hours, by hand",
}
_PROGRAM = (
    r"mdp|python3?|make|torchrun|pip|pipx|uv|conda|sh|bash|git|curl|wget|srun|sbatch|eval|export|docker|tensorboard|"
    r"dot|sudo|apt-get|apt|npm|cd|ls|cat|cp|mv|mkdir|rm|unzip|tar|open|\.{0,2}/\S+|\w+/\S+\.(?:sh|py)"
)
_ASSIGNED = r"(?:[A-Za-z_]\w*=\S*\s+)*"
_COMMAND = re.compile(rf"{_ASSIGNED}(?:{_PROGRAM})(?:\s|$)|[A-Za-z_]\w*=\S*$")


class Command(NamedTuple):
    """A command as it is written, and where."""

    place: str  # file and line
    text: str  # continuation lines joined


def commands(document: str, text: str) -> list[Command]:
    """The commands of a document's pasteable blocks.

    >>> [tuple(found) for found in commands("a.md", "```\\nmdp eval \\\\\\n  -v\\n```\\n```bash\\nmdp x\\n```\\n")]
    [('a.md:2', 'mdp eval -v')]
    """
    found = []
    for language, first, block in fences(text):
        if language in ("", "sh", "shell") and any(_COMMAND.match(line) for line in block):
            found += [Command(f"{document}:{first + number}", line) for number, line in _joined(block)]
    return found


def fences(text: str) -> Iterator[tuple[str, int, list[str]]]:
    """Language, number of the first line and lines of each fenced block, without what they are indented by."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if opened := re.match(r"(\s*)(`{3,}|~{3,})\s*(\S*)", line):
            indent, fence, language = opened.groups()
            block = []
            for _, inner in lines:
                if inner.strip().startswith(fence):
                    break
                block.append(inner.removeprefix(indent))
            yield language, number + 1, block


def _joined(block: list[str]) -> Iterator[tuple[int, str]]:
    """The block's commands with the numbers of their first lines; comments and empty lines left out."""
    begun, number = "", 0
    for place, line in enumerate(block):
        number = number if begun else place
        if line.endswith("\\"):
            begun += line[:-1].rstrip() + " "
            continue
        whole, begun = (begun + line.strip()).strip(), ""
        if whole and not whole.startswith("#"):
            yield number, whole


def all_commands() -> dict[str, list[Command]]:
    """The commands of every document that has some."""
    found = {document: commands(document, (ROOT / document).read_text(encoding="utf-8")) for document in DOCUMENTS}
    return {document: listed for document, listed in found.items() if listed}


def inline_commands(text: str) -> list[str]:
    """The commands of mdp in a document's sentences and tables."""
    plain = re.sub(r"^(\s*)(```|~~~).*?^\s*\2", "", text, flags=re.M | re.S)
    return [" ".join(found.split()) for found in re.findall(r"`(mdp [^`]+)`", plain)]


# Examples in --help


def walk(command: click.Command, name: str = "mdp") -> Iterator[tuple[str, click.Command]]:
    """Every command below this one, itself included, by its full name."""
    yield name, command
    if isinstance(command, click.Group):
        for inner, found in command.commands.items():
            yield from walk(found, f"{name} {inner}")


def help_examples(name: str, command: click.Command) -> list[Command]:
    """The examples of a command's help; what stands far to the right says what they do."""
    lines = [line.strip() for line in (command.help or "").splitlines()]
    return [Command(f"{name} --help", re.split(r"\s{3,}", line)[0]) for line in lines if line.startswith("mdp ")]


def reason_not_to_run(command: Command) -> str | None:
    return next((why for start, why in NOT_RUN.items() if command.text.startswith(start)), None)

"""`python -m benchmarks`: runs the spots and prints the table."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks import gpu_report, report, spots
from benchmarks.children import measured
from benchmarks.figures import Figures
from benchmarks.gpu import Sizes, device_of
from benchmarks.gpu import sizes as gpu_sizes
from mdp.io.errors import MdpError


def _chosen(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    known = gpu_report.PARTS if context.params.get("gpu") else spots.SPOTS
    names = tuple(name.strip() for name in value.split(",")) if value is not None else known
    for name in names:
        if name not in known:
            raise click.BadParameter(f"expected some of {', '.join(known)}, got {name!r}")
    return names


@click.command()
@click.option("--only", metavar="NAME[,NAME]", callback=_chosen, help="These spots, or parts with --gpu, only.")
@click.option("--list", "listed", is_flag=True, help="Print the spots and their cases, and measure nothing.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each entry is timed.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="One: CPU time; more: wall time.")
@click.option("--quick", is_flag=True, help="The smallest case of each spot, 2 rounds: whether it works.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the table here.")
@click.option("--gpu", is_flag=True, is_eager=True, help="Measure hot spots and whole steps on a CUDA device instead.")
@click.option("--device", default="auto", show_default=True, help="With --gpu: auto, cuda:N, or cpu to try it out.")
@click.option("--peak-tflops", type=click.FloatRange(0, min_open=True), help="With --gpu: the peak to compare with.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="With --gpu: loader processes.")
def main(
    only: tuple[str, ...], listed: bool, rounds: int, threads: int, quick: bool, json_file: Path | None,
    markdown: Path | None, gpu: bool, device: str, peak_tflops: float | None, workers: int,
) -> None:  # fmt: skip
    """Measure the hot spots of mdp beside what else computes the same.

    Exit code 1 when an entry fails or gives wrong numbers; a missed gate is a line of the table.

    \b
    python -m benchmarks --quick
    python -m benchmarks --only prototype_loss --rounds 9 --json figures.json
    python -m benchmarks --gpu --workers 8
    python -m benchmarks --gpu --only steps,runs --json figures.json
    """
    if gpu:
        sys.exit(_on_gpu(device, gpu_sizes(quick, rounds), peak_tflops, workers, only, json_file))
    if listed:
        for name in only:
            click.echo(f"{name}: {spots.summary(name)}")
            click.echo("".join(f"  {label}\n" for label in spots.cases(name)), nl=False)
        return
    click.echo(f"{report.machine(threads)}\n{report.peers_line()}\n\n{report.heading()}")
    found: list[Figures] = []
    for name in only:
        for label in list(spots.cases(name))[: 1 if quick else None]:
            found.append(measured(name, label, 2 if quick else rounds, threads))
            click.echo(report.text(found[-1]))
    click.echo(f"\n{report.summary(found)}")
    if json_file:
        whole = {"machine": report.machine(threads), "cases": [report.as_json(figures) for figures in found]}
        json_file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    if markdown:
        markdown.write_text(report.markdown(found), encoding="utf-8")
    sys.exit(1 if any(figures.failure for figures in found) else 0)


def _on_gpu(
    name: str, chosen: Sizes, peak: float | None, workers: int, only: tuple[str, ...], json_file: Path | None
) -> int:
    """Prints the lines of the GPU benchmark as they come, and writes what was measured; the exit code."""
    figures: dict[str, Any] = {}
    try:
        for line in gpu_report.lines(device_of(name), chosen, peak, workers, only, figures):
            click.echo(line)
    except MdpError as error:
        click.echo(str(error), err=True)
        return error.exit_code
    finally:
        if json_file and figures:
            json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    main()

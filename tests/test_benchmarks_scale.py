"""What is counted, fitted and reported for GPUs and for scale: by hand and against torch's own counter."""

import math
import time
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import counted, gpu, gpu_report, scale
from benchmarks.counted import Machine, count, ring_bytes, step_seconds
from benchmarks.figures import Figures, Measured, judged
from benchmarks.gpu import Row, peaks_of, summed_up
from benchmarks.gpu_run import run_figures
from benchmarks.loader import batches_of, loader_rate, rate_of
from benchmarks.measure import Gate
from benchmarks.naive_step import naive
from benchmarks.recipes import RESNET18, in_layout, network_alone, new_pair, pretraining, supervised
from benchmarks.report import sentence
from benchmarks.scale import Point, chart, exponent, table
from mdp.core.networks import NetworkSettings
from mdp.io.data.loader import AHEAD
from mdp.io.errors import ResourceError
from tests.conftest import ROOT
from tests.preloaded import run


def test_the_page_on_scale_says_what_the_code_counts() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for part in counted.tables():
        assert part in page, f"docs/scale.md is not what `python -m benchmarks.counted` prints:\n{part}"


def test_counted_flops_of_a_step_are_those_that_a_step_takes() -> None:
    recipe = RESNET18
    counts = count(recipe.network, recipe.images, recipe.crop, recipe.classes, recipe.embedding)
    run = pretraining(recipe)
    with FlopCounterMode(display=False) as counter:
        run()
    assert counts.step_flops == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_counted_bytes_are_those_of_the_tensors() -> None:
    counts = count(RESNET18.network, 4, 64, 60, 64)
    network = new_pair(RESNET18).query
    parameters = sum(p.numel() for p in network.parameters())
    statistics = sum(b.numel() for b in network.buffers() if b.is_floating_point())
    assert counts.parameters == parameters
    assert counts.gradient_bytes == 4 * (parameters + 2 * statistics)  # of both encoders
    assert counts.class_sum_bytes == counts.bank_bytes - 4 == 60 * 64 * 4 + 60 * 8
    assert counts.partner_bytes == 2 * 4 * (3 * 64 * 64 * 4 + 64 * 64 * 8)
    assert counts.input_bytes == 2 * 4 * (3 * 64 * 64 + 64 * 64 * 2)
    assert counts.pixels == 2 * 4 * 8 * 8


def test_partners_cost_the_same_on_any_number_of_devices_and_a_gathered_batch_grows() -> None:
    counts, machine = count(RESNET18.network, 4, 64, 60, 64), Machine(inside=1e9, between=1e9)
    few, many = (step_seconds(counts, machine, processes) for processes in (2, 64))
    assert few["partners"] == many["partners"] == counts.partner_bytes / 1e9
    assert many[counted.INSTEAD] == pytest.approx(63 * few[counted.INSTEAD])
    assert sum(step_seconds(counts, machine, 1).values()) == few["compute"]  # alone, nothing is sent


def test_a_ring_sends_nearly_twice_the_bytes_from_each_process() -> None:
    assert ring_bytes(800, 1) == 0
    assert ring_bytes(800, 8) == 1400


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 2.0])
def test_an_exponent_is_the_slope_of_a_power_law(slope: float) -> None:
    sizes = [10.0, 30.0, 50.0, 200.0]
    assert exponent(sizes, [7 * size**slope for size in sizes]) == pytest.approx(slope)


def test_an_exponent_of_one_size_is_refused() -> None:
    with pytest.raises(ValueError, match="two sizes or more"):
        exponent([3, 3], [1, 2])


def test_the_table_fits_the_larger_sizes_only() -> None:
    points = [Point(n, 5.0 if n <= 2 else 5.0 * n / 4, 2**20 * n) for n in (1, 2, 4, 8, 16)]  # flat, then linear
    (row,) = table([("made", points)]).splitlines()[2:]
    assert row == "| made | 1 .. 16 | 2e+04 ms | 1.00 | 16.0 MiB | 1.00 |"


def test_a_chart_shows_every_growth_in_time_and_those_above_a_mebibyte_in_memory() -> None:
    large = [Point(n, float(n), 2**21 * n) for n in (1, 2, 4)]
    small = [Point(n, float(n), 5) for n in (1, 2, 4)]
    svg = chart([("large", large), ("small", small)])
    assert svg.count("</title></path>") == 3


@pytest.mark.parametrize("name", [growth.name for growth in scale.growths()])
def test_everything_that_grows_can_be_made(name: str) -> None:
    growth = next(one for one in scale.growths() if one.name == name)
    growth.make(growth.sizes[0])()


# Steps


def test_the_naive_step_has_the_loss_of_ours() -> None:
    ours, theirs = pretraining(RESNET18), naive(RESNET18)
    for _ in range(2):  # the second has a bank, weights and keys of the first
        torch.testing.assert_close(ours(), theirs(), rtol=2e-4, atol=0)


@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
def test_every_step_to_compare_with_runs_in_both_layouts(layout: str) -> None:
    recipe = in_layout(RESNET18, layout)
    for make in (supervised, network_alone):
        assert make(recipe)().isfinite()
    assert pretraining(recipe, key_forward=False)().isfinite()


def test_a_gate_can_judge_another_entry_in_place_of_ours() -> None:
    entries = (Measured("a", "ours", (4.0,)), Measured("b", "ours", (1.0,)), Measured("c", "plain", (2.0,)))
    figures = Figures("spot", "size", entries, (Gate("c", at_most=1.0), Gate("c", at_most=1.0, of="b")))
    assert [(verdict.ratio, verdict.met) for verdict in judged(figures)] == [(2.0, False), (0.5, True)]
    assert sentence(judged(figures)[1]).startswith("time b / c <= 1: 0.50")


# The GPU mode


def test_the_gpu_mode_without_a_device_ends_with_one_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    done = run(["-m", "benchmarks", "--gpu"], ROOT)
    assert done.code == ResourceError.exit_code == 6
    assert (done.out, done.err.count("\n")) == ("", 1)
    assert "no CUDA device" in done.err


def test_the_gpu_mode_runs_on_a_cpu_and_says_that_this_is_none() -> None:
    figures: dict[str, Any] = {}
    parts, chosen = ("waits", "spots", "steps"), gpu.sizes(quick=True, rounds=1)
    lines = list(gpu_report.lines(torch.device("cpu"), chosen, 1e-3, 0, parts, figures))
    assert set(figures) == {"device", *parts}
    assert "nothing about a GPU" in lines[0]
    assert sum(line.startswith("prototype loss") for line in lines) == 3
    assert sum("% of the peak" in line for line in lines) == len(gpu.variants(torch.device("cpu"), compiled=False))
    assert not any("VOC" in line for line in lines)  # hours are of the paper's network


@pytest.mark.usefixtures("bare_runs")
def test_a_whole_run_is_measured_by_where_its_photos_are_kept() -> None:
    found = run_figures("memory", gpu.sizes(quick=True, rounds=1), torch.device("cpu"), workers=0, steps=2)
    assert found.images_per_second > 0
    assert found.sentence.startswith("run, cache memory: ")


def test_figures_of_a_step_follow_from_its_time() -> None:
    counts = count(NetworkSettings())
    row, network = Row("step", (0.3, 0.5, 0.4), None), Row("network", (0.3,), None)
    found = summed_up(row, network, counts, peak=312.0)
    assert found.images_per_second == 64 / 0.4
    assert found.beyond_network == pytest.approx(0.25)
    assert found.hours == pytest.approx(200 * 481 * 0.4 / 3600)
    assert found.utilisation == pytest.approx(counts.step_flops / 0.4 / 312e12)
    assert summed_up(row, network, counts, peak=None).utilisation is None


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("Tesla T4", 0.0),
    ],
)
def test_the_peak_of_a_device_is_found_by_its_name(name: str, bf16: float) -> None:
    found = peaks_of(name)
    assert found is not None
    assert found[0] == bf16


def test_the_peak_is_that_of_the_arithmetic() -> None:
    by_name = {v.name: gpu_report._peak((3.0, 2.0, 1.0), v) for v in gpu.variants(torch.device("cuda"), compiled=True)}
    assert by_name["bf16"] == by_name["bf16, compiled"] == 3.0
    assert (by_name["fp32, TF32"], by_name["fp32"]) == (2.0, 1.0)
    assert gpu_report._peak((0.0, 0.0, 8.1), gpu.variants(torch.device("cuda"), compiled=False)[0]) is None


def test_tf32_is_put_back() -> None:
    before = torch.backends.cudnn.allow_tf32
    with gpu.tf32(not before):
        assert torch.backends.cudnn.allow_tf32 is not before
    assert torch.backends.cudnn.allow_tf32 is before


def test_the_loader_is_measured_on_made_files() -> None:
    assert math.isfinite(loader_rate(crop=32, workers=0, rounds=2, files=16))


class Slow:
    """Items of which a process makes fifty a second at the most."""

    def __getitem__(self, key: tuple[int, int]) -> int:
        time.sleep(0.02)
        return key[1]


def test_the_loaders_rate_is_no_more_than_its_workers_can_do() -> None:
    rounds, fastest = 12, 2 * 50
    rate = rate_of(Slow(), iter([[(0, 0)] * 2] * sum(batches_of(2, rounds))), 2, rounds)
    ahead = AHEAD + 1  # of these rounds some may be done before the clock starts, if this process is held up just then
    assert rate < 1.05 * fastest * rounds / (rounds - ahead)

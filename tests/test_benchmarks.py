"""The benchmark command: its arithmetic on made-up figures, its measurements of known work, and that it runs."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import benchmarks.__main__
from benchmarks import peers, report, spots
from benchmarks.children import measured
from benchmarks.figures import Figures, Measured, judged, memory_ratio, time_of, time_ratio
from benchmarks.measure import Case, Entry, Gate, error_of, peak_memory, time_in_turn

MIB = 2**20
OURS = Measured("mdp", "ours", (1.0, 2.0, 4.0), memory=2 * MIB)
QUICK_PEER = Measured("quick", "peer", (2.0, 2.0, 12.0), memory=6 * MIB)
SLOW_PEER = Measured("slow", "peer", (5.0, 10.0, 20.0), memory=4 * MIB)
FLOOR = Measured("floor", "floor", (0.5, 1.0, 2.0), memory=0)
GONE = Measured("gone", "peer", missing="gone is not installed")


def verdict(gate: Gate, *others: Measured) -> tuple[float | None, bool | None]:
    (found,) = judged(Figures("spot", "size", (OURS, *others), (gate,)))
    return found.ratio, found.met


def test_the_time_of_an_entry_is_its_median_round() -> None:
    assert time_of(OURS) == 2.0
    assert time_of(GONE) is None


def test_a_time_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_the_medians() -> None:
    assert time_ratio(QUICK_PEER, OURS) == 2.0  # of 2, 1 and 3; the medians would say 1


def test_a_memory_ratio_is_a_multiple_of_ours_and_never_of_nothing() -> None:
    assert memory_ratio(QUICK_PEER, OURS) == 3.0
    assert memory_ratio(OURS, FLOOR) == 16.0  # what is below an eighth of a MiB counts as that
    assert memory_ratio(GONE, OURS) is None


@pytest.mark.parametrize(("at_least", "met"), [(1.9, True), (2.0, True), (2.1, False)])
def test_a_gate_on_the_best_peer_takes_the_quickest_of_those_that_are_there(at_least: float, met: bool) -> None:
    assert verdict(Gate("best peer", at_least), SLOW_PEER, GONE, QUICK_PEER, FLOOR) == (2.0, met)


@pytest.mark.parametrize(("at_most", "met"), [(2.1, True), (2.0, True), (1.9, False)])
def test_a_gate_from_above_is_on_ours_against_theirs(at_most: float, met: bool) -> None:
    assert verdict(Gate("floor", at_most=at_most), QUICK_PEER, FLOOR) == (2.0, met)


def test_a_memory_gate_compares_memory() -> None:
    assert verdict(Gate("quick", 2.5, what="memory"), SLOW_PEER, QUICK_PEER) == (3.0, True)


def test_a_gate_by_name_takes_that_entry() -> None:
    assert verdict(Gate("slow", 4.9), QUICK_PEER, SLOW_PEER) == (5.0, True)


def test_a_gate_is_neither_met_nor_missed_where_the_peer_is_not_installed() -> None:
    assert verdict(Gate("best peer", 1.0), GONE) == (None, None)


def test_a_gate_against_no_entry_at_all_is_a_mistake_and_is_named() -> None:
    with pytest.raises(ValueError, match="'misspelt' finds no such entry"):
        verdict(Gate("misspelt", 1.0), QUICK_PEER)


@pytest.mark.parametrize("bounds", [{}, {"at_least": 1.0, "at_most": 2.0}])
def test_a_gate_has_one_bound(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one of them"):
        Gate("plain", **bounds)  # type: ignore[arg-type]


def test_rounds_go_forth_and_back_and_each_entry_is_timed_in_each() -> None:
    calls, now = [], [0.0]

    def run(name: str, takes: float) -> Callable[[], object]:
        def call() -> None:
            calls.append(name)
            now[0] += takes

        return call

    seconds = time_in_turn([run("a", 1), run("b", 2), run("c", 3)], 3, lambda: now[0])
    assert seconds == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
    assert "".join(calls) == "aabbcc" + "abc" + "cba" + "abc"  # after two calls of each to warm up


def test_short_calls_are_timed_several_together_and_the_time_is_that_of_one() -> None:
    now, calls = [0.0], [0]

    def run() -> None:
        calls[0] += 1
        now[0] += 0.005

    assert time_in_turn([run], 1, lambda: now[0])[0] == pytest.approx([0.005])
    assert calls[0] == 2 + 4


def test_the_memory_of_a_known_allocation_is_found_and_what_was_there_before_is_not_counted() -> None:
    held = torch.ones(8 * MIB)  # 32 MiB
    found = peak_memory(lambda: torch.ones(4 * MIB).add_(held[0]))
    if found is None:
        pytest.skip("the peak can be reset on Linux only")
    assert 15 * MIB < found < 20 * MIB


def test_the_memory_of_a_temporary_counts_like_that_of_a_result() -> None:
    found = peak_memory(lambda: float(torch.ones(16 * MIB).sum()))  # so much goes back at once
    if found is None:
        pytest.skip("the peak can be reset on Linux only")
    assert 60 * MIB < found < 70 * MIB


def test_an_error_is_a_share_of_the_largest_number() -> None:
    right = (torch.tensor(2.0), torch.tensor([1.0, -4.0]))
    assert error_of((torch.tensor(2.0), torch.tensor([1.5, -4.0])), right) == 0.125
    assert error_of([right[0], [right[1]]], right) == 0


def test_wrong_integers_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 integers differ"):
        error_of(torch.tensor([1, 2]), (torch.tensor([1, 3]),))
    with pytest.raises(ValueError, match="shapes"):
        error_of(torch.ones(2), (torch.ones(3),))


def test_a_peer_that_is_not_installed_is_named_in_every_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.DISTRIBUTIONS, "no_such_module", "no-such-library")
    entry = peers.peer("its loss", "no_such_module.losses", lambda module: module.run)
    assert entry.run is None
    gone = Measured(entry.name, entry.kind, missing=entry.missing)
    figures = Figures("spot", "size", (OURS, gone))
    assert "its loss: no-such-library is not installed" in report.text(figures)
    assert "its loss: no-such-library is not installed" in report.markdown([figures])
    assert "no-such-library (not installed)" in report.peers_line()


def test_a_peer_that_is_installed_stands_with_its_version() -> None:
    peers.DISTRIBUTIONS["yaml"] = "pyyaml"
    try:
        entry = peers.peer("its parser", "yaml", lambda module: module.safe_load)
    finally:
        del peers.DISTRIBUTIONS["yaml"]
    assert entry.name.startswith("its parser (pyyaml ")
    assert entry.run is not None


def test_the_text_gives_medians_ratios_memory_and_verdicts() -> None:
    figures = Figures("spot", "size", (OURS, QUICK_PEER, FLOOR), (Gate("best peer", 3.0), Gate("floor", at_most=2.0)))
    lines = report.text(figures).splitlines()
    assert lines[0] == "spot: size"
    assert lines[1].split() == ["mdp", "mdp", "2000", "ms", "1.00", "2.0", "MiB", "1.00"]
    assert lines[2].split() == ["peer", "quick", "2000", "ms", "2.00", "6.0", "MiB", "3.00"]
    assert lines[4] == "  gate   time best peer / ours >= 3: 2.00, MISSED"
    assert lines[5] == "  gate   time ours / floor <= 2: 2.00, met"
    assert "1 met, 1 missed, 0 with nothing" in report.summary([figures])
    assert "quick 2.00 (3.00)" in report.markdown([figures])


def test_a_failed_case_says_so_and_has_no_verdict() -> None:
    failed = Figures("spot", "size", (OURS,), (Gate("best peer", 3.0),), failure="ended with exit code -9")
    assert "FAILED ended with exit code -9" in report.text(failed)
    assert "FAILED" in report.summary([failed])
    assert report.as_json(failed)["gates"] == []


@pytest.mark.parametrize("spot", spots.SPOTS)
def test_every_spot_says_what_it_is_and_has_cases(spot: str) -> None:
    assert spots.summary(spot)
    assert spots.cases(spot)


def test_a_case_that_gives_wrong_numbers_fails_with_the_entrys_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.children import _errors  # noqa: PLC0415 - what a child does first

    entries = (Entry("right", "ours", lambda: torch.ones(2)), Entry("wrong", "plain", lambda: torch.tensor([1, 1.1])))
    case = Case("spot", "size", entries, expected=lambda: (torch.ones(2),))
    with pytest.raises(ValueError, match=r"wrong is wrong: its largest error is 1\.0e-01"):
        _errors(case)
    inexact = replace(case, entries=(entries[0], replace(entries[1], exact=False)))
    assert _errors(inexact) == {entries[0]: 0.0}


def test_a_case_that_does_not_exist_fails_alone() -> None:
    found = measured("prototype_loss", "no such label", rounds=1, threads=1)
    assert "KeyError" in found.failure


CHEAP = ("class_pooling", "confusion")  # the others have a network, or products of large matrices: run them by hand


def test_a_quick_run_compares_the_numbers_ends_well_and_writes_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    files = ("--json", str(tmp_path / "figures.json"), "--markdown", str(tmp_path / "table.md"))
    done = CliRunner().invoke(benchmarks.__main__.main, ["--quick", "--only", ",".join(CHEAP), *files])
    assert done.exit_code == 0, done.output
    assert "no GPU was used" in done.stdout
    cases = json.loads((tmp_path / "figures.json").read_text())["cases"]
    assert len(cases) == len(CHEAP)
    for case in cases:
        assert case["entries"][0]["time_ratio"] == 1
        assert case["entries"][0]["error"] is not None
        assert all(entry["seconds"] or entry["missing"] for entry in case["entries"])
        assert len(case["entries"][0]["seconds"]) == 2
        assert case["entries"][0]["memory"] is not None or sys.platform != "linux"
        assert case["spot"] in (tmp_path / "table.md").read_text()


def test_a_run_in_which_a_case_fails_ends_with_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks.__main__, "measured", lambda spot, label, *_: Figures(spot, label, failure="broken"))
    done = CliRunner().invoke(benchmarks.__main__.main, ["--quick", "--only", "mixing"])
    assert done.exit_code == 1
    assert "FAILED" in done.output


def test_every_case_is_run_and_with_quick_the_first_of_each_spot_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, int, int]] = []

    def measured(spot: str, label: str, rounds: int, threads: int) -> Figures:
        asked.append((spot, label, rounds, threads))
        return Figures(spot, label, (OURS,))

    monkeypatch.setattr(benchmarks.__main__, "measured", measured)
    assert CliRunner().invoke(benchmarks.__main__.main, ["--rounds", "7", "--threads", "2"]).exit_code == 0
    assert asked == [(spot, label, 7, 2) for spot in spots.SPOTS for label in spots.cases(spot)]
    asked.clear()
    assert CliRunner().invoke(benchmarks.__main__.main, ["--quick"]).exit_code == 0
    assert asked == [(spot, next(iter(spots.cases(spot))), 2, 1) for spot in spots.SPOTS]


def test_an_unknown_spot_is_refused_with_the_names_of_those_there_are() -> None:
    done = CliRunner().invoke(benchmarks.__main__.main, ["--only", "prototype_los"])
    assert done.exit_code == 2
    assert "prototype_loss, pixel_loss" in " ".join(done.output.split())


def test_the_list_names_all_spots_and_measures_nothing() -> None:
    done = CliRunner().invoke(benchmarks.__main__.main, ["--list"])
    assert done.exit_code == 0
    assert all(f"{name}: " in done.output for name in spots.SPOTS)
    assert " ms" not in done.output

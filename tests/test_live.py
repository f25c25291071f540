"""The view of a run on a terminal: lines that fit whatever is in them, and a screen that stays clean."""

import io
import json
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdp.io.journal.counter import Counter
from mdp.io.journal.journal import Journal
from mdp.io.journal.progress import Course, Facts, Pace, extended, paced, shares, trained
from mdp.io.journal.progress_text import bar, cut, cut_front, marks_for, sentence, sparkline, view, width_of
from mdp.io.journal.terminal import LINES, PlainScreen, Screen, screen_on
from tests.conftest import ROOT
from tests.patience import LONG

UTF8, ASCII = marks_for("utf-8"), marks_for("ascii")
SCORES = {
    "kind": "validate", "step": 400, "miou": {"voc": 0.345, "道路": None}, "prototype_cosine": 0.127,
    "prototype_rank": 14.24, "classes_unseen": ["voc/train", "voc/cat"],
}  # fmt: skip
PACE = Pace(steps=2.0, loss=4.5, seconds=0.02, data=0.005, communication=0.012)
FACTS = Facts(
    folder="runs/pretrain/2026-11-21_1950_voc+ade20k", steps=1000, step=412, epoch=2, elapsed=72.0, left=103.0,
    lr=0.046, pace=PACE, losses=Course((4.0, 3.0, 2.0, 1.0)), validated=SCORES,
)  # fmt: skip
TEXTS = st.text(st.sampled_from("ab/é道路e\u0301👍\u200d\x1b\n\udcff─…"), max_size=150)


# What is known


def test_shares_are_of_the_time_of_the_latest_steps_and_add_up_to_one() -> None:
    """Worked out by hand: 0.1 s an image of which half is waiting, then 1/30 s without any."""
    pace = paced(paced(Pace(), {"loss": 2.0, "images_per_second": 10.0, "data_wait": 0.5}, 0.0),
                 {"loss": 4.0, "images_per_second": 30.0, "data_wait": 0.0}, 0.0)  # fmt: skip
    assert shares(pace) == pytest.approx({"compute": 1 - 0.375, "data": 0.375})
    assert list(shares(pace)) == ["compute", "data"]
    assert pace.loss / pace.steps == 3.0
    assert pace.steps / pace.seconds == pytest.approx(15.0)
    later = paced(pace, {"loss": 8.0, "images_per_second": 1.0, "data_wait": 0.9, "communication": 0.05}, 1000.0)
    assert list(shares(later)) == ["data", "communication", "compute"]
    assert shares(later) == pytest.approx({"data": 0.9, "communication": 0.05, "compute": 0.05})
    assert later.loss / later.steps == pytest.approx(8.0)  # what was 1000 seconds ago is forgotten


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 2, st.floats(0.01, 1e4), st.floats(0, 100)), min_size=1, max_size=20))
def test_shares_lie_between_nothing_and_all(steps: list[tuple[float, float, float, float]]) -> None:
    pace = Pace()
    for wait, rest, speed, seconds in steps:
        record = {"images_per_second": speed, "data_wait": wait, "communication": rest * (1 - wait)}
        pace = paced(pace, record, seconds)
    found = shares(pace)
    assert set(found) == {"data", "compute", "communication"}
    assert math.fsum(found.values()) == pytest.approx(1)
    assert all(-1e-9 <= share <= 1 + 1e-9 for share in found.values())
    assert list(found.values()) == sorted(found.values(), reverse=True)


@given(st.integers(1, 1000), st.floats(-100, 100))
def test_the_course_of_the_loss_keeps_its_sum_and_stays_short(count: int, size: float) -> None:
    course, values = Course(), [size * math.sin(place) for place in range(count)]
    for value in values:
        course = extended(course, value)
    kept = course.every * math.fsum(course.means) + course.total
    assert kept == pytest.approx(math.fsum(values), abs=1e-6)
    assert len(course.means) * course.every + course.values == len(values)
    assert len(course.means) < 128


def test_a_record_without_a_loss_moves_the_run_on() -> None:
    facts = trained(FACTS, {"step": 413, "lr": 0.04, "images_per_second": 100.0, "data_wait": 0.0}, 0.1)
    assert (facts.step, facts.losses, facts.epoch) == (413, FACTS.losses, None)
    assert facts.pace.loss / facts.pace.steps == pytest.approx(2.25)


# Lines


def test_the_block_says_where_the_run_is_what_is_slowest_and_what_was_scored_last() -> None:
    assert [line.text for line in view(FACTS, 110, 24, UTF8)] == [
        "runs/pretrain/2026-11-21_1950_voc+ade20k",
        "███████████████████▊····························  41%  step 412/1,000  epoch 3  1m12s gone, 1m43s left",
        "loss   2.2500 █▆▃▁   lr 0.046   100.0 img/s",
        "time   slowest: communication 60% (data 25%, compute 15%)",
        "scores step 400: mIoU voc 34.5, 道路 -",
        "       prototypes: mean cosine 0.13, effective rank 14.2, 2 classes not seen",
    ]
    plain = [line.text for line in view(FACTS, 110, 24, ASCII)]
    assert plain[1].startswith("###################-----")
    assert plain[2].startswith("loss   2.2500 #=-_ ")
    assert plain[4] == r"scores step 400: mIoU voc 34.5, \u9053\u8def -"


def test_fine_tuning_has_no_epoch_and_one_score() -> None:
    facts = FACTS._replace(epoch=None, validated={"step": 4, "miou": 0.5, "aacc": 0.875})
    lines = [line.text for line in view(facts, 100, 24, UTF8)]
    assert "epoch" not in lines[1]
    assert lines[4:] == ["scores step 4: mIoU 50.0, aAcc 87.5"]


def test_a_run_without_a_step_or_a_validation_has_its_lines_too() -> None:
    lines = [line.text for line in view(Facts("run", 9), 80, 24, UTF8)]
    assert len(lines) == 4
    assert "0%  step 0/9  0m00s gone, ? left" in lines[1]
    assert lines[2] == "loss   ?    lr nan   ? img/s"


@pytest.mark.parametrize(("columns", "rows"), [(59, 24), (100, 9), (20, 5)])
def test_a_small_terminal_gets_one_line(columns: int, rows: int) -> None:
    (line,) = view(FACTS, columns, rows, UTF8)
    assert line.text == cut(sentence(FACTS), columns - 1, UTF8)
    assert "slowest: communication 60% (data 25%, compute 15%)  1m43s left" in sentence(FACTS)


@given(TEXTS, TEXTS, st.integers(1, 200), st.integers(1, 40), st.sampled_from(["utf-8", "ascii", "latin-1"]))
def test_no_line_is_wider_than_the_terminal_whatever_is_in_it(
    folder: str, dataset: str, columns: int, rows: int, encoding: str
) -> None:
    marks = marks_for(encoding)
    facts = FACTS._replace(folder=folder, validated={**SCORES, "miou": {dataset: 0.5}})
    lines = view(facts, columns, rows, marks)
    assert len(lines) < LINES
    for line in lines:
        assert width_of(line.text) <= max(columns - 1, 0)
        assert line.text.encode(marks.encoding).decode(marks.encoding).isprintable() or "\u200d" in line.text


@given(st.text(st.characters(categories=["Lu", "Ll", "Lo", "Nd", "Mn"], max_codepoint=0xFFFF), max_size=20))
def test_widths_are_those_of_another_library(text: str) -> None:
    wcwidth = pytest.importorskip("wcwidth", reason="wcwidth, which comes with pyte, is not installed")
    for character in text:
        theirs = wcwidth.wcwidth(character)  # 0 for parts of Korean syllables, which are counted as 1 or 2 here
        assert width_of(character) == theirs or (theirs == 0 and character.isalpha()), hex(ord(character))


@given(st.floats(-1, 2), st.integers(4, 80), st.sampled_from([UTF8, ASCII]))
def test_a_bar_has_its_width_and_is_as_full_as_its_share(share: float, width: int, marks: Any) -> None:
    drawn = bar(share, width, marks)
    assert len(drawn) == width
    full = drawn.count(marks.bar[-1])
    assert full <= min(max(share, 0), 1) * width + 1e-6 < full + 1 + 1e-5


@given(st.lists(st.floats(-1e6, 1e6), max_size=100), st.integers(-3, 50))
def test_a_sparkline_shows_least_and_greatest_and_keeps_to_its_room(values: list[float], width: int) -> None:
    drawn = sparkline(values, width, UTF8)
    assert len(drawn) == max(0, min(width, len(values)))
    if len(drawn) == len(values) and len(set(values)) > 1:
        assert drawn[values.index(min(values))] == "▁"
        assert drawn[values.index(max(values))] == "█"


def test_of_a_long_path_the_end_is_kept() -> None:
    assert cut_front("runs/pretrain/道路", 8, UTF8) == "…in/道路"
    assert cut("runs/pretrain/道路", 8, ASCII) == "runs/..."
    assert cut("道路道路", 6, UTF8) == "道路…"
    assert cut("道路道路", 8, UTF8) == "道路道路"


# The screen


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Sets the size of the terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def resize(columns: int, rows: int) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(rows))

    resize(80, 24)
    return resize


def seen(text: str | bytes, columns: int = 80, rows: int = 24) -> Any:
    """What a terminal shows."""
    pyte = pytest.importorskip("pyte", reason="pyte, which plays a terminal, is not installed")
    screen = pyte.Screen(columns, rows)
    if isinstance(text, str):
        screen.set_mode(pyte.modes.LNM)  # as the driver of a real one does
        pyte.Stream(screen).feed(text)
    else:
        pyte.ByteStream(screen).feed(text)
    return screen


def shown(screen: Any) -> list[str]:
    return "\n".join(line.rstrip() for line in screen.display).rstrip().splitlines()


def steps(journal: Journal, *numbers: int) -> None:
    for step in numbers:
        journal.record("train", step, loss=10.0 - step, lr=0.5, images_per_second=10.0, data_wait=0.25)
        journal.drawn = -math.inf
        journal.progress(step)


@pytest.fixture
def opened(sized: object, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Puts a terminal in the place of stderr; called in the test, for pytest sets stderr after the fixtures."""

    def open_one() -> Terminal:
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return open_one


def test_the_block_is_redrawn_in_place_and_messages_scroll_above_it(
    opened: Callable[[], Terminal], tmp_path: Path
) -> None:
    terminal = opened()
    journal = Journal(tmp_path, 9, 1.0)
    journal.say("hello")
    steps(journal, 1, 2)
    journal.say("a message")
    steps(journal, 3)
    journal.record("validate", 3, miou=0.5, aacc=0.75)
    steps(journal, 4)
    screen = seen(terminal.getvalue())
    lines = shown(screen)
    assert lines[:2] == ["hello", "a message"]
    assert lines[2].endswith(tmp_path.name)
    assert "step 4/9" in lines[3]
    assert lines[4].startswith("loss   7.")
    assert "lr 0.5   10.0 img/s" in lines[4]
    assert lines[5:] == ["time   slowest: compute 75% (data 25%)", "scores step 3: mIoU 50.0, aAcc 75.0"]
    assert (screen.cursor.y, screen.cursor.x) == (7, 0)
    assert not screen.cursor.hidden


def test_the_last_scores_are_in_the_block_that_is_left_and_what_follows_stands_below(
    opened: Callable[[], Terminal], tmp_path: Path
) -> None:
    terminal = opened()
    journal = Journal(tmp_path, 2, 1.0)
    steps(journal, 1, 2)
    journal.record("validate", 2, miou=0.5)
    journal.status("done")
    print("result", file=terminal)
    assert shown(seen(terminal.getvalue()))[-2:] == ["scores step 2: mIoU 50.0", "result"]
    assert terminal.getvalue().count("\x1b[?7l") == terminal.getvalue().count("\x1b[?7h") - 1


def test_a_long_run_of_redrawing_and_messages_leaves_one_block_at_the_bottom(
    opened: Callable[[], Terminal], tmp_path: Path
) -> None:
    terminal = opened()
    journal = Journal(tmp_path, 100, 1.0)
    for step in range(1, 41):
        steps(journal, step)
        journal.say(f"message {step} " + "x" * 100)  # wraps
    screen = seen(terminal.getvalue())
    lines = shown(screen)
    assert sum("step 40/100" in line for line in lines) == 1
    assert sum("slowest" in line for line in lines) == 1
    assert lines[-6].startswith("message 40 ")
    assert screen.cursor.y == 23


@pytest.mark.parametrize("size", [(50, 24), (80, 8)])
def test_a_terminal_that_shrinks_gets_one_line_and_the_block_again_when_it_grows(
    size: tuple[int, int], opened: Callable[[], Terminal], sized: Callable[[int, int], None], tmp_path: Path
) -> None:
    terminal = opened()
    journal = Journal(tmp_path, 9, 1.0)
    steps(journal, 1)
    sized(*size)
    steps(journal, 2)
    lines = shown(seen(terminal.getvalue(), *size))
    assert lines[-1].startswith("step 2/9  loss ")
    sized(80, 24)
    steps(journal, 3)
    lines = shown(seen(terminal.getvalue()))
    assert len(lines) == 4
    assert "step 3/9" in lines[1]


def test_lines_that_a_narrower_terminal_has_wrapped_are_drawn_over(
    sized: Callable[[int, int], None],
) -> None:
    screen = Screen(Terminal(), color=False)
    sized(100, 24)
    screen.draw(view(FACTS, 100, 24, UTF8))
    written = len(screen.stream.getvalue())  # type: ignore[attr-defined]
    sized(60, 24)
    screen.draw(view(FACTS, 60, 24, UTF8))
    widths = [width_of(line.text) for line in view(FACTS, 100, 24, UTF8)]
    rows = sum(1 if width <= 60 else 2 for width in widths)
    assert rows == 8
    assert screen.stream.getvalue()[written:].startswith(f"\r\x1b[{rows}A")  # type: ignore[attr-defined]


def test_a_terminal_that_does_not_know_its_size_is_taken_for_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours), os.fdopen(theirs, "w") as stream:
        assert os.get_terminal_size(theirs) == (0, 0)
        assert Screen(stream, color=False).size() == (80, 24)
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        monkeypatch.setenv("COLUMNS", "60")  # of another terminal, perhaps
        assert Screen(stream, color=False).size() == (100, 30)


def test_colour_is_left_out_when_it_is_not_wanted(sized: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", variable)
        stream = Terminal()
        screen = screen_on(stream)
        assert screen is not None
        screen.draw(view(FACTS, 80, 24, UTF8))
        assert ("\x1b[36m" in stream.getvalue()) == coloured
        assert shown(seen(stream.getvalue()))[3].startswith("time   slowest")


def test_a_dumb_terminal_gets_one_line_and_nothing_that_it_would_have_to_obey(
    opened: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    terminal = opened()
    monkeypatch.setenv("TERM", "dumb")
    journal = Journal(tmp_path, 9, 1.0)
    assert isinstance(journal.screen, PlainScreen)
    steps(journal, 1, 2)
    journal.say("a message")
    steps(journal, 3)
    journal.status("done")
    assert "\x1b" not in terminal.getvalue()
    lines = terminal.getvalue().split("\n")
    assert [line.rpartition("\r")[2].split("  ")[0] for line in lines] == ["step 2/9", "a message", "step 3/9", ""]
    assert all(width_of(line) < 80 for line in terminal.getvalue().replace("\r", "\n").split("\n"))


def test_no_terminal_and_quiet_runs_have_no_screen(
    sized: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(Journal(tmp_path, 9, 1e9), 9)
    told = capsys.readouterr().err
    assert told == "step 9/9  loss 1.0000  lr 0.5  10.0 img/s  slowest: compute 75% (data 25%)  ? left\n"
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert Journal(tmp_path, 9, 1.0, quiet=True).screen is None
    assert Journal(tmp_path, 9, 1.0, main=False).screen is None


@pytest.mark.parametrize("kind", ["terminal", "pipe", "quiet"])
def test_log_and_status_tell_the_step_whoever_watches(
    kind: str, opened: Callable[[], Terminal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "terminal":
        opened()
    monkeypatch.setattr("mdp.io.journal.journal._STATUS", 0.0)
    journal = Journal(tmp_path, 9, 0.0, quiet=kind == "quiet")
    for step in (1, 2):
        steps(journal, step)
        assert json.loads((tmp_path / "status.json").read_text())["step"] == step
        *_, line = (tmp_path / "log.txt").read_text().splitlines()
        assert re.fullmatch(rf"[-0-9]{{10}} [:0-9]{{8}} step {step}/9  loss .*", line)


def test_log_and_status_cost_nothing_between_their_times(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 9, 1e9, quiet=True)
    steps(journal, 8)
    assert not (tmp_path / "log.txt").exists()
    steps(journal, 9)
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 1


def test_a_run_that_goes_on_says_at_once_at_which_step(tmp_path: Path) -> None:
    Journal(tmp_path, 9, 1.0, quiet=True).begin(4, 4)
    assert json.loads((tmp_path / "status.json").read_text())["step"] == 4


def test_a_terminal_that_is_gone_does_not_stop_a_run(sized: object, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()

    def gone(text: str) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stream, "write", gone)
    screen = Screen(stream, color=True)
    screen.draw(view(FACTS, 80, 24, UTF8))
    screen.say("hello")
    screen.close()


def test_a_full_disk_under_stderr_does_not_stop_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    full = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)  # keeps nothing to write when it is closed
    monkeypatch.setattr(sys, "stderr", full)
    journal = Journal(tmp_path, 1, 1.0)
    journal.say("hello")
    steps(journal, 1)
    counter = Counter()
    counter.say("hello")
    full.close()
    counter.say("to nobody")
    monkeypatch.undo()
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 2


def test_what_another_process_says_stays_on_the_screen(opened: Callable[[], Terminal], tmp_path: Path) -> None:
    terminal = opened()
    journal, other = Journal(tmp_path, 9, 1.0), Journal(tmp_path, 9, 1.0, main=False)
    steps(journal, 1)
    other.warn("left out: a.jpg")
    steps(journal, 2)
    lines = shown(seen(terminal.getvalue()))
    assert "left out: a.jpg" in lines
    assert "step 2/9" in lines[-3]


def test_a_run_that_goes_on_shows_the_course_and_the_scores_of_before(
    opened: Callable[[], Terminal], tmp_path: Path
) -> None:
    terminal = opened()
    first = Journal(tmp_path, 9, 1.0, quiet=True)
    steps(first, 1, 2, 3)
    first.record("validate", 3, miou=0.5)
    again = Journal(tmp_path, 9, 1.0)
    again.begin(3, 3)
    steps(again, 4)
    lines = shown(seen(terminal.getvalue()))
    assert "█▆▃▁" in lines[2]
    assert lines[-1] == "scores step 3: mIoU 50.0"


# Real terminals

RECIPE = """
run: {workers: 0, threads: 1}
model: {backbone: resnet18, width: 8, output_stride: 16, channels: 8, dilations: [1, 2]}
method: {embedding: 8, hidden: 8}
pretrain: {batch_size: 4, crop: 32, validate_epochs: 0, validate_images: 3}
"""

# takes the terminal for its own, so that Ctrl-C reaches it, and becomes mdp
LEADER = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def in_terminal(
    folder: Path, steps: int, size: tuple[int, int], stop: bool = False, **others: str
) -> tuple[int, bytes]:
    """Pretraining with a pseudo-terminal for everything; with `stop` Ctrl-C is pressed once the block is there.

    Returns exit code and all that was written.
    """
    (folder / "tiny.yaml").write_text(RECIPE)
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    words = ["pretrain", "--datasets", "shapes-coarse,shapes-fine", "--config", "tiny.yaml", "--out", "run", "--steps"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **others}
    with subprocess.Popen(
        [sys.executable, "-c", LEADER, "-m", "mdp", *words, str(steps)], cwd=folder, env=environment,
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        written, deadline = b"", time.monotonic() + LONG
        while time.monotonic() < deadline:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # nobody has it open any more
                break
            written += chunk
            if stop and b"slowest" in written:
                os.write(ours, b"\x03")
                stop = False
        os.close(ours)
        return process.wait(timeout=LONG), written


def test_a_run_in_a_terminal_ends_with_its_block_its_scores_and_its_folder(tmp_path: Path) -> None:
    code, written = in_terminal(tmp_path, 7, (90, 20))
    screen = seen(written, 90, 20)
    lines = shown(screen)
    assert code == 0
    assert [line for line in lines if line.startswith("run folder")] == ["run folder: run"]
    place = lines.index("run")
    assert "100%  step 7/7  epoch 1" in lines[place + 1]
    assert lines[place + 1].startswith("████")
    assert lines[place + 2].startswith("loss   ")
    assert lines[place + 3].startswith("time   slowest: ")
    assert lines[place + 4].startswith("scores step 7: mIoU shapes-coarse ")
    assert lines[place + 5].startswith("       prototypes: mean cosine")
    assert lines[place + 6 :] == ["report: run/report.html", "run"]  # the last is the result, on stdout
    assert not screen.cursor.hidden
    assert screen.cursor.y == len(lines)


def test_ctrl_c_in_a_terminal_leaves_it_clean_and_says_how_to_go_on(tmp_path: Path) -> None:
    code, written = in_terminal(tmp_path, 100_000, (90, 20), stop=True, NO_COLOR="1", PYTHONIOENCODING="ascii")
    screen = seen(written, 90, 20)
    lines = shown(screen)
    assert code == 75
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "preempted"
    assert "stopped by SIGINT after step" in " ".join(lines[-2:])
    assert sum("slowest" in line for line in lines) == 1
    assert not any("^C" in line for line in lines[: lines.index("run")])
    assert written.endswith(b"\n")
    assert written.rindex(b"\x1b[?7h") > written.rindex(b"\x1b[?7l")
    assert b"\x1b[?25l" not in written
    assert written.isascii()

"""Shared by all tests: Hypothesis without deadlines (CI machines are uneven), one thread, the optional real data."""

import gc
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import disks, preloaded

settings.register_profile(
    "mdp", deadline=None, max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "30")),
    suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ,
)  # fmt: skip
settings.load_profile("mdp")
gc.set_threshold(50_000, 20, 10)  # looking for cycles after every 700 new objects took a tenth of all tests' CPU

ROOT = Path(__file__).resolve().parent.parent
# What takes longest begins first, so that at the end no process works through a long file while others wait.
FIRST = (
    "test_method_runs", "test_distributed", "test_notebooks", "test_documented_commands", "test_fake_cuda", "test_docs",
    "test_networks_peers", "test_cli", "test_methods", "test_survival", "test_security", "test_help_examples",
    "test_export", "test_paper_recipes", "test_export_families", "test_export_libraries", "test_networks_heads",
    "test_pages_in_browser", "test_jobs", "test_comparison", "test_own_data", "test_gallery", "test_live",
    "test_examples", "test_init_peers", "test_stages",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in a shell's background: commands would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        preloaded.begin()  # while the others collect
        return  # this process hands out tests and runs none: it needs no torch
    import torch  # noqa: PLC0415 - see above

    disks.wait_for_none()
    torch.set_num_threads(1)  # small tensors: two threads mostly wait for each other


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # torch and all tests stay to the end: nobody need look through them for what can go


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))  # the others as they were


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Signals are as they were before the test.

    A command that ends in this process ignores them from then on, which processes of later tests would inherit: a pool
    whose worker ignores SIGTERM waits for it for ever.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    result = yield
    for number, handler in before.items():
        signal.signal(number, handler)
    return result


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own for what checks remember, in commands that tests run too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs, and what checks remember, end up in a folder of the test's own; what torch was set to is put back."""
    import torch  # noqa: PLC0415 - as above

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    if torch.are_deterministic_algorithms_enabled():  # switching it off imports torch's compiler first
        torch.use_deterministic_algorithms(False)


@pytest.fixture
def bare_runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process draw no pictures and write no report: a third of what a short one costs.

    For tests of anything else; tests/test_samples.py, test_report.py and those that run commands have both, and so has
    a test that is marked `whole_runs`.
    """
    if not request.node.get_closest_marker("whole_runs"):
        _bare(monkeypatch)


def _bare(patch: pytest.MonkeyPatch) -> None:
    from mdp.io.training import job  # noqa: PLC0415 - as above
    from mdp.io.training.context import RunContext  # noqa: PLC0415

    patch.setattr(RunContext, "picture", lambda *_: None)
    patch.setattr(job, "report_at_end", lambda *_: None)


@pytest.fixture(scope="session")
def plain_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Path]:
    """Copies of the bare runs `pretrain` and `finetune` of tests/small_runs.py as it is: (kind, folder) -> folder.

    For tests that begin with a run that nobody disturbed: a copy costs a twentieth of a run, which is made once.
    """
    from mdp.io.training.job import run_finetuning, run_pretraining  # noqa: PLC0415 - as above
    from tests.small_runs import request  # noqa: PLC0415

    home = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        _bare(patch)
        run_pretraining(request(out=home / "pretrain"))
        run_finetuning(request(init="scratch", out=home / "finetune"))
    return lambda kind, folder: Path(shutil.copytree(home / kind, folder))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real labelled photos, which is not part of the project; tests that need it skip without it."""
    folder = Path(os.environ.get("MDP_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real photos at {folder} (set MDP_TEST_DATA)")
    return folder

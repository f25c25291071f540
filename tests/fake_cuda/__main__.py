"""`python -m tests.fake_cuda [WORD]`: all cases whose name has the word; exit code 1 when one fails.

Below each case stands what a step asks of the device; `--quiet` leaves that away.
"""

import argparse
import sys
import traceback

import torch

from tests.fake_cuda.cases import STEP, cases
from tests.fake_cuda.guard import unavailable


def main() -> int:
    """Goes through the cases, a line or more each."""
    words = argparse.ArgumentParser(description="CUDA without a GPU: every method and form, heads, inference.")
    words.add_argument("word", nargs="?", default="", help="cases whose name has it (all)")
    words.add_argument("--quiet", action="store_true", help="only whether a case passes")
    given = words.parse_args()
    if unavailable():
        print(unavailable())
        return 1
    torch.set_num_threads(1)
    chosen = [case for case in cases() if given.word in case.name]
    failures = 0
    for case in chosen:
        try:
            report = case.run()
        except Exception:  # the others are still worth trying
            failures += 1
            print(f"FAIL {case.name}")
            traceback.print_exc(limit=-7, file=sys.stdout)
            continue
        print(f"ok   {case.name}", flush=True)
        if not given.quiet:
            phase = STEP if any(name == STEP for name, _ in report.launches) else "predict"
            print("\n".join(f"    {line}" for line in report.lines(phase)))
    print(f"{len(chosen) - failures} of {len(chosen)} pass")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""The job behind `mdp luss score`: a folder of predictions, of `mdp luss label` too, or an archive for the servers."""

from typing import Any

from mdp.io.errors import RecipeError
from mdp.io.unsupervised.asked import Score
from mdp.io.unsupervised.pipeline.sweep import run_label_scores
from mdp.io.unsupervised.score import run_score, score_table
from mdp.io.unsupervised.submission import run_submission, submission_text


def run_scores(asked: Score, quiet: bool = False) -> dict[str, Any]:
    """All that is found out about the predictions, as JSON.  Raises an MdpError for what the user has to mend."""
    if not (asked.split or asked.sweep):
        return (
            run_submission(asked, asked.submission, asked.method, quiet)
            if asked.submission
            else run_score(asked, quiet)
        )
    if asked.target or asked.labels or asked.out or asked.submission:
        raise RecipeError(
            "--split scores what `mdp luss label` made; leave --target, --labels, --out and --submission out"
        )
    split = asked.split or "validation"
    return run_label_scores(asked.predictions, split, asked.sweep, asked.matching, asked.overwrite, quiet)


def scores_text(found: dict[str, Any]) -> str:
    """The same for people."""
    return submission_text(found) if "submission" in found else score_table(found)

"""How a run ended, or that it goes on, in words: from its status, its last records, and the record of a failed step."""

import shlex
import time
from collections.abc import Mapping
from typing import Any

from mdp.io.pictures.html import folded, lines, table, text
from mdp.io.report.run_facts import RunFacts

_QUIET = 1800  # seconds without a record after which a run may be no more
_LOG = 40  # lines of the log that are shown
_ROWS = 64  # samples of a failed step that are listed
CODES = {
    0: "success",
    1: "a fault in mdp",
    2: "a setting or an argument",
    3: "the data",
    4: "numbers that are not finite",
    5: "a checkpoint",
    6: "disk, memory, permission or a worker",
    8: "another process of the run",
    75: "stopped by a signal, with a checkpoint",
    130: "interrupted",
}

_REMEDIES = {
    "data": "<code>mdp check</code> on the dataset, which names everything of the kind at once, or "
    "<code>--on-bad-sample skip</code>, which leaves such samples out and counts them",
    "memory": "<code>--accumulate 2</code> (or more), which keeps the batch; a smaller <code>--batch-size</code> or "
    "crop; <code>--precision bf16</code> on a GPU; fewer <code>--workers</code> where it is the machine's memory",
}


def kind_of(facts: RunFacts) -> str:
    """`pretrain` or `finetune`, as the command says, or else what was recorded; "" when neither does."""
    words = facts.command.split()
    if len(words) > 1 and words[1] in ("pretrain", "finetune"):
        return words[1]
    if not facts.history.last:
        return ""
    return "pretrain" if "epoch" in facts.history.last[-1] else "finetune"


def last_step(facts: RunFacts) -> int:
    """The last step that is known to be done."""
    known = [int(record["step"]) for record in facts.history.last]
    recorded = facts.status.get("step")
    return max([*known, recorded if isinstance(recorded, int) else 0])


def steps_done(facts: RunFacts) -> str:
    """Steps done, of how many."""
    every = facts.status.get("steps", "?")
    return f"{last_step(facts):,} of {f'{every:,}' if type(every) is int else text(every)}"


def state_of(facts: RunFacts) -> str:
    """A word for how the run stands."""
    state = facts.status.get("state")
    return state if isinstance(state, str) and state else "unknown"


def ending(facts: RunFacts, now: float) -> str:
    """The ending of one run, as HTML."""
    parts = [f"<p>{_sentence(facts, now)}</p>", *(f"<p>{line}</p>" for line in _advice(facts, now))]
    if facts.diverged:
        parts.append(_diverged(facts))
    if facts.diverged or state_of(facts) in ("failed", "preempted", "interrupted"):
        parts.append(_last_records(facts))
    if facts.log:
        parts.append(folded("End of log.txt", f'<pre tabindex="0">{lines(facts.log, _LOG)}</pre>'))
    return "".join(parts)


def _sentence(facts: RunFacts, now: float) -> str:
    state, code = state_of(facts), facts.status.get("exit_code")
    how = "good" if state in ("done", "running") else "bad"
    words = [f'<b class="{how}">{text(state)}</b>, step {steps_done(facts)}']
    if type(code) is int:
        words.append(f"exit code {code}" + (f" ({CODES[code]})" if code in CODES else ""))
    if facts.status.get("time"):
        words.append(f"written {text(facts.status['time'])}")
    if state == "running" and facts.changed is not None:
        words.append(f"last record {_ago(now - facts.changed)} before this page was made")
    message = facts.status.get("message")
    return "; ".join(words) + "." + (f" <code>{text(message, 2000)}</code>" if message else "")


def _ago(seconds: float) -> str:
    """A time in one unit.

    >>> _ago(12), _ago(300), _ago(90_000)
    ('12 s', '5 min', '25 h')
    """
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _advice(facts: RunFacts, now: float) -> list[str]:
    """The next steps for the user, in a sentence each."""
    state, code = state_of(facts), facts.status.get("exit_code")
    again = f"<code>mdp {kind_of(facts) or '(pretrain or finetune)'} --resume {text(shlex.quote(facts.folder))}</code>"
    if state == "running" and facts.changed is not None and now - facts.changed > _QUIET:
        return [f"A run that is killed outright leaves this state. If its process is gone, {again} goes on."]
    if state == "preempted":
        return [f"{again} goes on where it stopped."]
    if state in ("failed", "interrupted") and code == 4:
        return [f"What to try: {'; '.join(_remedies(facts))}.", f"{again} replays the step that failed, with its data."]
    if state == "failed" and (tries := _REMEDIES.get(_trouble(facts))):
        return [f"What to try: {tries}.", f"{again} then goes on from the last checkpoint."]
    if state in ("failed", "interrupted"):
        return [f"Once that is mended, {again} goes on from the last checkpoint."]
    return []


def _trouble(facts: RunFacts) -> str:
    """The lack that a run failed by, data or memory, as its exit code and message say; "" for anything else."""
    code, message = facts.status.get("exit_code"), str(facts.status.get("message"))
    if code == 3:
        return "data"
    return "memory" if code == 6 and "memory" in message else ""


def _remedies(facts: RunFacts) -> list[str]:
    """Remedies against numbers that are not finite, of those that are not set already."""
    remedies, settings = [], facts.settings
    rate = next((record["lr"] for record in reversed(facts.history.last) if type(record.get("lr")) is float), None)
    remedies.append("a smaller --lr" + (f" (it was {rate:.3g} at the last step)" if rate is not None else ""))
    kind = kind_of(facts) or "pretrain"
    if settings.get(f"{kind}.warmup_steps") in (None, "0"):
        remedies.append(f"a warm-up, --set {kind}.warmup_steps=500")
    if settings.get("run.clip_norm") in (None, "0", "0.0", "null"):
        remedies.append("--set run.clip_norm=1")
    if settings.get("run.precision") == "fp16":
        remedies.append("--precision bf16 instead of fp16")
    remedies.append("a look at the samples below, and mdp check on their dataset")
    return remedies


def _diverged(facts: RunFacts) -> str:
    """The record of the failed step: its samples, what the network was given of them, its numbers."""
    record = facts.diverged
    past = "" if facts.status.get("exit_code") == 4 else " The run has since been started again."
    message = "" if record.get("message") == facts.status.get("message") else f"{text(record.get('message'), 2000)}."
    head = f"<h4>The step that failed: {text(record.get('step'))}</h4><p>{message}{past}</p>"
    samples = record.get("samples")
    if not isinstance(samples, list) or not samples:
        return head
    views = [view for view in _listed(record.get("views")) if isinstance(view, dict)]
    heads = ("sample", *(f"view {number}: least, mean, greatest" for number in range(1, len(views) + 1)))
    rows = [
        (text(name), *(_range(view, index, len(samples)) for view in views))
        for index, name in enumerate(samples[:_ROWS])
    ]
    left = f'<p class="note">and {len(samples) - _ROWS:,} more samples.</p>' if len(samples) > _ROWS else ""
    broken = sum(view.get("finite") is False for view in views)
    note = f'<p class="bad">Images that are not finite in {broken} of {len(views)} views.</p>' if broken else ""
    caption = f"Samples of step {text(record.get('step'))}, with the range of their normalised pixels"
    return head + note + table(caption, heads, rows) + left


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _range(view: Mapping[str, Any], index: int, samples: int) -> str:
    """Least, mean and greatest pixel of a sample; a dash where this process had only some of the samples."""
    columns = [_listed(view.get(key)) for key in ("least", "mean", "greatest")]
    if any(len(column) != samples for column in columns):
        return "-"
    values = [column[index] for column in columns]
    return ", ".join(f"{value:.2f}" if _is_number(value) else "not finite" for value in values)


def _is_number(value: object) -> bool:
    """Whether it can be written as a decimal number: integers in JSON may have thousands of digits."""
    return type(value) in (int, float) and abs(value) < 1e300  # type: ignore[arg-type]


def _last_records(facts: RunFacts) -> str:
    """The last steps that went well."""
    records = facts.history.last
    if not records:
        return '<p class="note">No step went well.</p>'
    names = [name for name in records[-1] if name not in ("kind", "step", "epoch")][:10]
    rows = [(f"{record['step']:,}", *(_value(record.get(name, "-")) for name in names)) for record in records]
    return table("The last healthy steps", ("step", *(text(name, 60) for name in names)), rows)


def _value(value: object) -> str:
    return f"{value:.4g}" if _is_number(value) else "not finite" if value is None else text(value, 40)


def made_at(now: float) -> str:
    """Local time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now))

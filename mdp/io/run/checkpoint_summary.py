"""The content of a checkpoint, by its header alone, as data and as text for people."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdp.io.run.folder import checkpoint_of
from mdp.io.run.header import ITEM_BYTES, Header, current_texts, read_about, read_header
from mdp.io.run.record import labels_of


def describe(path: Path) -> dict[str, Any]:
    """The facts in the header of a checkpoint, or of the last one of a run folder; its tensors are not read."""
    file = checkpoint_of(path)
    header, about = read_header(file), read_about(file)
    texts = current_texts(file, header)
    return {
        "path": str(file),
        "kind": about.get("kind"),
        "step": about.get("step"),
        "best": about.get("best"),
        **({"best_by": by} if (by := _chosen_by(about)) else {}),
        "format_version": int(header.texts["version"]),
        "config_sha256": texts["config_sha256"],
        "datasets": {name: len(classes) for name, classes in classes_of(file, about).items()},
        "file_bytes": header.size,
        "tensors": len(header.tensors),
        "numbers": sum(part["numbers"] for part in _sections(header).values()),
        "sections": _sections(header),
    }


def _chosen_by(about: Mapping[str, Any]) -> str | None:
    """The score that `best` is chosen by in fine-tuning; None of other runs."""
    section = about.get("recipe", {}).get("finetune") if about.get("kind") == "finetune" else None
    return section.get("best", "miou") if isinstance(section, Mapping) else None


def _sections(header: Header) -> dict[str, dict[str, int]]:
    """Tensors, numbers and bytes by the first word of the names: query, key, momentum, state, or network."""
    sections: dict[str, Counter[str]] = {}
    for name, entry in header.tensors.items():
        size = entry.end - entry.start
        counts = {"tensors": 1, "numbers": size // ITEM_BYTES[entry.dtype], "bytes": size}
        sections.setdefault(name.split(".")[0], Counter()).update(counts)
    return {name: dict(sections[name]) for name in sorted(sections)}


def classes_of(file: Path, about: Mapping[str, Any]) -> dict[str, list[str]]:
    """The class names of each label space that a checkpoint was made for.

    Raises CheckpointError when they are not as mdp writes them.
    """
    return {space.name: list(space.classes) for space in labels_of(file, about.get("labels", []))}


def description(facts: Mapping[str, Any]) -> str:
    """The text of `describe`, one fact a line."""
    datasets = ", ".join(f"{name} ({count} classes)" for name, count in facts["datasets"].items())
    lines = [
        f"{facts['path']}: {_mib(facts['file_bytes'])}, format version {facts['format_version']}",
        f"kind      {facts['kind']}",
        f"step      {facts['step']}",
        f"datasets  {datasets or '-'}",
        *([f"best      {facts['best']:.4f} by {facts['best_by']}"] if facts.get("best_by") and facts["best"] else []),
        f"settings  SHA-256 {facts['config_sha256'] or '-'}",
        f"tensors   {facts['tensors']} with {facts['numbers']:,} numbers",
    ]
    lines += [
        f"  {name:10}{part['tensors']:6} tensors {part['numbers']:14,} numbers {_mib(part['bytes']):>13}"
        for name, part in facts["sections"].items()
    ]
    return "\n".join(lines)


def _mib(size: int) -> str:
    return f"{size / 2**20:.2f} MiB"

"""What is known of classes: tables of relations, vectors of names, and a loss and a run with either."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mdp.core.class_relations import (
    Relation,
    once_each,
    pooled_sums,
    pooled_vectors,
    relation_tables,
    with_wholes,
)
from mdp.core.labels import LabelUnion
from mdp.core.methods import multi_dataset
from mdp.core.prototype_bank import ClassSums
from mdp.core.targets import hard_targets, mixed_targets
from mdp.core.word_vectors import alike_names, directions
from mdp.io.errors import RecipeError
from mdp.io.recipe.relations import read_relations
from mdp.io.run.checkpoint import load
from mdp.io.weights.word_vectors import class_vectors
from tests.laws import pure_call
from tests.preloaded import run
from tests.tensors import rng_of, seeds
from tests.test_methods import CPU, DATA, NETWORK, SPACES, fresh, one_step, small, views_of

UNION = LabelUnion(SPACES)  # a/wall, a/sky, b/wall, b/car, b/cat
pairs = st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda pair: pair[0] != pair[1])
relations = st.lists(
    st.builds(lambda kind, ends: Relation(kind, *ends), st.sampled_from(["equal", "part", "overlap"]), pairs),
    max_size=6,
)


@given(relations, st.randoms())
def test_tables_do_not_depend_on_the_order_and_say_each_relation_of_every_equal_class(
    known: list[Relation], chance: object
) -> None:
    tables = pure_call(relation_tables, known, 6)
    shuffled = sorted(known, key=lambda _: chance.random())  # type: ignore[attr-defined]
    assert all(torch.equal(*both) for both in zip(tables, relation_tables(shuffled, 6), strict=True))
    rivals, groups, wholes = tables
    assert torch.equal(rivals, rivals.T)
    assert rivals.diagonal().all()
    for kind, first, second in known:
        assert not rivals[first, second]
        assert kind != "equal" or groups[first] == groups[second]
        if kind == "part" and groups[first] != groups[second]:
            assert groups[second] in wholes[first]
    alike = groups[:, None] == groups
    off = ~torch.eye(6, dtype=torch.bool)
    assert not (rivals & alike & off).any()
    for first, second in (alike & off).nonzero().tolist():  # all that is known of one is known of the other
        among = torch.tensor([number for number in range(6) if number not in (first, second)])
        assert torch.equal(rivals[first, among], rivals[second, among])
        assert torch.equal(wholes[first], wholes[second])


@given(relations)
def test_every_group_competes_once(known: list[Relation]) -> None:
    tables = relation_tables(known, 6)
    rivals = pure_call(once_each, tables.rivals, tables.groups)
    for row, all_of_it in zip(rivals, tables.rivals, strict=True):
        kept = tables.groups[row].tolist()
        assert len(kept) == len(set(kept))
        assert set(kept) == set(tables.groups[all_of_it].tolist())


@given(seeds)
def test_equal_classes_have_the_mean_of_all_their_images(seed: int) -> None:
    rng = rng_of(seed)
    sums = ClassSums(torch.randn(4, 3, generator=rng).double(), torch.randint(0, 4, (4,), generator=rng))
    groups = torch.tensor([0, 1, 0, 3])
    pooled = pure_call(pooled_sums, sums, groups)
    torch.testing.assert_close(pooled.sums[2], sums.sums[0] + sums.sums[2])
    assert torch.equal(pooled.sums[0], pooled.sums[2])
    assert int(pooled.counts[0]) == int(sums.counts[0] + sums.counts[2])
    assert torch.equal(pooled.sums[[1, 3]], sums.sums[[1, 3]])
    vectors = F.normalize(torch.randn(4, 3, generator=rng), dim=1)
    shared = pure_call(pooled_vectors, vectors, groups)
    torch.testing.assert_close(shared[0], F.normalize(vectors[0] + vectors[2], dim=0))
    torch.testing.assert_close(shared[[1, 3]], vectors[[1, 3]])


def test_by_hand_a_pixel_of_a_part_is_pulled_to_its_wholes_too_and_one_of_the_whole_is_not() -> None:
    wholes = torch.tensor([[-1, -1], [0, 3], [0, -1], [-1, -1]])
    targets = with_wholes(hard_targets(torch.tensor([0, 1, 2, -1])), wholes, 0.4)
    pulls = [
        {c: round(w, 4) for c, w in zip(row, weights, strict=True) if w}
        for row, weights in zip(targets.classes.tolist(), targets.weights.tolist(), strict=True)
    ]
    assert pulls == [{0: 1.0}, {1: 1.0, 0: 0.2, 3: 0.2}, {2: 1.0, 0: 0.4}, {}]
    assert targets.valid.tolist() == [1, 1, 1, 0]
    mixed = with_wholes(
        mixed_targets(torch.full((1, 1, 1), 2), torch.full((1, 1, 1), 3), torch.tensor([0.75])), wholes, 0.4
    )
    torch.testing.assert_close(mixed.weights.sum(), torch.tensor(1 + 0.75 * 0.4))


@pytest.mark.parametrize("wrong", [("like", 0, 1), ("part", 0, 6), ("equal", 2, 2)], ids=str)
def test_a_relation_that_is_none_is_refused(wrong: tuple[str, int, int]) -> None:
    with pytest.raises(ValueError, match="relation"):
        relation_tables([Relation(*wrong)], 6)


@given(seeds, st.integers(1, 6), st.integers(1, 8))
def test_directions_have_the_cosines_of_the_names_where_there_is_room_and_the_best_of_their_rank_elsewhere(
    seed: int, classes: int, channels: int
) -> None:
    vectors = torch.randn(classes, 5, generator=rng_of(seed))
    found = pure_call(directions, vectors, channels)
    unit = F.normalize(vectors.double(), dim=1)
    if channels >= min(classes, 5):
        torch.testing.assert_close((found @ found.T).double(), unit @ unit.T, atol=1e-5, rtol=0)
    else:  # NumPy's eigenvectors of the table of cosines
        values, columns = np.linalg.eigh((unit @ unit.T).numpy())
        best = torch.tensor(columns[:, -channels:] * np.sqrt(values[-channels:].clip(0)))
        best = F.normalize(best, dim=1)
        torch.testing.assert_close((found @ found.T).double(), best @ best.T, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(classes))


def test_a_name_without_a_direction_is_refused_and_alike_names_are_of_different_datasets() -> None:
    with pytest.raises(ValueError, match="not zero"):
        directions(torch.zeros(2, 3), 2)
    words = torch.tensor([[1.0, 0], [1, 0.1], [1, 0], [0, 1], [0.1, 1]])  # a/wall, a/sky, b/wall, b/car, b/cat
    assert alike_names(words, UNION, 0.9) == [Relation("overlap", 0, 2), Relation("overlap", 1, 2)]


def loss_with(*known: Relation, **changes: object) -> float:
    """The loss of a first step of one network on one batch; a packed state needs no relations to go on as it was."""
    settings, data = small(multi_dataset, **changes), DATA._replace(relations=known)
    pair = multi_dataset.build(settings, NETWORK, data, rng_of(0))
    pair.query.eval()
    pair.key.eval()
    step = one_step(
        multi_dataset,
        pair,
        multi_dataset.initial_state(settings, data, rng_of(1), CPU),
        views_of(0),
        settings,
        rng_of(2),
    )
    back = multi_dataset.unpack(multi_dataset.pack(step.state), settings, DATA)
    losses = [one_step(multi_dataset, pair, s, views_of(1), settings, rng_of(3)).loss for s in (step.state, back)]
    assert torch.equal(*losses)
    return step.loss.item()


def test_fewer_rivals_cost_less_and_a_pull_to_the_whole_costs_more() -> None:
    """Walls are equal, or overlap; cats are a part of the sky."""
    plain, equal = loss_with(), loss_with(Relation("equal", 0, 2))
    overlap = loss_with(Relation("overlap", 0, 2))
    part = loss_with(Relation("part", 4, 1), relation_weight=0.0)
    assert overlap < plain
    assert part < plain
    assert equal != overlap  # their prototypes are shared
    assert loss_with(Relation("part", 4, 1), relation_weight=0.5) > part
    assert math.isclose(loss_with(Relation("overlap", 2, 0)), overlap, rel_tol=1e-6)
    assert math.isfinite(loss_with(Relation("equal", 0, 2), Relation("part", 4, 1), prototypes="learnt"))


def test_labels_of_equal_classes_may_be_exchanged() -> None:
    settings = small(multi_dataset)
    data = DATA._replace(relations=(Relation("equal", 0, 2),))
    pair, _ = fresh(multi_dataset, settings)
    pair.query.eval()
    pair.key.eval()
    state = multi_dataset.initial_state(settings, data, rng_of(1), CPU)
    views = [view._replace(labels=torch.where(view.labels == 0, 2, view.labels)) for view in views_of(0)]
    other = [view._replace(labels=torch.where(view.labels == 2, 0, view.labels)) for view in views]
    losses = [one_step(multi_dataset, pair, state, some, settings, rng_of(0)).loss.item() for some in (views, other)]
    assert math.isclose(*losses, rel_tol=1e-5)
    known = multi_dataset.known_prototypes(
        one_step(multi_dataset, pair, state, views, settings, rng_of(0)).state, settings
    )
    assert torch.equal(known.vectors[0], known.vectors[2])
    assert known.present[0]


def test_without_relations_no_bit_changes() -> None:
    assert loss_with() == loss_with(relation_weight=0.9)
    assert multi_dataset.initial_state(small(multi_dataset), DATA, rng_of(1), CPU)[1:] == (None, None, None)


# files


def csv_of(folder: Path, *lines: str) -> Path:
    file = folder / "relations.csv"
    file.write_text("\n".join(("dataset_a,class_a,relation,dataset_b,class_b", *lines)) + "\n")
    return file


def test_relations_are_read_from_both_kinds_of_table(tmp_path: Path) -> None:
    file = csv_of(
        tmp_path, "a,wall,identity,b,wall", "a,sky,parent,b,cat", "a,sky,sibling,b,car", "voc,cat,identity,b,cat"
    )
    found = read_relations(file, UNION)
    assert found.relations == (Relation("equal", 0, 2), Relation("part", 4, 1))
    assert found.line == (
        f"relations of classes: 1 equal, 1 part, 0 overlap ({file}; 1 siblings, which compete; 1 of other datasets)"
    )
    file.write_text("relation,first,second,similarity\nsame,a/wall,b/wall,0.9\npart,b/cat,a/sky,0.5\n")
    assert read_relations(file, UNION).relations == found.relations


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a,wall,like,b,wall", "line 2: relation 'like': expected one of equal"),
        ("a,wal,identity,b,wall", "line 2: a has no class 'wal'"),
        ("a,wall,identity,b", "line 2: expected 5 cells, got 4"),
        ("a,wall,identity,a,wall", "line 2: a/wall stands on both sides"),
    ],
)
def test_a_line_of_relations_that_is_not_understood_is_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        read_relations(csv_of(tmp_path, line), UNION)


def test_vectors_of_names_are_found_as_people_say_them(tmp_path: Path) -> None:
    vectors = {
        name: np.full(3, float(number + 1)) for number, name in enumerate(["wall", "a/sky", "Car", "cat", "sky"])
    }
    np.savez(tmp_path / "words.npz", **vectors)
    found = class_vectors(tmp_path / "words.npz", UNION)
    assert found[:, 0].tolist() == [1, 2, 1, 3, 4]
    np.savez(tmp_path / "few.npz", wall=np.ones(3))
    with pytest.raises(RecipeError, match=r"few\.npz: no vectors for 3 of 5 classes: a/sky, b/car, b/cat"):
        class_vectors(tmp_path / "few.npz", UNION)
    np.savez(tmp_path / "zero.npz", **{**vectors, "cat": np.zeros(3)})
    with pytest.raises(RecipeError, match="the vector of b/cat is zero"):
        class_vectors(tmp_path / "zero.npz", UNION)
    np.savez(tmp_path / "lengths.npz", **{**vectors, "cat": np.ones(2)})
    with pytest.raises(RecipeError, match="expected vectors of one length"):
        class_vectors(tmp_path / "lengths.npz", UNION)
    whole = (tmp_path / "words.npz").read_bytes()
    flag = whole.index(b"PK\x01\x02") + 8  # of the first entry: encrypted
    for data in (b"", whole[:100], whole[:-1], whole[:flag] + b"\x01" + whole[flag + 1 :]):
        (tmp_path / "damaged.npz").write_bytes(data)
        with pytest.raises(RecipeError, match=r"method\.class_embeddings: .*damaged\.npz: "):
            class_vectors(tmp_path / "damaged.npz", UNION)
    (tmp_path / "no.safetensors").write_text("words")
    with pytest.raises(RecipeError, match=r"method\.class_embeddings: .*no\.safetensors"):
        class_vectors(tmp_path / "no.safetensors", UNION)


def test_a_run_starts_from_words_and_relations_and_its_checkpoint_needs_neither(tmp_path: Path) -> None:
    names = ["wall", "floor", "round", "polygon", "pointed", "wall-brick", "wall-panel", "floor-tile", "floor-plank",
             "disc", "ring", "square", "triangle", "other"]  # fmt: skip
    np.savez(tmp_path / "words.npz", **{name: np.eye(14)[number] for number, name in enumerate(names)})
    csv_of(
        tmp_path, "shapes-coarse,wall,has_part,shapes-fine,wall-brick", "shapes-coarse,round,overlap,shapes-fine,disc"
    )
    settings = (
        "model.width=8", "model.channels=8", "model.dilations=[1,2]", "model.output_stride=16", "method.embedding=16",
        "method.hidden=8", "method.prototypes=learnt", "method.rivals=dataset", "method.class_embeddings=words.npz",
        "method.relations=relations.csv", "pretrain.crop=32", "pretrain.validate_epochs=0",
        "pretrain.validate_images=2",
    )  # fmt: skip
    done = run(
        ["-m", "mdp", "pretrain", "--datasets", "shapes-coarse,shapes-fine", "--out", "run", "--steps", "2",
         "--workers", "0", "--batch-size", "4", "--no-check", "--backbone", "resnet18",
         *(word for pair in settings for word in ("--set", pair))],
        tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "relations of classes: 0 equal, 1 part, 1 overlap" in done.err
    tensors = load(tmp_path / "run" / "checkpoints" / "last.safetensors").tensors
    assert {name for name in tensors if "rivals" in name or "wholes" in name} == {"state.rivals", "state.wholes"}
    words = tensors["query.class_prototypes"]  # two steps from where their names' vectors, at right angles, put them
    assert words.shape == (14, 16)
    assert (words @ words.T - torch.eye(14)).abs().max() < 0.2
    (tmp_path / "words.npz").unlink()
    (tmp_path / "relations.csv").unlink()
    scored = run(["-m", "mdp", "taxonomy", "run", "--json", "-q"], tmp_path)
    assert scored.code == 0, scored.err
    plain = [pair for pair in settings if ".csv" not in pair and ".npz" not in pair]
    other = run(  # of as many classes, which are others
        ["-m", "mdp", "pretrain", "--datasets", "shapes-fine,shapes-coarse", "--out", "other", "--init", "run",
         "--steps", "1", "--workers", "0", "--batch-size", "4", "--no-check", "--backbone", "resnet18",
         *(word for pair in plain for word in ("--set", pair))],
        tmp_path,
    )  # fmt: skip
    assert other.code == 0, other.err
    assert "in the file, not used: class_prototypes" in other.err

"""Region and pixel mixing (eq. 5 and 6)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.batches import Batch
from mdp.core.geometry import Box
from mdp.core.mixing import (
    PIXEL,
    PLAIN,
    REGION,
    MixSettings,
    draw_box,
    draw_plan,
    mix,
    mix_pixels,
    mix_regions,
    plan_rows,
    unmixed,
)
from mdp.core.processes import rows_of
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

laws = st.sampled_from(["corner", "center"])


def batch_of(seed: int, count: int = 4, height: int = 6, width: int = 8) -> Batch:
    rng = rng_of(seed)
    images = torch.rand(count, 3, height, width, generator=rng)
    return Batch(images, torch.randint(-1, 5, (count, height, width), generator=rng))


@given(seeds, st.floats(0, 1), st.integers(1, 40), st.integers(1, 40), laws)
def test_a_box_lies_inside_and_covers_no_more_than_its_share(
    seed: int, share: float, height: int, width: int, law: str
) -> None:
    box = pure_call(draw_box, rng_of(seed), share, height, width, law)
    assert 0 <= box.top <= box.top + box.height <= height
    assert 0 <= box.left <= box.left + box.width <= width
    assert box.height <= height * (1 - share) ** 0.5 + 1
    assert box.width <= width * (1 - share) ** 0.5 + 1


def test_corner_boxes_begin_anywhere_and_centre_boxes_are_centred() -> None:
    corner = [draw_box(rng_of(s), 0.75, 100, 100, "corner") for s in range(300)]
    centre = [draw_box(rng_of(s), 0.75, 100, 100, "center") for s in range(300)]
    # sides are 50: a corner box is cut on the right only, a centred one on both sides alike
    assert sum(box.left == 0 for box in corner) < 15
    assert 40 < sum(box.left == 0 for box in centre) < 110
    middle = sum(box.left + box.width / 2 for box in centre) / 300
    assert 45 < middle < 55
    assert sum(box.left + box.width / 2 for box in corner) / 300 > 60


@given(seeds)
def test_each_pixel_of_a_region_mix_is_one_of_the_two_with_its_own_label(seed: int) -> None:
    a, b = batch_of(seed), batch_of(seed + 1)
    boxes = tuple(draw_box(rng_of(seed + i), 0.4, 6, 8) for i in range(4))
    mixed = pure_call(mix_regions, a, b, boxes)
    for i, (top, left, height, width) in enumerate(boxes):
        inside = torch.zeros(6, 8, dtype=torch.bool)
        inside[top : top + height, left : left + width] = True
        assert torch.equal(mixed.labels[i], torch.where(inside, b.labels[i], a.labels[i]))
        assert torch.equal(mixed.images[i], torch.where(inside, b.images[i], a.images[i]))


@given(seeds)
def test_a_share_of_one_is_the_identity_for_both_mixings(seed: int) -> None:
    a, b = batch_of(seed), batch_of(seed + 1)
    boxes = tuple(draw_box(rng_of(seed), 1.0, 6, 8) for _ in range(4))
    assert torch.equal(mix_regions(a, b, boxes).images, a.images)
    blend = pure_call(mix_pixels, a, b, torch.ones(4))
    assert torch.equal(blend.images, a.images)
    assert torch.equal(blend.first, a.labels)


@given(seeds, st.floats(0, 1))
def test_pixel_mixing_is_the_weighted_mean_and_keeps_both_labels(seed: int, share: float) -> None:
    a, b = batch_of(seed), batch_of(seed + 1)
    blend = mix_pixels(a, b, torch.full((4,), share))
    expected = share * a.images.double() + (1 - share) * b.images.double()
    assert torch.allclose(blend.images.double(), expected, atol=1e-6)
    assert torch.equal(blend.first, a.labels)
    assert torch.equal(blend.second, b.labels)


@given(seeds, st.booleans(), st.booleans())
def test_a_plan_mixes_in_the_ways_that_are_switched_on(seed: int, region: bool, pixel: bool) -> None:
    settings = MixSettings(region=region, pixel=pixel)
    plan = pure_call(draw_plan, rng_of(seed), settings, 5, 6, 8)
    allowed = {(False, False): {PLAIN}, (True, False): {PLAIN, REGION}, (False, True): {PLAIN, PIXEL}}
    assert set(plan.kind.tolist()) <= allowed.get((region, pixel), {REGION, PIXEL})
    assert sorted(plan.partner.tolist()) == list(range(5))
    batch = batch_of(seed, 5)
    blend = pure_call(mix, batch, plan)
    for i, kind in enumerate(plan.kind.tolist()):
        if kind == PLAIN:
            assert torch.equal(blend.images[i], batch.images[i])
        if kind == PIXEL:
            partner = int(plan.partner[i])
            assert torch.equal(blend.second[i], batch.labels[partner])
            assert blend.share[i] == plan.share[i]
        else:
            assert blend.share[i] == 1
            assert torch.equal(blend.first[i], blend.second[i])


@given(seeds, st.booleans())
def test_applying_a_plan_is_region_mixing_and_then_pixel_mixing_with_the_partners(seed: int, parted: bool) -> None:
    whole = batch_of(seed, 5)
    plan = draw_plan(rng_of(seed), MixSettings(region=True, pixel=True), 5, 6, 8)
    rows = slice(1, 4) if parted else slice(0, 5)
    batch, own = rows_of(whole, rows), plan_rows(plan, rows)
    others = Batch(*(t[own.partner] for t in whole[:2]))
    blend = pure_call(mix, batch, own, others) if parted else pure_call(mix, batch, own)
    none = Box(0, 0, 0, 0)
    boxes = tuple(box if kind == REGION else none for box, kind in zip(own.boxes, own.kind.tolist(), strict=True))
    expected = mix_pixels(mix_regions(batch, others, boxes), others, torch.where(own.kind == PIXEL, own.share, 1.0))
    assert torch.equal(blend.images, expected.images)
    assert torch.equal(blend.first, expected.first)
    second = torch.where((expected.share < 1)[:, None, None], others.labels, expected.first)
    assert torch.equal(blend.second, second)


def test_half_of_the_images_are_mixed_with_one_mixing_and_all_with_both() -> None:
    one = draw_plan(rng_of(0), MixSettings(region=True), 2000, 8, 8)
    assert 900 < int((one.kind == REGION).sum()) < 1100
    both = draw_plan(rng_of(0), MixSettings(region=True, pixel=True), 2000, 8, 8)
    assert 900 < int((both.kind == REGION).sum()) < 1100
    assert int((both.kind == PLAIN).sum()) == 0


def test_an_unmixed_batch_is_a_blend_with_nothing() -> None:
    batch = batch_of(1)
    blend = unmixed(batch)
    assert torch.equal(blend.images, batch.images)
    assert blend.share.eq(1).all()


def test_batches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="boxes for batches"):
        mix_regions(batch_of(0), batch_of(0, count=3), (Box(0, 0, 1, 1),) * 4)
    coarse = Batch(batch_of(0).images, batch_of(0).labels[:, ::2, ::2])  # boxes would miss what they paste
    for call in (
        lambda: mix_regions(batch_of(0), coarse, (Box(0, 0, 1, 1),) * 4),
        lambda: mix_pixels(coarse, coarse, torch.ones(4)),
        lambda: mix(coarse, draw_plan(rng_of(0), MixSettings(), 4, 6, 8)),
    ):
        with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\) with \(B, H, W\)"):
            call()
    with pytest.raises(ValueError, match="a plan for 3 images, and a batch of 4"):
        mix(batch_of(0), draw_plan(rng_of(0), MixSettings(), 3, 6, 8))


@pytest.mark.parametrize("wrong", [{"box": "middle"}, {"probability": 2.0}, {"region_alpha": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MixSettings(**wrong)  # type: ignore[arg-type]

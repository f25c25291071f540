"""What fields of settings say of themselves, for help, `mdp recipe show` and the reference."""

from dataclasses import fields

import pytest

from mdp.bounds import words_of
from mdp.io.recipe.fields import comments_of, sentence, stated
from mdp.io.recipe.settings import SECTIONS, FinetuneSettings, LussSettings, OptimizationSettings, RunSettings
from mdp.io.suspects.asked import SuspectsQuestion


def test_a_comment_goes_on_in_the_lines_below_its_field() -> None:
    assert sentence(SuspectsQuestion, "folds", True) == (
        "Fit classes to frozen features, in so many folds, each without the images that it judges "
        "[default: RUN's own classifier or prototypes]."
    )


def test_a_field_with_another_default_keeps_the_comment_of_its_base() -> None:
    assert comments_of(FinetuneSettings)["schedule"] == comments_of(OptimizationSettings)["schedule"]
    assert stated(FinetuneSettings)["schedule"].default == "polynomial"


def test_the_words_that_a_setting_may_be_stand_before_its_comment() -> None:
    assert comments_of(RunSettings)["cache"].startswith("off | memory | device: where")


@pytest.mark.parametrize("section", SECTIONS)
def test_the_default_of_a_setting_is_one_of_its_words_and_another_word_is_refused(section: str) -> None:
    kind = SECTIONS[section]
    for name, words in words_of(kind).items():
        assert stated(kind)[name].default in (None, *words)
        with pytest.raises(ValueError, match=f"^{name}: expected .* or {words[-1]}, got 'neither'$"):
            kind(**{name: "neither"})


def test_what_none_stands_for_is_told_as_the_default() -> None:
    assert sentence(LussSettings, "clusters", False).endswith('[default: as many as the target has besides "other"].')
    assert stated(LussSettings)["clusters"].kind is int
    assert {field.name for field in fields(LussSettings)} == set(stated(LussSettings))

"""The number grammar and the words."""

from __future__ import annotations

import numpy as np
import pytest
from models import random_model

from sdim_ros.core.prompts import IMAGE_PAD, NumberFormat, Vocabulary
from sdim_ros.core.types import BadInput


def test_numbers_are_spelled_with_fixed_width_and_read_back() -> None:
    number = NumberFormat(2, 3)
    values = np.array([4.23, 0.001, 99.999, 12.3456])
    assert number.spell(values).tolist() == [
        [0, 4, 2, 3, 0], [0, 0, 0, 0, 1], [9, 9, 9, 9, 9], [1, 2, 3, 4, 6]]
    np.testing.assert_allclose(number.value(number.spell(values)), values, atol=0.0005)
    assert number.text(4.23) == "04.230"


def test_digit_order_is_numeric_order() -> None:
    number = NumberFormat(2, 3)
    values = np.sort(np.random.default_rng(0).uniform(0.01, 99, 200))
    spelled = [tuple(digits) for digits in number.spell(values)]
    assert spelled == sorted(spelled)


@pytest.mark.parametrize("value", [100.0, 99.9996, 0.0004, 0.0, -1.0, np.nan, np.inf])
def test_a_depth_that_cannot_be_spelled_is_refused_with_the_range(value: float) -> None:
    number = NumberFormat(2, 3)
    assert not number.covers(np.array([value]))[0]
    with pytest.raises(BadInput, match=r"expected 0.001 to 99.999") as problem:
        number.spell(np.array([value]))
    assert problem.value.reason == "out_of_range"


def test_other_widths_have_their_own_range() -> None:
    number = NumberFormat(3, 2)
    assert number.text(123.4) == "123.40"
    assert number.largest == pytest.approx(999.99)
    assert number.covers(np.array([250.0, 1000.0])).tolist() == [True, False]


def test_a_tokenizer_that_splits_digits_badly_is_refused() -> None:
    with pytest.raises(ValueError, match="splits '0' into 2 tokens"):
        Vocabulary.of(lambda text: [1, 2])


def test_the_tiny_tokenizer_knows_every_word_of_the_prompts() -> None:
    tiny_model = random_model()
    vocabulary, tokenizer = tiny_model.vocabulary, tiny_model.tokenizer
    before, after = vocabulary.prefix()
    literal = vocabulary.pixel_question(12, 345, "04.230")
    unknown = tokenizer.convert_tokens_to_ids("<unk>")
    assert unknown not in [*before, *after, *literal, *vocabulary.pixel_question(0, 0, None)]
    assert vocabulary.image_pad == tokenizer.convert_tokens_to_ids(IMAGE_PAD)
    spelled = tokenizer.convert_ids_to_tokens(literal)
    assert "".join(spelled).count("04.230") == 1
    assert [t for t in spelled if t.isdigit()][:5] == ["1", "2", "3", "4", "5"]

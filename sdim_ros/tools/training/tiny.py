"""The small vocabulary and sizes of the tiny model, in the classes of the 3B."""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from sdim_ros.core import prompts


def write_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json``: whole words of our own prompts, every digit a token.

    Line breaks and spaces are not tokens: the tiny model needs no punctuation of a chat.
    """
    texts = (prompts.INSTRUCTION, prompts.QUESTION, prompts.PIXEL, prompts.MASK_0,
             prompts.MASK_1, prompts.ANSWER, prompts.ANSWER_END, "user assistant")
    words = sorted(set(re.findall(r"[A-Za-z]+|[.,:?;]", " ".join(texts))))
    vocabulary = {w: i for i, w in enumerate(["<unk>", *prompts.DIGITS, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Punctuation()])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in (
        "<|im_start|>", "<|im_end|>", prompts.IMAGE_START, prompts.IMAGE_PAD,
        prompts.IMAGE_END)])
    tokenizer.save(str(folder / "tokenizer.json"))

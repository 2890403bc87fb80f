"""Low-rank adaptation (LoRA) of the language model, by peft; the vision model stays as it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sdim_ros.core.model import SdimModel

# The vision model's MLP has the same layer names, so a list of names would adapt it as well.
TARGETS = (r".*language_model\.layers\.({layers})\."
           r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Sizes of the adaptation: every adapted matrix becomes ``W + alpha / rank * B A``.

    Attributes:
        rank: inner size of ``B A``.
        alpha: its weight, times the rank.
        dropout: share of the inputs of ``A`` that is dropped in training.
    """

    rank: int = 32
    alpha: float = 64.0
    dropout: float = 0.0


def add_lora(model: SdimModel, settings: LoraSettings, last_layers: int | None = None) -> None:
    """Put the low-rank matrices beside those of the language model, in place.

    ``B`` starts at 0, so the model's answers do not change.

    Args:
        last_layers: adapt so many of the last layers; None = all.
    """
    # Imported here: it takes a second, and a model without LoRA does not need it.
    from peft import LoraConfig, inject_adapter_in_model

    layers = range(len(model.qwen.model.language_model.layers))
    chosen = layers if last_layers is None else layers[-last_layers:]
    inject_adapter_in_model(LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
        target_modules=TARGETS.format(layers="|".join(map(str, chosen)))), model.qwen)


def merge_lora(model: SdimModel) -> None:
    """Add ``B A`` to the matrices and take the layers of peft away, in place.

    The merged model needs no more time and memory than the plain one. Its answers are equal up
    to the rounding of its number type.
    """
    if not lora_parameters(model):
        return
    from peft.tuners.lora import LoraLayer

    for parent in list(model.qwen.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                child.merge()
                setattr(parent, name, child.get_base_layer())


def is_lora(name: str) -> bool:
    """Whether a tensor of the model's state belongs to the adaptation."""
    return ".lora_A." in name or ".lora_B." in name


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The adaptation's own parameters by name."""
    return {name: p for name, p in model.named_parameters() if is_lora(name)}


def learning_parameters(model: SdimModel, parts: str, lora: LoraSettings, last_layers: int
                        ) -> dict[str, nn.Parameter]:
    """The parameters of these parts by name; no gradient is asked of any, theirs neither.

    Args:
        parts: of the model, joined by ``+``; with ``lora`` among them LoRA is put in.
        last_layers: of the language model, which LoRA adapts.
    """
    if "lora" in parts:
        add_lora(model, lora, last_layers)
    starts = tuple(f"{part}." for part in parts.split("+"))
    chosen = {name: p for name, p in model.named_parameters()
              if name.startswith(starts) or ("lora" in parts and is_lora(name))}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return chosen

"""Transformers, built from configurations of the transformers library with random weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

# transformers takes seconds to import, so each builder imports it when it is called.

Built = tuple[torch.nn.Module, dict[str, torch.Tensor]]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes that the configurations have in common; `width` is the hidden size, `length` the number of
    tokens.
    """

    layers: int
    width: int
    heads: int
    batch: int
    length: int
    vocabulary: int


SHAPES = {
    "tiny": Shape(layers=4, width=16, heads=2, batch=2, length=4, vocabulary=32),
    "test": Shape(layers=2, width=128, heads=4, batch=2, length=24, vocabulary=512),
    "bench": Shape(layers=4, width=256, heads=8, batch=2, length=128, vocabulary=4096),
}


class Fields(torch.nn.Module):
    """Calls a model of transformers and returns some fields of its answer as a plain dict of tensors."""

    def __init__(self, model: torch.nn.Module, *fields: str, **fixed: Any) -> None:
        super().__init__()
        self.model = model
        self.fields = fields
        self.fixed = fixed

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        answer = self.model(**inputs, **self.fixed)
        return {field: getattr(answer, field) for field in self.fields}


class Loss(torch.nn.Module):
    """Calls a model of transformers and returns its loss."""

    def __init__(self, model: torch.nn.Module, **fixed: Any) -> None:
        super().__init__()
        self.model = model
        self.fixed = fixed

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.model(**inputs, **self.fixed).loss
        return loss


def _tokens(shape: Shape) -> torch.Tensor:
    return torch.randint(0, shape.vocabulary, (shape.batch, shape.length))


def _padding(shape: Shape) -> torch.Tensor:
    """An attention mask in which the last row is a third shorter than the others."""
    mask = torch.ones(shape.batch, shape.length, dtype=torch.int64)
    mask[-1, shape.length - shape.length // 3 :] = 0
    return mask


def bert(size: str) -> Built:
    """BERT encoder with padding."""
    from transformers import BertConfig, BertModel

    s = SHAPES[size]
    config = BertConfig(
        vocab_size=s.vocabulary,
        hidden_size=s.width,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        intermediate_size=4 * s.width,
        max_position_embeddings=max(s.length, 8),
    )
    model = Fields(BertModel(config), "last_hidden_state", "pooler_output")
    return model, {"input_ids": _tokens(s), "attention_mask": _padding(s)}


def _gpt2_config(s: Shape) -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=s.vocabulary,
        n_embd=s.width,
        n_layer=s.layers,
        n_head=s.heads,
        n_positions=max(s.length, 64),
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        # named, because the library warns, and breaks the graph, where it has to guess
        loss_type="ForCausalLM",
        bos_token_id=0,
        eos_token_id=1,
    )


def gpt2(size: str) -> Built:
    """GPT-2 with its language modelling head."""
    from transformers import GPT2LMHeadModel

    s = SHAPES[size]
    return Fields(GPT2LMHeadModel(_gpt2_config(s)), "logits", use_cache=False), {"input_ids": _tokens(s)}


def gpt2_loss(size: str) -> Built:
    """GPT-2's language modelling loss, without dropout."""
    from transformers import GPT2LMHeadModel

    s = SHAPES[size]
    tokens = _tokens(s)
    return Loss(GPT2LMHeadModel(_gpt2_config(s)), use_cache=False), {
        "input_ids": tokens,
        "labels": tokens.clone(),
    }


def llama(size: str) -> Built:
    """Llama with grouped-query attention: RMS norm, rotary embeddings, gated SiLU."""
    from transformers import LlamaConfig, LlamaForCausalLM

    s = SHAPES[size]
    config = LlamaConfig(
        vocab_size=s.vocabulary,
        hidden_size=s.width,
        intermediate_size=(8 * s.width // 3 + 7) // 8 * 8,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        num_key_value_heads=s.heads // 2,
        max_position_embeddings=max(s.length, 64),
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    return Fields(LlamaForCausalLM(config), "logits", use_cache=False), {"input_ids": _tokens(s)}


def t5(size: str) -> Built:
    """T5, encoder and decoder: relative position buckets, cross attention, no biases."""
    from transformers import T5Config, T5ForConditionalGeneration

    s = SHAPES[size]
    config = T5Config(
        vocab_size=s.vocabulary,
        d_model=s.width,
        d_kv=s.width // s.heads,
        d_ff=4 * s.width,
        num_layers=max(1, s.layers // 2),
        num_heads=s.heads,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    model = Fields(T5ForConditionalGeneration(config), "logits", use_cache=False)
    return model, {"input_ids": _tokens(s), "attention_mask": _padding(s), "decoder_input_ids": _tokens(s)}


def _vit_config(size: str) -> Any:
    from transformers import ViTConfig

    s = SHAPES[size]
    return ViTConfig(
        image_size=PICTURES[size],
        patch_size=8,
        num_channels=3,
        hidden_size=s.width,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        intermediate_size=4 * s.width,
        num_labels=10,
        # left out, the first call writes it, and the second one is compiled again
        problem_type="single_label_classification",
    )


PICTURES = {"tiny": 16, "test": 48, "bench": 96}


def _pictures(size: str) -> torch.Tensor:
    return torch.randn(SHAPES[size].batch, 3, PICTURES[size], PICTURES[size])


def vit(size: str) -> Built:
    """Vision transformer, classifying."""
    from transformers import ViTForImageClassification

    return Fields(ViTForImageClassification(_vit_config(size)), "logits"), {"pixel_values": _pictures(size)}


def vit_loss(size: str) -> Built:
    """The classification loss of a vision transformer."""
    from transformers import ViTForImageClassification

    pictures = _pictures(size)
    labels = torch.randint(0, 10, (pictures.shape[0],))
    return Loss(ViTForImageClassification(_vit_config(size))), {"pixel_values": pictures, "labels": labels}

"""Where attention goes that looks at nothing: prefix tokens and sinks."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Sink", "prefix_share", "strongest_sink"]


class Sink(NamedTuple):
    """The key that the queries of a head attend to most."""

    token: Tensor  # int64 (B, H), its place among the keys, prefix tokens first
    share: Tensor  # (B, H) in [0, 1], the mean of its weight over the queries
    value_norm: Tensor | None  # (B, H), the norm of its value as a multiple of the mean norm of all values


def prefix_share(attn: Tensor, num_prefix_tokens: int) -> Tensor:
    """Return the share of attention that goes to class, register and distillation tokens, averaged over the queries.

    mean over i of sum over prefix keys j of attn[i, j]

    Args:
        attn: (B, H, Nq, Nk), floating; prefix tokens first.
        num_prefix_tokens: how many.

    Returns:
        (B, H) in [0, 1] for rows that sum to 1.

    Source: Darcet et al., "Vision transformers need registers", 2024 (arXiv 2309.16588), where registers collect it.
    """
    return attn[..., :num_prefix_tokens].sum(-1).mean(-1)


def strongest_sink(attn: Tensor, value: Tensor | None = None) -> Sink:
    """Return the key that the queries of each head attend to most, and how long its value is.

    token = argmax over j of the mean over i of attn[i, j];  value_norm = |value[token]| / mean over j of |value[j]|

    A sink takes much attention and gives little: a large share with a small value.

    Args:
        attn: (B, H, Nq, Nk), floating.
        value: (B, H, Nk, D), what the maps are multiplied with, if known.

    Returns:
        A Sink.

    Source: Xiao et al., "Efficient streaming language models with attention sinks", 2024 (arXiv 2309.17453); small
    values of sinks: Gu et al., "When attention sink emerges", 2025 (arXiv 2410.10781).
    """
    weight = attn.mean(-2)
    share, token = weight.max(-1)
    if value is None:
        return Sink(token, share, None)
    norms = torch.linalg.vector_norm(value.to(attn.dtype), dim=-1)
    own = norms.gather(-1, token[..., None]).squeeze(-1)
    return Sink(token, share, own / norms.mean(-1))

"""Small models with one planted bug each, of kinds that libraries have had, and what an audit must say of it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BUGS", "RIGHT"]

WIDTH, HEADS = 16, 2


class Attention(nn.Module):
    """Self-attention as most libraries write it, right in itself: bugs override a method or two."""

    def __init__(self, dropout=0.2):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.attn_drop = dropout

    def heads(self, x):
        return self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        return self.proj(self.attend(*self.heads(x)).transpose(1, 2).flatten(2))

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop if self.training else 0.0)


class DropsInEvaluation(Attention):
    """The rate goes to torch's attention whatever the mode."""

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop)


class NeverApplied(Attention):
    """The rate is stored and forgotten."""

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


class NeverCalled(Attention):
    """A dropout module is made and never called."""

    def __init__(self):
        super().__init__(0.0)
        self.attn_drop = nn.Dropout(0.2)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


class AnotherRate(Attention):
    """The rate of the call is a constant, another than the attribute's."""

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.5 if self.training else 0.0)


class KeepForDrop(Attention):
    """The chance of keeping is passed where that of dropping is wanted."""

    def attend(self, q, k, v):
        weights = F.softmax(q @ k.transpose(-2, -1), -1)
        return F.dropout(weights, 1 - self.attn_drop, self.training) @ v


class NoTrainingFlag(nn.Module):
    """``F.dropout(x, p)`` is on by default."""

    def __init__(self):
        super().__init__()
        self.fc, self.dropout = nn.Linear(WIDTH, WIDTH), 0.2

    def forward(self, x):
        return F.dropout(self.fc(x), self.dropout)


class InAPlainList(nn.Module):
    """A dropout that no module has registered never hears of ``eval()``."""

    def __init__(self):
        super().__init__()
        self.fc, self.parts = nn.Linear(WIDTH, WIDTH), [nn.Dropout(0.2)]

    def forward(self, x):
        return self.parts[0](self.fc(x))


class TrainOverridden(nn.Sequential):
    """``train`` forgets the parts, which stay in evaluation mode once they are."""

    def __init__(self):
        super().__init__(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.2))
        super().train(False)

    def train(self, mode=True):
        self.training = mode
        return self


class EvalOverridden(nn.Sequential):
    """``train(False)`` is not handed down: the parts stay in training mode."""

    def __init__(self):
        super().__init__(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.2))

    def train(self, mode=True):
        if mode:
            return super().train(True)
        self.training = False
        return self


class HandWritten(nn.Module):
    """A dropout of one's own; bugs override ``masked``."""

    def __init__(self):
        super().__init__()
        self.fc, self.dropout = nn.Linear(WIDTH, WIDTH), 0.2

    def forward(self, x):
        x = self.fc(x)
        return self.masked(x) if self.training else x

    def masked(self, x):
        return x * (torch.rand_like(x) >= self.dropout) / (1 - self.dropout)


class NotScaled(HandWritten):
    """What is kept is not scaled up."""

    def masked(self, x):
        return x * (torch.rand_like(x) >= self.dropout)


class WrongShare(HandWritten):
    """Random numbers of another distribution than the threshold is meant for."""

    def masked(self, x):
        return x * (torch.randn_like(x) >= self.dropout) / (1 - self.dropout)


class OneMask(HandWritten):
    """Reseeded in every pass."""

    def masked(self, x):
        torch.manual_seed(0)
        return super().masked(x)


class HandWrittenWithoutGuard(HandWritten):
    """No look at the mode."""

    def forward(self, x):
        return self.masked(self.fc(x))


class DropPathOfDroprate(nn.Module):
    """Drop path whose chances of keeping and of dropping are exchanged."""

    def __init__(self, drop_prob=0.1):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if not self.training:
            return x
        mask = torch.empty(x.shape[0], 1, 1, device=x.device).bernoulli_(self.drop_prob)
        return x * mask / self.drop_prob


class PathInBlock(nn.Module):
    """A residual block with a drop path of one's own."""

    def __init__(self, path):
        super().__init__()
        self.fc, self.drop_path = nn.Linear(WIDTH, WIDTH), path

    def forward(self, x):
        return x + self.drop_path(self.fc(x))


class AddsNothing(Attention):
    """The commonest copy of DropKey on the public web."""

    def attend(self, q, k, v):
        logits = q @ k.transpose(-2, -1)
        if self.training:
            logits = logits + torch.bernoulli(torch.full_like(logits, self.attn_drop)) * -1e-12
        return logits.softmax(-1) @ v


class AddsMuch(AddsNothing):
    """The paper's two lines, right."""

    def attend(self, q, k, v):
        logits = q @ k.transpose(-2, -1)
        if self.training:
            logits = logits + torch.bernoulli(torch.full_like(logits, self.attn_drop)) * -1e12
        return logits.softmax(-1) @ v


class MasksLogits(AddsNothing):
    """The same by a comparison and ``masked_fill``."""

    def attend(self, q, k, v):
        logits = q @ k.transpose(-2, -1)
        if self.training:
            logits = logits.masked_fill(torch.rand_like(logits) < self.attn_drop, -torch.inf)
        return logits.softmax(-1) @ v


class DropsChoosing(HandWritten):
    """Right, by ``torch.where``."""

    def masked(self, x):
        keep = torch.rand(x.shape) > self.dropout
        return torch.where(keep, x / (1 - self.dropout), torch.zeros(()))


class DropsByIndex(HandWritten):
    """Right, by assignment at a mask."""

    def masked(self, x):
        x = x / (1 - self.dropout)
        x[torch.rand(x.shape) < self.dropout] = 0
        return x


class RightPath(DropPathOfDroprate):
    """Right, with the floor of a shifted random number as its mask."""

    def forward(self, x):
        if not self.training:
            return x
        keep = 1 - self.drop_prob
        mask = (keep + torch.rand(x.shape[0], 1, 1)).floor_()
        return x.div(keep) * mask


# What the one line about the bug contains; the model's own name for the place comes before it.
BUGS: dict[str, tuple[type[nn.Module] | nn.Module, str]] = {
    "torch's attention drops in evaluation": (DropsInEvaluation, "the model itself): acts in evaluation"),
    "rate never applied": (NeverApplied, "states attn_drop = 0.2 and never applies it"),
    "module never called": (NeverCalled, "attn_drop: never runs"),
    "another rate": (AnotherRate, "drops at a rate of 0.5, but attn_drop says 0.2"),
    "keep for drop": (KeepForDrop, "drops at a rate of 0.8, but attn_drop says 0.2"),
    "F.dropout without its flag": (NoTrainingFlag, "the model itself): acts in evaluation"),
    "registered nowhere": (InAPlainList, "acts in evaluation: it is registered in no module"),
    "train() not handed down": (TrainOverridden, "it is in evaluation mode while the model is in training mode"),
    "eval() not handed down": (EvalOverridden, "it is in training mode while the model is in evaluation mode"),
    "not scaled": (NotScaled, "multiplies what it keeps by 1, not by 1 / (1 - 0.2"),
    "share of another distribution": (WrongShare, "drops a share of 0.5"),
    "one mask for all passes": (OneMask, "draws the same mask in every pass"),
    "by hand, without a guard": (HandWrittenWithoutGuard, "acts in evaluation"),
    "drop path kept and dropped exchanged": (
        PathInBlock(DropPathOfDroprate()),
        "drop_path: drops at a rate of 0.9, but drop_prob says 0.1",
    ),
    "-1e-12 for -1e12": (AddsNothing, "adds -1e-12 to the logits, which hides no key"),
}

RIGHT: dict[str, tuple[type[nn.Module] | nn.Module, str, float]] = {
    "torch's attention": (Attention, "attention dropout", 0.2),
    "by hand, multiplied": (HandWritten, "dropout", 0.2),
    "by hand, where": (DropsChoosing, "dropout", 0.2),
    "by hand, indexed": (DropsByIndex, "dropout", 0.2),
    "drop path": (PathInBlock(RightPath()), "drop path", 0.1),
    "the paper's two lines": (AddsMuch, "keys before softmax", 0.2),
    "masked logits": (MasksLogits, "keys before softmax", 0.2),
    "channels": (nn.Sequential(nn.Conv1d(32, WIDTH, 1), nn.Dropout1d(0.3)), "channel dropout", 0.3),
    "alpha": (nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SELU(), nn.AlphaDropout(0.3)), "dropout", 0.3),
    "in place": (nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.3, inplace=True)), "dropout", 0.3),
    "multi-head": (nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.3, batch_first=True), "attention dropout", 0.3),
}


def built(model: type[nn.Module] | nn.Module) -> nn.Module:
    """Return a model of a class, or the model itself."""
    torch.manual_seed(0)
    return model() if isinstance(model, type) else model


def tokens() -> Tensor:
    """Return what all of them take."""
    return torch.randn(8, 32, WIDTH, generator=torch.Generator().manual_seed(1))

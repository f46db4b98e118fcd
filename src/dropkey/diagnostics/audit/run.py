"""``dropkey.audit``."""

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dropkey.adapters.names import unwrapped_names
from dropkey.arguments import check_model
from dropkey.diagnostics.audit.drop import Drop
from dropkey.diagnostics.audit.evidence import Evidence
from dropkey.diagnostics.audit.judgement import judge
from dropkey.diagnostics.audit.passes import WatchedPass, observe, probe, untouched
from dropkey.diagnostics.audit.regularizers import findings_at, sites_that_drop
from dropkey.diagnostics.audit.result import Audit
from dropkey.errors import ArgumentError

__all__ = ["audit"]

_ENOUGH = 2000  # draws: a rate of 0.1 is then known to 0.04


def audit(model: nn.Module, *inputs: Any, **kwargs: Any) -> Audit:
    """Find every dropout, drop path, attention dropout and DropKey of a model, and see whether it does what it says.

    The model runs three times without gradients, twice in training mode and once in evaluation mode. What is drawn at
    random is followed below all libraries until it drops something, so that dropout written by hand is found as well.
    Judged is, for each place: does it act in training, is it silent in evaluation, is the measured rate the one that
    an attribute states, are kept values scaled to match, is every mask new. A module whose attribute states a rate
    that nothing applies is a problem.

    Modes, buffers, gradients and all random states are afterwards as before. Not seen: kernels that drop inside and
    name no rate, and randomness of Python's or NumPy's own.

    Args:
        model: any module, applied to or not; a compiled one runs uncompiled.
        inputs: what its forward takes, two images or more.
        kwargs: the same, by name.

    Returns:
        An ``Audit``: ``print`` it for a table; ``ok``, ``problems`` and ``findings`` for programs.

    Raises:
        ArgumentError: inputs without an element.

    Example:
        >>> import torch, dropkey
        >>> layer = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.2))
        >>> dropkey.audit(layer, torch.zeros(2, 1000, 8)).ok
        True
    """
    check_model(model)
    tensors = [leaf for leaf in tree_leaves((inputs, kwargs)) if isinstance(leaf, Tensor)]
    if tensors and not any(tensor.numel() for tensor in tensors):
        raise ArgumentError("audit measures what is dropped of its inputs; these are empty: pass two images or more")
    sites = sites_that_drop(model)
    with untouched(model):
        model.train()
        fused = any(parameter.device.type != "cpu" for parameter in model.parameters())
        training = [observe(lambda: model(*inputs, **kwargs), sites, written_out=fused) for _ in range(2)]
        probes = _probes(training)
        model.eval()
        evaluation = observe(lambda: model(*inputs, **kwargs), sites)
        ours = findings_at(model, sites, training[0], evaluation)
    found, notes = judge(Evidence(model, training, evaluation, probes))
    order = {name or "(the model itself)": place for place, name in enumerate(unwrapped_names(model).values())}
    findings = sorted([*found, *ours], key=lambda finding: order.get(finding.module, len(order)))
    return Audit(type(model).__name__, findings, notes)


def _probes(training: list[WatchedPass]) -> dict[nn.Module, list[Drop]]:
    """Run modules by themselves that have dropped, but too little to measure it."""
    draws: dict[nn.Module, int] = {}
    for drop in (drop for seen in training for drop in seen.drops):
        if drop.owner is not None:
            draws[drop.owner] = draws.get(drop.owner, 0) + drop.draws
    inputs = {module: tensor for seen in training for module, tensor in seen.running.inputs.items()}
    probes = {}
    for module, count in draws.items():
        is_leaf = next(module.parameters(), None) is None and next(module.children(), None) is None
        if is_leaf and 0 < count < _ENOUGH and module in inputs:
            try:
                probes[module] = probe(module, inputs[module])
            except Exception:  # it takes inputs of one shape alone: what it did in the model has to do
                continue
    return probes

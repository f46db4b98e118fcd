"""Everything that was seen of a model, by module."""

from collections.abc import Sequence

from torch import nn

from dropkey.adapters.names import shown, unwrapped_names
from dropkey.diagnostics.audit.declared import is_dropper
from dropkey.diagnostics.audit.drop import Drop
from dropkey.diagnostics.audit.passes import WatchedPass
from dropkey.diagnostics.audit.tally import Tally, by_owner

__all__ = ["Evidence", "is_judged"]


class Evidence:
    """What passes in training and one in evaluation have shown.

    Args:
        model: that was run.
        training: passes in training mode.
        evaluation: a pass in evaluation mode.
        probes: drops of modules that were also run by themselves.
    """

    def __init__(
        self,
        model: nn.Module,
        training: Sequence[WatchedPass],
        evaluation: WatchedPass,
        probes: dict[nn.Module, list[Drop]],
    ) -> None:
        self.model, self._training, self._evaluation = model, training, evaluation
        self._in_training = by_owner(drop for seen in training for drop in seen.drops)
        self._in_evaluation = by_owner(evaluation.drops)
        self._probes = {module: tallies[0] for module, drops in probes.items() if (tallies := _all_of(drops))}
        self._names = unwrapped_names(model)
        self._parents = {child: parent for parent in model.modules() for child in parent.children()}
        for seen in (*training, evaluation):
            for module, parent in seen.running.parents.items():
                if module not in self._names and parent is not None:
                    self._parents.setdefault(module, parent)

    def modules(self) -> list[nn.Module]:
        """Return the modules of the model, and after them those that ran without being registered in it."""
        ran = [module for seen in (*self._training, self._evaluation) for module in seen.running.parents]
        return list(dict.fromkeys([*self._names, *ran]))

    def name(self, module: nn.Module) -> str:
        """Return a module's path, or where an unregistered one ran."""
        if module in self._names:
            return shown(self._names[module])
        parent = self._parents.get(module)
        place = "" if parent is None else f"in {self.name(parent)}, "
        return f"{type(module).__name__} ({place}not registered)"

    def is_registered(self, module: nn.Module) -> bool:
        """Say whether ``model.eval()`` can reach a module."""
        return module in self._names

    def ran(self, module: nn.Module) -> bool:
        """Say whether a module's forward ran in training."""
        return any(module in seen.running.modes for seen in self._training)

    def trained(self, module: nn.Module) -> bool:
        """Say whether a module was in training mode while the model was."""
        return all(seen.running.modes.get(module, True) for seen in self._training)

    def evaluated(self, module: nn.Module) -> bool:
        """Say whether a module was in evaluation mode while the model was."""
        return not self._evaluation.running.modes.get(module, False)

    def user_of(self, module: nn.Module) -> nn.Module | None:
        """Return the module around one that did not run which ran itself, and might use what it states."""
        around = self._parents.get(module)
        while isinstance(around, nn.ModuleList | nn.ModuleDict):
            around = self._parents.get(around)
        return around if around is not None and self.ran(around) else None

    def in_training(self, module: nn.Module) -> list[Tally]:
        """Return what a module's own forward dropped in training."""
        return self._in_training.get(module, [])

    def below(self, module: nn.Module) -> list[Tally]:
        """Return what anything inside of a module dropped in training, itself included."""
        return [
            tally
            for owner, tallies in self._in_training.items()
            if owner is not None and self._is_inside(owner, module)
            for tally in tallies
        ]

    def in_evaluation(self, module: nn.Module) -> list[Tally]:
        """Return what a module's own forward dropped in evaluation."""
        return [tally for tally in self._in_evaluation.get(module, []) if tally.acts and is_judged(module, tally)]

    def measured(self, module: nn.Module, tally: Tally) -> Tally:
        """Return what measures a rate best: the module by itself if it was probed, or what it did in the model."""
        probe = self._probes.get(module)
        return probe if probe is not None and probe.draws > tally.draws else tally

    def repeats(self, module: nn.Module, tally: Tally) -> bool:
        """Say whether the masks of two passes were the same, where chance cannot make them so."""
        share, draws = tally.share or 0.0, tally.draws // max(1, len(self._training))
        if (share**2 + (1 - share) ** 2) ** draws > 1e-9:
            return False
        marks = [
            [drop.fingerprint for drop in seen.drops if drop.owner is module and drop.fingerprint is not None]
            for seen in self._training
        ]
        return len(marks) > 1 and bool(marks[0]) and all(mark == marks[0] for mark in marks)

    def is_left_out(self, module: nn.Module, user: nn.Module) -> bool:
        """Say whether a part that did not run is left out for a reason: drop path in a block without a shortcut.

        So it is where another module of the user's class runs the same part, and where the user says (as timm's
        convolutional blocks do) that it has no shortcut.
        """
        if getattr(user, "has_skip", True) is False:
            return True
        name = next((name for name, part in user.named_modules() if part is module), "")
        siblings = [other for other in self._names if type(other) is type(user) and other is not user]
        parts = [dict(other.named_modules()).get(name) for other in siblings]
        return any(part is not None and self.ran(part) for part in parts)

    def _is_inside(self, module: nn.Module | None, outer: nn.Module) -> bool:
        while module is not None and module is not outer:
            module = self._parents.get(module)
        return module is outer


def is_judged(module: nn.Module, tally: Tally) -> bool:
    """Say whether random numbers in a module are a dropout's, or may be there for anything else."""
    return is_dropper(module) or (tally.kind not in ("other", "selection") and (tally.draws > 0 or bool(tally.rate)))


def _all_of(drops: Sequence[Drop]) -> list[Tally]:
    return [Tally(drops)] if drops and all(drop.kind == drops[0].kind for drop in drops) else []

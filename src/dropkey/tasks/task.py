"""What a task is: all that the commands ask, and nothing that a run needs."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import nn

from dropkey.adapters.handle import Handle
from dropkey.data.batches import RunData
from dropkey.data.seeds import seed_all
from dropkey.errors import ArgumentError, RunError
from dropkey.runs.config import RunConfig
from dropkey.runs.measure import Measure
from dropkey.runs.module import RunModule
from dropkey.runs.options import check_values, defaults_of, known_options, refuse_idle
from dropkey.runs.prepared import Prepared
from dropkey.runs.regularizer_options import pattern_defaults
from dropkey.runs.run_folder import fresh_run_folder
from dropkey.tasks.evaluation import EvaluationOptions

__all__ = ["Built", "Task"]

Config = TypeVar("Config", bound=RunConfig)
Source = TypeVar("Source")


@dataclass(frozen=True)
class Built:
    """A network with its regularizer, and what the user should know of it, one line each."""

    network: nn.Module
    handle: Handle | None
    notes: Sequence[str] = ()


class Task(ABC, Generic[Config, Source]):
    """Base of the tasks.

    Attributes:
        name: what ``--task`` calls it.
        config_class: the shared options and those of its own.
        evaluation_class: options of ``dropkey evaluate`` for its runs.
        measures: what its module measures, the headline first: columns of metrics.csv, summary.json and tables.
        has_examples: whether ``dropkey compare`` writes a page of examples.
    """

    name: ClassVar[str]
    config_class: type[Config]
    evaluation_class: type[EvaluationOptions] = EvaluationOptions
    measures: ClassVar[Sequence[Measure]]
    has_examples: ClassVar[bool] = False

    @abstractmethod
    def recipe(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value of every option whose default depends on others, for what is given."""

    @abstractmethod
    def load_source(self, config: Config) -> Source:
        """Return the data, or raise a DropKeyError that says what is missing."""

    @abstractmethod
    def build(self, config: Config, source: Source, *, fresh: bool) -> Built:
        """Build the network and apply the regularizer.

        Args:
            config: options of the run.
            source: the data.
            fresh: start from the weights that the options name; False where a checkpoint will be loaded.
        """

    @abstractmethod
    def batches(self, config: Config, source: Source, network: nn.Module) -> RunData:
        """Return the data as batches for this network."""

    @abstractmethod
    def module(self, config: Config, source: Source, built: Built) -> RunModule:
        """Return what Lightning trains."""

    @abstractmethod
    def trial(self, config: Config, batch_size: int) -> tuple[nn.Module, dict[str, Any]]:
        """Return an untrained network without regularizer, and random inputs by name (positional: ""), without data."""

    @abstractmethod
    def evaluate(self, trained: Prepared, options: Any) -> dict[str, Any]:
        """Return everything that ``dropkey evaluate`` measures, as plain data."""

    @abstractmethod
    def table(self, result: Mapping[str, Any]) -> str:
        """Return what ``dropkey evaluate`` prints of its result."""

    @abstractmethod
    def save_predictions(self, trained: Prepared, path: Path) -> None:
        """Write what the model predicts for the validation data, in the usual format of the field."""

    def examples(self, trained: Mapping[str, Prepared]) -> str:
        """Return an HTML page of what models do on some validation data, side by side; asked for if ``has_examples``.

        Args:
            trained: models on the same data, by the names that the page shows.
        """
        raise NotImplementedError

    def page(self, trained: Prepared, result: Mapping[str, Any]) -> str | None:
        """Return an HTML page about what was evaluated, with examples, or None where there is none."""
        return None

    def load_named(self, name: str, options: Any) -> Prepared:
        """Return a trained model that is not of a run, by its name."""
        raise ArgumentError(f"no folder {name}: {self.name} evaluates the folder of a run")

    def resolve(self, given: Mapping[str, Any], asked: Collection[str] = ()) -> Config:
        """Return the config of a run: what is given, and the recipe for the rest.

        Args:
            given: values by the names of the options.
            asked: names of those that must act.

        Raises:
            ArgumentError: an unknown option, a value that cannot be, or an option that would not act.
        """
        known_options(self.config_class, given, "the config")
        check_values(self.config_class, given)
        recipe = {"task": self.name, **pattern_defaults(given), **self.recipe(given)}
        values = {**defaults_of(self.config_class), **recipe, **given}
        values["output"] = values["output"] or str(fresh_run_folder(_stem(values)).root)
        config = self.config_class(**values)
        refuse_idle(config, [name for name in given if name in asked])
        config.refuse_futile(asked)
        return config

    def read(self, saved: Mapping[str, Any], place: str = "the config") -> Config:
        """Return the config of a run from its config.yaml, also from one that an earlier version wrote.

        Raises:
            RunError: no run can use it; the message names the place where it is.
        """
        try:
            return self.resolve({name: value for name, value in saved.items() if value is not None})
        except ArgumentError as error:
            raise RunError(f"{place} cannot be used: {error}") from None

    def prepare(self, config: Config, *, fresh: bool = True) -> Prepared:
        """Load the data, build the network and apply the regularizer.

        Raises:
            DropKeyError: an option, a folder or a model that cannot be used.
        """
        source = self.load_source(config)
        seed_all(config.seed, "weights")
        built = self.build(config, source, fresh=fresh)
        data = self.batches(config, source, built.network)
        return Prepared(config, data, self.module(config, source, built), self.measures, built.notes)


def _stem(values: Mapping[str, Any]) -> str:
    return f"{values['data']}-{values['model']}-{values['regularizer']}-seed{values['seed']}"

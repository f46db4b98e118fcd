"""Options of ``dropkey evaluate`` that every task has."""

import dataclasses
from typing import Literal

from dropkey.runs.numbers import NonNegativeInt, PositiveInt
from dropkey.runs.options import Options, When, option

__all__ = ["OF_A_MODEL", "OF_A_RUN", "EvaluationOptions"]

OF_A_RUN = When("evaluated", "the folder of a run", lambda evaluated: evaluated == "a run", is_flag=False)
OF_A_MODEL = When("evaluated", "the name of a model", lambda evaluated: evaluated == "a model", is_flag=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Options):
    """What is evaluated, and where the results go."""

    evaluated: Literal["a run", "a model"] = "a run"
    checkpoint: Literal["last", "best"] = option("last", "which checkpoint of a run", group="model", when=(OF_A_RUN,))
    data_dir: str = option("", "folder of the data", group="data", takes="DIR", shown="the run's own")
    batch_size: int = option(64, "examples per pass", kind=PositiveInt)
    seed: int = option(0, "seed of everything random", kind=NonNegativeInt)
    output: str = option("", "JSON file for the results", takes="FILE", shown="evaluation.json in the folder of a run")
    save_predictions: str = option(
        "", "also write what the model predicts for the validation data to this file", takes="FILE"
    )

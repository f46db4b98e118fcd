"""Where runs run, as options that every command with several runs has."""

import dataclasses
from typing import TYPE_CHECKING

from dropkey.runs.numbers import NonNegative, PositiveInt
from dropkey.runs.options import Options, When, option

if TYPE_CHECKING:
    from dropkey.experiments.launcher import Launcher

__all__ = ["LaunchOptions", "launcher_of"]

_HERE = When("cluster", "left out", lambda cluster: not cluster)
_ON_A_CLUSTER = When("cluster", "given", bool)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchOptions(Options):
    """Where and how many at a time."""

    jobs: int = option(1, "runs in parallel", group="several runs", kind=PositiveInt, when=(_HERE,))
    cluster: str = option(
        "",
        "run on a Ray cluster: its address, or auto for the one started on this machine; --output must be on storage "
        "that all its nodes share",
        group="several runs",
        takes="ADDRESS",
    )
    cpus_per_run: int = option(
        1, "CPUs, and threads, of each run", group="several runs", kind=PositiveInt, when=(_ON_A_CLUSTER,)
    )
    gpus_per_run: float = option(
        1.0,
        "GPUs of each run, 0.25 for four runs on one",
        group="several runs",
        kind=NonNegative,
        when=(_ON_A_CLUSTER,),
        shown="1, or 0 where the cluster has none",
    )


def launcher_of(options: LaunchOptions) -> "Launcher":
    """Return what runs jobs where the options say."""
    if options.cluster:
        from dropkey.experiments.ray_cluster import RayCluster

        return RayCluster(options.cluster, options.cpus_per_run, options.gpus_per_run)
    if options.jobs > 1:
        from dropkey.experiments.processes import Processes

        return Processes(options.jobs)
    from dropkey.experiments.launcher import Serial

    return Serial()

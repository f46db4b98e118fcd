"""``dropkey evaluate`` of a mesh run: its options, all that is measured, and the table."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dropkey.errors import ArgumentError
from dropkey.runs.options import option
from dropkey.runs.prepared import Prepared
from dropkey.runs.run_folder import write_atomically
from dropkey.tasks.evaluation import EvaluationOptions
from dropkey.tasks.mesh.metrics import MPJPE, MPVE, PAMPJPE
from dropkey.tasks.mesh.pictures import sheet
from dropkey.tasks.mesh.predicting import PredictedBodies, mesh_of, predict
from dropkey.tasks.mesh.predictions import check_file
from dropkey.text_table import text_table

__all__ = ["MeshEvaluation", "measure", "table"]

_SHOWN = 4  # best and worst bodies of each kind in a picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshEvaluation(EvaluationOptions):
    """Options of ``dropkey evaluate`` for a mesh run."""

    pictures: str = option("", "also draw the best and the worst bodies to this PNG file", takes="FILE")
    beside: str = option("", "run folders whose bodies are drawn beside, separated by commas", takes="RUNS")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.save_predictions:
            check_file(self.save_predictions)
        if self.pictures and Path(self.pictures).suffix.lower() != ".png":
            raise ArgumentError(f"--pictures takes FILE.png, got {self.pictures!r}")
        if self.beside and not self.pictures:
            raise ArgumentError("--beside draws other runs into --pictures FILE.png: name that file too")


def measure(trained: Prepared, options: MeshEvaluation) -> dict[str, Any]:
    """Return everything that is measured, as plain data; draw the pictures that are asked for."""
    module, bodies = mesh_of(trained), predict(trained)
    topology = module.topology
    mean = torch.from_numpy(topology.mean_mm).expand_as(bodies.true_vertices_mm)
    mean_joints = module.network.joint_weights.cpu() @ mean
    result: dict[str, Any] = {"bodies": len(bodies.joints_mm)}
    result |= _errors(trained, bodies, bodies.vertices_mm, bodies.joints_mm)
    result["mean_body"] = _errors(trained, bodies, mean, mean_joints)
    per_joint = MPJPE(topology.num_joints, topology.hips)
    per_joint.update(bodies.joints_mm, bodies.true_joints_mm)
    result["MPJPE_by_joint"] = dict(zip(topology.joint_names, per_joint.per_point().tolist(), strict=True))
    if options.pictures:
        arms = {str(Path(trained.config.output).name): bodies} | _others(options)
        write_atomically(Path(options.pictures), sheet(trained, arms, _SHOWN))
    return result


def _others(options: MeshEvaluation) -> dict[str, PredictedBodies]:
    from dropkey.runs.run_folder import RunFolder
    from dropkey.tasks.loading import load_run

    folders = [Path(part.strip()) for part in options.beside.split(",") if part.strip()]
    return {
        str(folder): predict(load_run(RunFolder(folder), options.checkpoint, options.data_dir or None))
        for folder in folders
    }


def _errors(trained: Prepared, truth: PredictedBodies, vertices_mm: Tensor, joints_mm: Tensor) -> dict[str, float]:
    topology = mesh_of(trained).topology
    joints, aligned = MPJPE(topology.num_joints, topology.hips), PAMPJPE(topology.num_joints)
    joints.update(joints_mm, truth.true_joints_mm)
    aligned.update(joints_mm, truth.true_joints_mm)
    vertices = MPVE(topology.num_vertices, topology.hips)
    vertices.update(vertices_mm, joints_mm, truth.true_vertices_mm, truth.true_joints_mm)
    return {
        "MPJPE": float(joints.compute()),
        "PA-MPJPE": float(aligned.compute()),
        "MPVE": float(vertices.compute()),
    }


def table(result: Mapping[str, Any]) -> str:
    """Return what was measured as text."""
    names = ("MPJPE", "PA-MPJPE", "MPVE")
    mean = result["mean_body"]
    rows = [["millimeters", *names]]
    rows.append(["evaluation", *(f"{result[name]:.1f}" for name in names)])
    rows.append(["mean training body", *(f"{mean[name]:.1f}" for name in names)])
    rows.append(["share of the mean body's", *(f"{result[name] / mean[name]:.2f}" for name in names)])
    joints = [["joint", "MPJPE"]] + [[name, f"{value:.1f}"] for name, value in result["MPJPE_by_joint"].items()]
    return "\n".join([text_table(rows), "", text_table(joints), f"{result['bodies']} bodies"])

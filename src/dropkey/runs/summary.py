"""What is left of a run: summary.json."""

from typing import Any

from dropkey.adapters.handle import SiteInfo
from dropkey.runs.machine import machine
from dropkey.runs.prepared import Prepared
from dropkey.runs.record import EpochRecord

__all__ = ["summary_of"]


def summary_of(prepared: Prepared, record: EpochRecord) -> dict[str, Any]:
    """Return the summary of a run whose last epoch has ended."""
    config, headline, handle = prepared.config, prepared.headline, prepared.handle
    last, best = record.rows[-1], record.best
    finals = {f"final_val_{measure.name}": last[measure.val] for measure in prepared.measures}
    finals |= {f"final_train_{measure.name}": last[measure.clean_train] for measure in prepared.measures}
    return {
        "task": config.task,
        "measure": headline.name,
        "better": headline.better,
        "unit": headline.unit,
        "best": best[headline.val],
        "best_epoch": best["epoch"],
        "final": last[headline.val],
        "final_train": last[headline.clean_train],
        "generalization_gap": round(headline.gap(last), 6),
        f"best_val_{headline.name}": best[headline.val],
        **finals,
        "epochs": config.epochs,
        "train_seconds": round(record.train_seconds, 3),
        "images_per_second": round(record.num_images / record.step_seconds, 1),
        "num_parameters": sum(parameter.numel() for parameter in prepared.network.parameters()),
        "drop_ratios": [] if handle is None else handle.drop_ratios,
        "num_train": prepared.data.sizes["train"],
        "num_val": prepared.data.sizes["val"],
        "machine": machine(),
        "sites": [] if handle is None else [_site(site) for site in handle.sites],
        "seed": config.seed,
        "model": config.model,
        "data": config.data,
        "regularizer": config.regularizer,
    }


def _site(site: SiteInfo) -> dict[str, Any]:
    return {"name": site.name, "block": site.block_index, "drop_ratio": site.drop_ratio}

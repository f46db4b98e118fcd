"""``dropkey tune`` from its first trial to what it says: held-out seeds, going on, trials that diverge."""

import json

import numpy as np
import pytest
import yaml

from dropkey.cli import main
from dropkey.errors import DivergedError
from dropkey.experiments import job as module
from dropkey.experiments.tuning.search_file import SearchFile
from dropkey.runs.interruption import Interrupted

pytest.importorskip("optuna", reason="needs the extra tune")
pytestmark = pytest.mark.usefixtures("few_digits")

COMMAND = ["tune", "--epochs", "1", "--warmup-epochs", "0", "--model-kwargs", "depth=1"]
COMMAND += ["--trials", "3", "--check-seeds", "2"]


def summaries(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/summary.json"))}


def configs(root):
    return [yaml.safe_load(path.read_text()) for path in sorted(root.glob("*/config.yaml"))]


@pytest.fixture(scope="module")
def root(tmp_path_factory, few_digits):
    """A search that diverged in its second trial and was stopped in its third, and went on."""
    root, once = tmp_path_factory.mktemp("runs") / "search", module.run_once

    def run_once(config, watch):
        if config.seed == 1001:
            raise DivergedError("the loss is not finite at step 1")
        if config.seed == 1002:
            raise Interrupted
        return once(config, watch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_once", run_once)
        assert main([*COMMAND, "--regularizer", "dropkey", "--output", str(root)]) == 130
    SearchFile(root, SearchFile.__new__(SearchFile).__dict__ or yaml.safe_load((root / "search.yaml").read_text())["options"])
    assert main([*COMMAND, "--regularizer", "dropkey", "--output", str(root)]) == 0
    return root

"""Kills runs and resumes them, each in a fork of a process that has imported everything once.

``python kill_process.py FOLDER KILLS SEED`` prints one line of JSON: the number of kills and of whole runs, and which
runs have other metrics than one that was left alone.
"""

import csv
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from PIL import Image

from dropkey.cli import main
from dropkey.runs import training  # noqa: F401  now, and not in every fork
from dropkey.tasks.classification import task  # noqa: F401

TIMES = ("seconds", "train_seconds", "images_per_second")


def arguments(root, output):
    shape = ["--model", "vit_mini_patch2_8", "--model-kwargs", "depth=2", "embed_dim=16", "num_heads=2"]
    size = ["--epochs", "3", "--batch-size", "4", "--warmup-epochs", "0", "--save-seconds", "0", "--ema", "0.9"]
    data = ["--data", "folder", "--data-dir", str(root / "images"), "--workers", "0"]
    return ["train", *shape, *size, *data, "--output", str(output), "--resume"]


def images(root):
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            (root / "images" / split / name).mkdir(parents=True)
            for count in range(8):
                color = (90 * label, 20 * count, 7)
                Image.new("RGB", (8, 8), color).save(root / "images" / split / name / f"{count}.png")


def fork(words):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            code = main(words)
    finally:
        os._exit(code)


def outcome(output):
    with (output / "metrics.csv").open() as file:
        rows = [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]
    summary = json.loads((output / "summary.json").read_text())
    return rows, {name: value for name, value in summary.items() if name not in TIMES}


def finished(child, seconds):
    """Wait for a fork, and kill it after some seconds; say whether it had finished."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if os.waitstatus_to_exitcode(status):
                raise SystemExit(f"a resumed run failed with {os.waitstatus_to_exitcode(status)}")
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def play(root, wanted, seed):
    generator = random.Random(seed)
    images(root)
    start = time.monotonic()
    if not finished(fork(arguments(root, root / "alone")), 300):
        raise SystemExit("the run that was left alone never ended")
    length = time.monotonic() - start
    expected = outcome(root / "alone")
    kills = runs = 0
    different = []
    while kills < wanted:
        output = root / f"run-{runs}"
        while not finished(fork(arguments(root, output)), generator.uniform(0.0, 1.2 * length)):
            kills += 1
        if outcome(output) != expected:
            different.append(output.name)
        runs += 1
    return {"kills": kills, "runs": runs, "different": different}


if __name__ == "__main__":
    print(json.dumps(play(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))

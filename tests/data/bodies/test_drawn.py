"""Bodies as anny makes them and warp draws them: built from nothing, without a network."""

import os
import subprocess
import sys

import pytest

for package in ("anny", "warp", "roma"):
    pytest.importorskip(package, reason="bodies are made by anny and drawn by warp: pip install 'dropkey[mesh]'")

# Every way out is refused, also in what anny and warp start by themselves.
CODE = """
import hashlib, io, pathlib, socket, sys
def refuse(*arguments, **options):
    raise OSError("no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse

import numpy as np
from PIL import Image
from dropkey.data.bodies import source

source.CHUNK = 50
bodies = source.bodies(train=100, val=50, size=64)
digest = hashlib.sha256()
for part in (bodies.train, bodies.val):
    for index in range(len(part)):
        digest.update(part.files[index].tobytes() + part[index].vertices_mm.tobytes())
print("digest", digest.hexdigest())

vertices = bodies.train.vertices / 10
tall = np.ptp(vertices[..., 1], axis=1)
print("tall", tall.min(), tall.max())
off = np.linalg.norm(bodies.topology.joint_weights @ vertices - bodies.train.joints_mm, axis=-1).mean()
print("off", off)
edges = bodies.topology.faces[:, :2]
lengths = np.linalg.norm(vertices[:, edges[:, 0]] - vertices[:, edges[:, 1]], axis=-1)
rest = np.linalg.norm(bodies.topology.template_mm[edges[:, 0]] - bodies.topology.template_mm[edges[:, 1]], axis=-1)
print("stretched", np.quantile(lengths / rest, 0.999))
"""


def numbers(cache):
    environment = {**os.environ, "DROPKEY_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return {words[0]: words[1:] for words in lines if words[0] in ("digest", "tall", "off", "stretched")}, done.stderr


@pytest.mark.slow
def test_bodies_are_made_without_a_network_and_are_the_same_bits_again(tmp_path):
    first, said = numbers(tmp_path / "one")
    assert "anny builds its bodies, once" in said
    kept = [file for file in (tmp_path / "one").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in kept) < 100e6, "what anny makes on the way is not kept"
    assert not [file for file in kept if "noncommercial" in str(file)]
    low, high = map(float, first["tall"])
    assert 900 < low < high < 2500, "millimeters from head to foot; crouching and raised arms included"
    assert float(first["off"][0]) < 1.0, "joints are known from the surface within a millimeter"
    assert float(first["stretched"][0]) < 3.0, "no triangle is torn"

    anny = next((tmp_path / "one").rglob("anny"))
    (tmp_path / "two" / anny.relative_to(tmp_path / "one").parent).mkdir(parents=True)
    anny.rename(tmp_path / "two" / anny.relative_to(tmp_path / "one"))
    again, said = numbers(tmp_path / "two")
    assert "anny builds" not in said
    assert again == first, "another process draws the same bits"

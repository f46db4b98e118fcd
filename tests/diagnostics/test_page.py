"""The page as a file: what is in it, how large it is, and that nothing is lost in it but what it says."""

import base64
import json
import math
import re
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reports import of_vit, planted

import dropkey
from dropkey.diagnostics.page.coding import CODINGS
from dropkey.diagnostics.page.content import sites_of, stored
from dropkey.diagnostics.page.page import save


def data_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def weights_of(path, model, image, number):
    """The weights of one site in one image as the page's own code computes them, written down a second time."""
    data = data_of(path)
    site = data["models"][model]["sites"][number]
    packed = re.search(rf'id="m{model}-i{image}-s{number}">(.*?)</script>', path.read_text(encoding="utf-8"))[1]
    raw = zlib.decompress(base64.b64decode(packed), -15)
    heads, rows, prefix = site["heads"], site["rows"], site["keyPrefix"]
    patches, offset = site["columns"] - prefix, 0

    def part(kind, *shape):
        nonlocal offset
        values = np.frombuffer(raw, kind, math.prod(shape), offset)
        offset += values.nbytes
        return values.reshape(shape)

    def bfloat16(*shape):
        return (part("<u2", *shape).astype(np.uint32) << 16).view(np.float32).astype(np.float64)

    first, apart = bfloat16(heads, rows, prefix), bfloat16(heads, rows, 2)
    places, anchor = part("<u2", heads, rows, 2), bfloat16(heads, rows)
    codes = part(np.uint8, heads, rows, patches)
    assert offset == len(raw)
    weights = np.where(codes == 0, 0, 2.0 ** (data["octaves"] * (codes / (data["levels"] - 1) - 1))) * anchor[..., None]
    np.put_along_axis(weights, places.astype(int), apart, -1)
    return np.concatenate([first, weights], -1), data


def test_weights_survive_within_what_the_page_says(tmp_path):
    report = planted()
    path = report.save(tmp_path / "a.html")
    for number, site in enumerate(sites_of(report)):
        for image in range(2):
            found, data = weights_of(path, 0, image, number)
            true = site.maps[image].double().numpy()
            third = np.sort(true[..., 2:])[..., -3:-2]
            error = 2 ** (data["octaves"] / (data["levels"] - 1) / 2) * (1 + 2**-8) - 1
            kept = true > third * 2 ** -(data["octaves"] - 0.1)
            assert kept.mean() > 0.95
            assert (np.abs(found - true)[kept] <= error * true[kept]).all()
            assert (found[~kept] <= third.max() * 2 ** -(data["octaves"] - 1)).all()
            assert error < 0.03


@given(st.sampled_from(CODINGS), st.integers(0, 1000), st.floats(0, 8), st.integers(0, 3), st.integers(1, 20))
def test_coding_keeps_what_it_promises(coding, seed, spread, prefix, patches):
    logits = spread * torch.randn(2, 3, prefix + patches, generator=torch.Generator().manual_seed(seed))
    maps = logits.softmax(-1)
    coded = coding.encode(maps, prefix)
    found = coding.decode(coded)
    assert int(coded.codes.max()) < coding.levels
    kept = found > 0
    assert ((found - maps).abs() <= (1.01 * coding.error + 2**-8) * maps)[kept].all()
    smallest = coded.anchor.float()[..., None] * 2 ** -(coding.octaves * (1 - 0.5 / (coding.levels - 1)))
    assert (maps <= 1.01 * smallest).logical_or(kept).all()


@pytest.mark.parametrize("place", [0, 5])
def test_a_sink_swallows_nothing(place):
    """Neither a prefix token nor a patch that has nearly all attention costs the others their digits."""
    logits = torch.randn(1, 4, 30, generator=torch.Generator().manual_seed(0))
    logits[..., place] += 25
    maps = logits.softmax(-1)
    for coding in CODINGS:
        found = coding.decode(coding.encode(maps, 1))
        assert ((found - maps).abs() <= (coding.error + 2**-8) * maps).all()


def test_rows_of_zeros_and_hard_attention():
    maps = torch.zeros(1, 2, 5)
    maps[0, 1, 3] = 1
    for prefix in range(4):
        assert torch.equal(CODINGS[-1].decode(CODINGS[-1].encode(maps, prefix)), maps)


def test_nothing_is_fetched_from_anywhere(tmp_path):
    text = planted().save(tmp_path / "a.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<>)]+", text)) <= {"http://www.w3.org/2000/svg"}  # a name, not a place
    assert "default-src 'none'" in text
    assert not re.search(r"<link|<script[^>]+src=|@import|url\((?!#)|fetch\(|XMLHttpRequest|import\(", text)


NASTY = '</script><img src=x onerror="window.hacked=1">&amp;`${1}`\u2028'


def test_names_are_escaped(tmp_path):
    path = planted(model=NASTY).save(tmp_path / "a.html", title=NASTY, names=[NASTY, "$title $data"])
    text = path.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    data = data_of(path)
    assert data["models"][0]["label"] == NASTY
    assert [image["name"] for image in data["images"]] == [NASTY, "$title $data"]


def test_a_real_report_is_all_there(tmp_path, images):
    report = of_vit(images)
    path = report.save(tmp_path / "a.html", label="tiny")
    data = data_of(path)
    assert [site["name"] for site in data["models"][0]["sites"]] == [
        *(s.name for s in report.sites),
        "attention rollout",
    ]
    assert data["models"][0]["sites"][1]["queryGrid"] == [8, 8]
    entropy = data["models"][0]["sites"][1]["measures"]["entropy"]
    np.testing.assert_allclose(entropy, report.sites[1].measures["entropy"].numpy(), rtol=1e-3)
    np.testing.assert_allclose(data["models"][0]["similarity"], report.similarity.numpy(), rtol=1e-3)
    assert path.stat().st_size < 400_000


def test_what_is_not_defined_is_null(tmp_path):
    data = data_of(planted().save(tmp_path / "a.html"))
    assert data["models"][0]["sites"][0]["measures"]["distance"] == [[None, None]] * 2


def test_a_large_report_loses_bits_and_then_patches_and_says_so(tmp_path):
    report = planted(grid=(16, 16), images=1)
    sizes = []
    for limit, said in [(10**9, "in 256 steps"), (500_000, "steps, within"), (20_000, "pooled to at most 64 cells")]:
        path = save(tmp_path / f"{limit}.html", {"a": report}, max_bytes=limit)
        assert any(said in note for note in data_of(path)["notes"])
        sizes.append(sum(map(len, re.findall(r'<script type="text/plain".*?</script>', path.read_text()))))
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[1] <= 501_000
    weights, data = weights_of(tmp_path / "20000.html", 0, 0, 1)
    assert data["models"][0]["sites"][1]["keyGrid"] == [8, 8]
    assert data["models"][0]["sites"][1]["keyCell"] == 2
    np.testing.assert_allclose(weights.sum(-1), 1, atol=0.25)
    whole = report.sites[1].maps[0, :, 2:, 2:].double().numpy().reshape(2, 8, 2, 8, 2, 8, 2, 8, 2)
    pooled = whole.sum((6, 8)).mean((2, 4)).reshape(2, 64, 64)
    np.testing.assert_allclose(weights[:, 2:, 2:], pooled, rtol=0.3, atol=2e-3)


def test_one_byte_too_many_is_too_many():
    """The limit holds for what is stored, not for what was estimated beforehand."""
    reports = {"a": planted(grid=(8, 8), images=2)}
    finest, texts = stored(reports, 10**9)
    size = sum(map(len, texts.values()))
    assert stored(reports, size)[0].coding == finest.coding
    coarser, fewer = stored(reports, size - 1)
    assert coarser.coding != finest.coding
    assert sum(map(len, fewer.values())) < size


def test_two_models_and_epochs(tmp_path):
    one, two = planted(), planted(seed=1)
    data = data_of(one.save(tmp_path / "a.html", label="none", beside={"DropKey": two}))
    assert [model["label"] for model in data["models"]] == ["none", "DropKey"]
    data = data_of(save(tmp_path / "b.html", {f"epoch {n}": planted(seed=n) for n in range(3)}, are_epochs=True))
    assert data["areEpochs"]
    assert len(data["models"]) == 3


def test_bad_arguments_are_one_line(tmp_path):
    report = planted()
    with pytest.raises(dropkey.ArgumentError, match="two reports of the page are called 'Planted'"):
        report.save(tmp_path / "a.html", beside={"Planted": report})
    with pytest.raises(dropkey.ArgumentError, match="'b' has 1, not 2"):
        save(tmp_path / "a.html", {"a": report, "b": planted(images=1)})
    with pytest.raises(dropkey.ArgumentError, match="names has 1 of 2 images"):
        report.save(tmp_path / "a.html", names=["one"])
    with pytest.raises(dropkey.ArgumentError, match="one report at least"):
        save(tmp_path / "a.html", {})
    with pytest.raises(dropkey.DropKeyError, match=r"cannot write .*a\.html: No such file"):
        report.save(tmp_path / "nowhere" / "a.html")


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_images_of_any_number_of_channels(tmp_path, channels):
    report = planted()
    images = torch.rand(2, channels, 8, 12)
    path = report.__class__(**{**vars(report), "images": images}).save(tmp_path / "a.html")
    assert data_of(path)["images"][0]["source"].startswith("data:image/png;base64,")


def test_colors_are_those_of_the_image(tmp_path):
    import io

    from PIL import Image

    report = planted()
    images = torch.rand(2, 3, 4, 5)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    normalized = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    path = report.__class__(**{**vars(report), "images": normalized}).save(tmp_path / "a.html", mean=mean, std=std)
    source = data_of(path)["images"][1]["source"].partition(",")[2]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))
    np.testing.assert_allclose(shown / 255, images[1].permute(1, 2, 0).numpy(), atol=0.003)

"""Every family: built from its configuration, dropped where it should be, and padding never seen."""

import pytest
import torch
from tasks.detection.detectors import CONFIGS

import dropkey
from dropkey.adapters.listeners import recording
from dropkey.data.box_transforms import DetectorInput, detector_batch, train_example
from dropkey.data.boxed_images import Boxes
from dropkey.errors import ArgumentError
from dropkey.ops.reference import weights
from dropkey.tasks.detection.detections import detections_of
from dropkey.tasks.detection.network import build_detector, family_of
from dropkey.tasks.detection.parts import apply_to_parts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SIDES = (128, 128)
KINDS = {  # what each family has of encoder, decoder and cross attention with keys
    "detr": ["encoder", "decoder", "cross"],
    "conditional_detr": ["encoder", "decoder", "cross"],
    "deformable_detr": ["decoder"],
    "rt_detr_v2": ["encoder", "decoder"],
    "d_fine": ["encoder", "decoder"],
    "yolos": ["encoder"],
}


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    CONFIGS[request.param]().save_pretrained(root)
    return root


@pytest.fixture
def network(folder):
    torch.manual_seed(0)
    return build_detector(str(folder), 3, SIDES)


def batch_for(network, sizes=((64, 64), (40, 64), (64, 32))):
    """Images of different shapes, one without a box."""
    family = family_of(network)
    wanted = DetectorInput(SIDES, family.pads, family.mean, family.std)
    rng = torch.Generator().manual_seed(1)
    examples = []
    for index, (rows, cols) in enumerate(sizes):
        pixels = torch.randint(256, (rows, cols, 3), generator=rng, dtype=torch.uint8).numpy()
        boxes = Boxes.of([[4, 4, 20, 24], [10, 6, 30, 30]][: 2 * (index != 1)], [0, 2][: 2 * (index != 1)])
        examples.append(train_example(pixels, boxes, index, None, wanted))
    batch = detector_batch(examples)
    return {name: value for name, value in batch.items() if name != "indices"}


def test_it_learns_from_a_padded_batch(network):
    batch = batch_for(network)
    assert ("pixel_mask" in batch) == family_of(network).pads
    loss = network.train()(**batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    unreached = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not unreached, unreached[:3]


def test_every_site_is_proved_on_a_padded_batch(network):
    handle = apply_to_parts(network, dropkey.DropKey(0.3, "constant"), ["encoder", "decoder", "cross"])
    verification = handle.verify(**batch_for(network))
    assert all(check.num_calls > 0 and check.dropped_share > 0.1 for check in verification.checks)


def test_parts_are_told_apart(network):
    kinds = KINDS[network.config.model_type]
    for part in ("encoder", "decoder", "cross"):
        if part in kinds:
            handle = apply_to_parts(network, dropkey.DropKey(0.3), [part])
            expected = {"encoder": ("encoder self", "self"), "decoder": ("decoder self",), "cross": ("decoder cross",)}
            assert {site.kind for site in handle.sites} <= set(expected[part])
            handle.remove()
        else:
            with pytest.raises(ArgumentError, match=f"--where {part}: this .* has none with keys to drop"):
                apply_to_parts(network, dropkey.DropKey(0.3), [part])


def test_what_cannot_be_reached_is_named(network):
    if "cross" in KINDS[network.config.model_type] or network.config.model_type == "yolos":
        pytest.skip("all of its attention has keys")
    handle = dropkey.apply(network, dropkey.DropKey(0.3))
    assert any("there are no keys" in line for line in handle.left_alone)
    with pytest.raises(ArgumentError, match="it samples places"):
        apply_to_parts(network, dropkey.DropKey(0.3), ["decoder", "cross"])


def test_padding_and_other_denoising_groups_stay_unseen(network):
    """What the model's own mask forbids has no weight at any site, dropped keys or not."""
    handle = dropkey.apply(network, dropkey.DropKey(0.3, "constant"))
    batch = batch_for(network)
    with recording([network.get_submodule(site.name) for site in handle.sites]) as records:
        network.train()(**batch)
    forbidden = 0
    for call in [record.call.expanded() for heard in records for record in heard]:
        allowed = call.allowed()
        if allowed is not None and not allowed.all():
            shut = ~allowed.expand(call.mask_shape)
            forbidden += int(shut.sum())
            assert weights(call, call.keep())[shut].max() == 0
    needs_masks = network.config.model_type in ("detr", "conditional_detr", "rt_detr_v2", "d_fine")
    assert (forbidden > 0) == needs_masks


def test_padding_changes_nothing_in_evaluation(network):
    """An image alone and the same image padded in a batch give the same, with DropKey on the model."""
    if not family_of(network).pads:
        pytest.skip("images are stretched, never padded")
    sizes = [(64, 32), (64, 64)]
    dropkey.apply(network, dropkey.DropKey(0.3))
    network.eval()
    with torch.no_grad():
        alone = network(pixel_values=batch_for(network, sizes[:1])["pixel_values"])
        padded = network(**{k: v for k, v in batch_for(network, sizes).items() if k != "labels"})
    # Convolutions see zeros at the border either way; what is left are roundings.
    assert (alone.logits[0] - padded.logits[0]).abs().max() < 0.05


def test_detections_of_each_family_are_those_of_transformers(network):
    """Against transformers' own post-processing, with threshold 0."""
    from transformers.models.conditional_detr import ConditionalDetrImageProcessor
    from transformers.models.detr import DetrImageProcessor
    from transformers.models.rt_detr import RTDetrImageProcessor

    processors = {
        "detr": DetrImageProcessor,
        "yolos": DetrImageProcessor,
        "conditional_detr": ConditionalDetrImageProcessor,
        "deformable_detr": ConditionalDetrImageProcessor,
        "rt_detr_v2": RTDetrImageProcessor,
        "d_fine": RTDetrImageProcessor,
    }
    network.eval()
    with torch.no_grad():
        output = network(pixel_values=batch_for(network)["pixel_values"])
    sizes = [(40, 60), (33, 64), (64, 32)]
    mine = detections_of(family_of(network), output.logits, output.pred_boxes, torch.arange(3), sizes)
    theirs = processors[network.config.model_type]().post_process_object_detection(output, 0.0, sizes)
    for one, other in zip(mine, theirs, strict=True):
        order = other["scores"].argsort(descending=True, stable=True)
        assert torch.tensor(one.scores).float() == pytest.approx(other["scores"][order], abs=1e-6)
        assert torch.tensor(one.xyxy).float() == pytest.approx(other["boxes"][order], abs=1e-3)

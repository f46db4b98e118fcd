"""Other people's training loops with the one line in them: it drops in their training, not in their evaluation."""

import json
from argparse import Namespace
from pathlib import Path

import lightning
import pytest
import timm
import torch
from conftest import tiny_vit
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver, ModelEmaV3, NativeScaler
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import dropkey

transformers = pytest.importorskip("transformers")

SHAPE = {"img_size": 32, "patch_size": 4, "embed_dim": 48, "num_heads": 3, "depth": 2, "num_classes": 5}


def is_random(model, images):
    """Whether two passes differ: nothing but the regularizer draws in these models."""
    outs = [model(images) for _ in range(2)]
    outs = [getattr(out, "logits", out) for out in outs]
    return not torch.equal(*outs)


def data(count=8):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 3, 32, 32, generator=generator), torch.arange(count) % 5


@pytest.mark.parametrize("regularizer", [dropkey.DropKey(0.5), dropkey.ReAttention()], ids=str)
def test_calls_of_timms_training_script(regularizer, tmp_path):
    """The order of its calls: model, the one line, optimizer, scaler, EMA, mixup, saver, epochs."""
    model = timm.create_model("vit_tiny_patch16_224", **SHAPE)
    handle = dropkey.apply(model, regularizer)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.05, layer_decay=0.75)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    scaler = NativeScaler(device="cpu")
    ema = ModelEmaV3(model, decay=0.5)
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=5)
    args = Namespace(model="vit_tiny_patch16_224")
    saver = CheckpointSaver(model, optimizer, args, ema, scaler, checkpoint_dir=tmp_path, recovery_dir=tmp_path)
    images, targets = data()
    for epoch in range(2):
        model.train()
        mixed, soft = mixup(images, targets)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = SoftTargetCrossEntropy()(model(mixed), soft)
        optimizer.zero_grad()
        scaler(loss, optimizer, clip_grad=1.0, parameters=model.parameters())
        ema.update(model)
        saver.save_checkpoint(epoch, metric=epoch)
    theirs = dropkey.handle(ema.module)
    assert theirs.state_dict() == handle.state_dict()
    assert not is_random(ema.module.eval(), images)
    assert is_random(model.train(), images) == isinstance(regularizer, dropkey.DropKey)
    handle.verify(images)
    theirs.verify(images)

    weights = [tmp_path / "last.pth.tar", tmp_path / "model_best.pth.tar"]
    again = tiny_vit(depth=2)
    if isinstance(regularizer, dropkey.ReAttention):
        dropkey.apply(again, handle.state_dict())
    for path in weights:
        timm.models.load_checkpoint(again, str(path), use_ema=True)
        assert torch.equal(again.eval()(images), ema.module.eval()(images))


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = tiny_vit(depth=2)
        self.handle = dropkey.apply(self.model, dropkey.DropKey(0.5, schedule="constant"))
        self.was_random = {"train": [], "val": []}

    def training_step(self, batch, index):
        self.was_random["train"].append(is_random(self.model, batch[0]))
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.was_random["val"].append(is_random(self.model, batch[0]))

    def on_train_epoch_start(self):
        self.handle.drop_ratios = [0.1 * (self.current_epoch + 1), 0.0]
        if self.current_epoch == self.trainer.max_epochs - 1:
            self.handle.disable()

    def on_save_checkpoint(self, checkpoint):
        checkpoint["dropkey"] = self.handle.state_dict()

    def on_load_checkpoint(self, checkpoint):
        self.handle.load_state_dict(checkpoint["dropkey"])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # Lightning on a newer torch
def test_lightning(tmp_path):
    images, targets = data()
    loader = DataLoader(TensorDataset(images, targets), batch_size=4)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=3, default_root_dir=tmp_path, enable_checkpointing=False, **quiet)
    classifier = Classifier()
    trainer.fit(classifier, loader, loader)
    assert classifier.was_random["train"] == [True, True, True, True, False, False]
    assert not any(classifier.was_random["val"])
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    again = Classifier.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert again.handle.drop_ratios == pytest.approx([0.3, 0.0])
    assert not again.handle.enabled
    assert torch.equal(again.model.eval()(images), classifier.model.eval()(images))
    plain = tiny_vit(depth=2).eval()
    weights = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    plain.load_state_dict({name.removeprefix("model."): tensor for name, tensor in weights.items()})
    assert torch.equal(plain(images), classifier.model(images))


class FinetuneWithoutDrop(transformers.TrainerCallback):
    def __init__(self, handle):
        self.handle = handle
        self.was_random = []

    def on_epoch_begin(self, args, state, control, **kwargs):
        if state.epoch >= args.num_train_epochs - 1:
            self.handle.disable()

    def on_step_begin(self, args, state, control, model, **kwargs):
        self.was_random.append(is_random(model.train(), data()[0]))

    def on_save(self, args, state, control, **kwargs):
        (Path(args.output_dir) / "dropkey.json").write_text(json.dumps(self.handle.state_dict()))


def test_trainer_of_transformers(tmp_path):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=5, **shape, **rates)
    model = transformers.ViTForImageClassification(config)
    handle = dropkey.apply(model, dropkey.DropKey(0.5, schedule="constant"))
    rows = [{"pixel_values": image, "labels": label} for image, label in zip(*data(), strict=True)]
    arguments = transformers.TrainingArguments(
        tmp_path,
        num_train_epochs=2,
        per_device_train_batch_size=4,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="epoch",
        dataloader_pin_memory=False,
    )
    callback = FinetuneWithoutDrop(handle)
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, callbacks=[callback])
    trainer.train()
    assert callback.was_random == [True, True, False, False]
    handle.enable()
    assert trainer.evaluate()["eval_loss"] == trainer.evaluate()["eval_loss"]
    images = data()[0]
    again = transformers.ViTForImageClassification.from_pretrained(tmp_path / "checkpoint-4")
    assert torch.equal(again(images).logits, model.eval()(images).logits)
    restored = dropkey.apply(again, json.loads((tmp_path / "dropkey.json").read_text()))
    assert (restored.drop_ratios, restored.enabled) == ((0.5, 0.5), False)

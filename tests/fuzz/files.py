"""Random images, config files and command lines: each is used as it says, or refused in one line that names it."""

import io
import random
import tempfile
import warnings
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from dropkey.cli.train import _parser
from dropkey.data.picture import read_image, size_of_image
from dropkey.errors import DataError, DropKeyError
from dropkey.runs.options import acting, idle_because, options_of
from dropkey.runs.yaml_file import read_options
from dropkey.tasks.classification.task import TASK

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"]
FORMATS = ["jpeg", "png", "tiff", "webp", "gif", "bmp", "ppm"]
WORDS = [
    "",
    "none",
    "dropkey",
    "dropout",
    "block",
    "token",
    "constant",
    "0.3,0.1",
    "digits",
    "folder",
    "depth=2",
    "all",
]
WORDS += ["vit_mini_patch2_8", "true", "null", "é\u2028", "x" * 40, "../..", "!!python/name:os.system", "*a", "&a", "{"]
NUMBERS = [0, 1, -1, 2, 3, 8, 64, 0.1, 0.5, 0.999999, 1e-9, 1e30, -0.0, float("nan"), float("inf"), True, 10**400]


def judge_image(number: int) -> None:
    """Read a random image, damaged or not."""
    draw = random.Random(f"image {number}")
    values = np.random.default_rng(number).integers(
        0, 256, (draw.randint(1, 40), draw.randint(1, 40), 3), dtype=np.uint8
    )
    mode, kind, turn = draw.choice(MODES), draw.choice(FORMATS), draw.randint(0, 9)
    exif = Image.Exif()
    exif[0x0112] = turn
    buffer = io.BytesIO()
    try:
        Image.fromarray(values).convert(mode).save(buffer, kind, exif=exif)
    except (OSError, ValueError, KeyError, TypeError):  # Pillow cannot write this mode so
        return
    content, damage = bytearray(buffer.getvalue()), draw.choice([0, 0, 1, 2, 8])
    for _ in range(damage):
        content[draw.randrange(len(content))] = draw.randrange(256)
    if damage == 8:
        del content[draw.randrange(1, len(content)) :]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / f"image.{kind}"
        path.write_bytes(content)
        size = size_of_image(path)
        found = picture_or_error(path)
    if isinstance(found, DataError):
        assert damage, f"an image that is whole was refused: {found}"
        check_line(found, f"image.{kind}")
        return
    assert found.mode == "RGB"
    assert damage or found.size == size


def picture_or_error(path: Path) -> Image.Image | DataError:
    try:
        return read_image(path)
    except DataError as error:
        return error


def judge_config(number: int) -> None:
    """Read a random config file; one that is taken says what it said when it is written and read again."""
    draw = random.Random(f"config {number}")
    names = [field.name for field in options_of(TASK.config_class)]
    said = {draw.choice([*names, *names, "epoch", ""]): random_value(draw, 2) for _ in range(draw.randint(0, 5))}
    text = yaml.safe_dump(said, allow_unicode=True)
    if draw.random() < 0.3:
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice(WORDS) + text[place + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        try:
            config = TASK.read(read_options(path), str(path))
        except DropKeyError as error:
            check_line(error, "config.yaml")
            return
        path.write_text(yaml.safe_dump(acting(config)), encoding="utf-8")
        assert acting(TASK.read(read_options(path))) == acting(config)


def judge_options(number: int) -> None:
    """Read a random command line: every option that is given acts, with the value that was given, or is refused."""
    draw = random.Random(f"options {number}")
    fields = draw.sample(options_of(TASK.config_class), draw.randint(1, 6))
    line = [
        word for field in fields for word in (f"--{field.name.replace('_', '-')}", random_word(draw, field.default))
    ]
    try:
        given = _parser(TASK, line).read(line)
        config = TASK.resolve(given.of(TASK.config_class), given.asked)
    except DropKeyError as error:
        check_line(error, "")
        return
    for name, value in given.of(TASK.config_class).items():
        assert getattr(config, name) == value, (line, name)
        assert idle_because(config, name) is None, (line, name)
    assert {field.name for field in fields} == set(given.of(TASK.config_class)), line


def random_value(draw: random.Random, depth: int) -> object:
    kind = draw.randrange(5 if depth else 3)
    if kind == 0:
        return draw.choice(WORDS)
    if kind in (1, 2):
        return draw.choice([None, *NUMBERS])
    if kind == 3:
        return [random_value(draw, depth - 1) for _ in range(draw.randint(0, 3))]
    return {draw.choice(WORDS): random_value(draw, depth - 1) for _ in range(draw.randint(0, 2))}


def random_word(draw: random.Random, default: object) -> str:
    if draw.random() < 0.6 and default != "":
        return str(default)
    return str(draw.choice([word for word in WORDS if word] + NUMBERS))


def check_line(error: Exception, named: str) -> None:
    text = str(error)
    assert "\n" not in text, text
    assert named in text, text
    assert len(text) > 10


JUDGES = [judge_image, judge_config, judge_options]

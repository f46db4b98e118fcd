"""Config files: options alone, never code, never more than a config holds."""

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropkey.errors import DropKeyError, RunError
from dropkey.runs.options import defaults_of
from dropkey.runs.run_folder import RunFolder
from dropkey.runs.yaml_file import read_options
from dropkey.tasks.classification.task import TASK

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{above}'] * 9)}]\n" for above, name in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD = {
    "alias bomb": (BOMB, r"has an alias, \*a"),
    "alias to itself": ("a: &a [*a]\n", r"has an alias, \*a"),
    "merged": ("a: &a {epochs: 1}\n<<: *a\n", "has an alias"),
    "deep list": ("model: " + "[" * 3000 + "]" * 3000, "nested deeper"),
    "deep mapping": ("".join(f"{' ' * depth}a:\n" for depth in range(900)), "nested deeper"),
    "deep in one line": ("{a: " * 5000, "nested deeper"),
    "code": ("model: !!python/object/apply:os.system [true]", "python/object/apply"),
    "module": ("model: !!python/module:os", "python/module"),
    "latin-1": ("model: café\n".encode("latin-1"), "not UTF-8, from byte 10 on"),
    "zeros": (b"\0" * 40, "unacceptable character|special characters"),
    "long": ("# " + "x" * 2_000_000, "longer than options are"),
    "no mapping": ("- epochs\n", "holds no options"),
    "numbers as names": ("1: 2\n", "holds no options"),
    "a name twice": ("epochs: 1\nlr: 0.1\nepochs: 2\n", "has 'epochs' twice"),
    "a name twice, once in quotes": ('epochs: 1\n"epochs": 1\n', "has 'epochs' twice"),
    "empty": ("", "holds no options"),
    "half a list": ("model: [a, b", "in line 1"),
    "no date": ("model: 2026-99-99\n", "month must be in"),
    "tab": ("a:\n\t- b\n", "in line 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_are_refused(case, tmp_path):
    content, named = BAD[case]
    path = tmp_path / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.monotonic()
    with pytest.raises(RunError, match=named) as error:
        read_options(path)
    assert time.monotonic() - start < 5
    assert "\n" not in str(error.value)
    assert "c.yaml" in str(error.value)


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(RunError, match="Is a directory"):
        read_options(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_options(tmp_path / "none.yaml")
    with pytest.raises(RunError, match="File name too long"):
        read_options(tmp_path / ("x" * 300))
    with pytest.raises(RunError, match="is not a run folder"):
        RunFolder(tmp_path).read_config()


WRONG = {
    "model": (5, "a text"),
    "epochs": ("many", "a whole number, 1 or more"),
    "drop_ratio": ([0.1], r"a number in \[0, 1\)"),
    "pretrained": ("yes", "true or false"),
    "regularizer": ("dropky", "one of none, dropout, dropout_renormalized, dropkey"),
    "precision": (16, "one of"),
    "batch_size": (True, "a whole number"),
    "seed": (1.5, "a whole number"),
    "finetune_epochs": ({"a": 1}, "a whole number"),
    "schedule": (["constant"], "a text"),
    "data": ({"a": 1}, "a text"),
    "data_dir": (7, "a text"),
}


@pytest.mark.parametrize("name", WRONG)
def test_values_of_another_type_are_named(name):
    value, named = WRONG[name]
    with pytest.raises(DropKeyError, match=named) as error:
        TASK.read({name: value})
    assert f"--{name.replace('_', '-')} must be" in str(error.value)
    assert repr(value) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"])
def test_a_config_names_no_files_to_the_model(name):
    with pytest.raises(DropKeyError, match=f"--model-kwargs has {name}"):
        TASK.read({"model_kwargs": f"depth=2,{name}=evil.ckpt"})


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([*defaults_of(TASK.config_class), "drop_ratoi", "x"])


@settings(max_examples=150)
@given(st.dictionaries(names, plain, max_size=4))
def test_any_mapping_is_a_config_or_one_line(values):
    try:
        config = TASK.read(values)
    except DropKeyError as error:
        assert str(error).strip()  # noqa: PT017
    else:
        assert all(getattr(config, name) == value for name, value in values.items() if value is not None)


@settings(max_examples=200)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@,? \n\t0123.eE_\\\u0085\u2028é", max_size=60))
def test_any_text_is_a_mapping_or_one_line(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            assert isinstance(read_options(path), dict)
        except RunError as error:
            assert "\n" not in str(error)  # noqa: PT017

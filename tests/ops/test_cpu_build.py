"""How the kernel is built: where it is kept, what is said when it cannot be, and every instruction set by force."""

import errno
import platform
import subprocess
import sys

import pytest

from dropkey.ops.cpu import build, cache, library

needs_compiler = pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))

PROBE = """
import torch, dropkey
from dropkey.ops.cpu import door, library
assert library.unavailable() is None, library.unavailable()
assert library.kernel().isa == ISA, library.kernel().isa
for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
    for queries, keys, dim in ((65, 65, 64), (9, 33, 35), (1, 1, 1), (40, 600, 17)):
        q, k, v = (torch.randn(2, 3, n, dim).to(dtype).requires_grad_() for n in (queries, keys, keys))
        for pattern in door.PATTERNS:
            results = []
            for backend in ("cpu", "reference"):
                out = dropkey.attention(
                    q, k, v, drop_ratio=0.6, pattern=pattern, seed=3, grid_size=(1, keys), backend=backend
                )
                results.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
            for got, want in zip(*results):
                error = (got.float() - want.float()).abs().max() / want.float().abs().max().clamp(min=1e-3)
                assert error < tolerance, (dtype, pattern, keys, error)

from dropkey.ops.cpu.projected import attend_projected
rows = torch.stack([torch.randperm(50)[:23] + 50 * b for b in range(2)])
x, weight, out_weight = (torch.randn(*size).requires_grad_() for size in ((2, 50, 80), (288, 80), (48, 96)))
y, _ = attend_projected(x, weight * 0.1, None, out_weight, None, rows, 2, 1.0)
has_key = torch.zeros(100, dtype=torch.bool).index_fill(0, rows.flatten(), True).view(2, 1, 1, 50)
q, k, v = (x @ (weight * 0.1).T).unflatten(2, (3, 2, 48)).permute(2, 0, 3, 1, 4)
out = (q @ k.mT).masked_fill(~has_key, -torch.inf).softmax(-1) @ v
results = [(y, *torch.autograd.grad(y.square().sum(), (x, weight, out_weight)))
           for y in (y, out.transpose(1, 2).flatten(2) @ out_weight.T)]
for got, want in zip(*results):
    assert (got - want).abs().max() < 1e-4 * want.abs().max(), "projected"

from dropkey.ops.call import AttentionCall
from dropkey.ops.mixed_attention import attend_mixed, refuses
from dropkey.ops.reattention import HeadMixing
for heads, queries, keys, dim in ((3, 65, 65, 64), (7, 9, 33, 35), (12, 300, 130, 17)):
    q, k, v = (torch.randn(2, heads, n, dim).requires_grad_() for n in (queries, keys, keys))
    mixer = HeadMixing(heads)
    call = AttentionCall(q, k, v, None, False, dim ** -0.5, None)
    assert refuses(call, mixer) is None
    unfused = mixer((q @ k.mT * dim ** -0.5).softmax(-1)) @ v
    inputs = (q, k, v, mixer.theta.weight)
    results = [(out, *torch.autograd.grad(out.square().sum(), inputs)) for out in (attend_mixed(call, mixer), unfused)]
    for got, want in zip(*results):
        error = (got - want).abs().max() / want.abs().max()
        assert error < 1e-4, (heads, keys, error)
"""


@needs_compiler
@pytest.mark.parametrize(
    "isa",
    ["avx2", *(pytest.param(isa, marks=pytest.mark.slow) for isa in ("avx512bf16", "avx512", "plain"))],
)
def test_every_instruction_set(isa, monkeypatch):
    monkeypatch.setenv("DROPKEY_CPU_ISA", isa)
    if isa not in build.instruction_sets():
        pytest.skip(f"this processor has no {isa}")
    done = subprocess.run(
        [sys.executable, "-c", f"ISA = {isa!r}\n{PROBE}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


ALL_FLAGS = set().union(*(needed for needed, _ in (*build.INSTRUCTION_SETS.values(), *build.ON_REQUEST.values())))


@pytest.mark.parametrize(("vendor", "best"), [("AuthenticAMD", "avx512bf16"), ("GenuineIntel", "avx512")])
def test_dot_products_of_bfloat16_are_used_where_they_are_fast(vendor, best, monkeypatch):
    monkeypatch.setattr(build, "_processor_flags", lambda: {vendor, *ALL_FLAGS})
    monkeypatch.delenv("DROPKEY_CPU_ISA", raising=False)
    assert build.instruction_sets()[0] == best
    monkeypatch.setenv("DROPKEY_CPU_ISA", "avx512bf16")
    assert build.instruction_sets()[0] == "avx512bf16"


@pytest.mark.parametrize("isa", build.ON_REQUEST)
@pytest.mark.parametrize(("vendor", "best"), [("AuthenticAMD", "avx512bf16"), ("GenuineIntel", "avx512")])
def test_tiles_are_used_on_request_alone_and_the_best_of_the_others_after_them(vendor, best, isa, monkeypatch):
    monkeypatch.setattr(build, "_processor_flags", lambda: {vendor, *ALL_FLAGS})
    monkeypatch.delenv("DROPKEY_CPU_ISA", raising=False)
    usual = build.instruction_sets()
    assert usual[0] == best
    assert not set(usual) & set(build.ON_REQUEST)
    monkeypatch.setenv("DROPKEY_CPU_ISA", isa)
    assert build.instruction_sets() == [isa, *usual]


def refusals(caplog):
    """What was said, but for the line that a kernel is compiled."""
    return [text for text in caplog.messages if "cannot be used" in text]


@needs_compiler
def test_an_unknown_instruction_set_is_said_once_and_the_usual_one_is_used(monkeypatch, caplog):
    monkeypatch.delenv("DROPKEY_CPU_ISA", raising=False)
    usual = build.instruction_sets()
    monkeypatch.setenv("DROPKEY_CPU_ISA", "mmx")
    assert build.instruction_sets() == usual
    kernel = library._load.__wrapped__()
    assert kernel.isa == usual[0]
    (said,) = refusals(caplog)
    reason = "DROPKEY_CPU_ISA=mmx cannot be used: it is none of amx, avx512bf16, avx512, avx2, plain"
    assert said == f"{reason}; the kernel uses {usual[0]}"
    assert kernel.remark.endswith(reason)


@needs_compiler
def test_what_a_processor_lacks_is_said_once_and_in_the_list_of_backends(monkeypatch, caplog):
    have = build._processor_flags() - {"amx_tile", "amx_bf16"}
    monkeypatch.setattr(build, "_processor_flags", lambda: have)
    monkeypatch.delenv("DROPKEY_CPU_ISA", raising=False)
    usual = build.instruction_sets()[0]
    monkeypatch.setenv("DROPKEY_CPU_ISA", "amx")
    kernel = library._load.__wrapped__()
    assert kernel.isa == usual
    (said,) = refusals(caplog)
    assert said.startswith("DROPKEY_CPU_ISA=amx cannot be used: this processor has no amx_bf16, amx_tile")
    assert said.endswith(f"; the kernel uses {usual}")
    assert "amx_bf16, amx_tile" in kernel.remark


@needs_compiler
def test_a_system_that_refuses_tiles_is_believed(monkeypatch, caplog):
    usual, real = build.instruction_sets()[0], library.Kernel._number

    def refusing(kernel, name):
        return errno.EPERM if (kernel.isa, name) == ("emulated-amx", "dropkey_refusal") else real(kernel, name)

    monkeypatch.setattr(library.Kernel, "_number", refusing)
    monkeypatch.setenv("DROPKEY_CPU_ISA", "emulated-amx")
    kernel = library._load.__wrapped__()
    assert kernel.isa == usual
    assert "does not let this process use emulated-amx: Operation not permitted" in kernel.remark
    assert len(refusals(caplog)) == 1


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="no x86-64")
@needs_compiler
def test_the_amx_library_is_built_and_asks_the_system():
    """Where there is no AMX nothing of it is run but the question, which the system answers with a refusal."""
    script = """
from dropkey.ops.cpu import build, library
path = build.build("amx")
try:
    print("taken", library.Kernel(path, "amx").isa)
except build.BuildError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    has_amx = build.why_not("amx") is None
    assert ("taken amx" if has_amx else "the system does not let this process use amx") in done.stdout


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("/nowhere/c++", "'/nowhere/c\\+\\+', is not there"), ("false", "false failed"), ("", "no C\\+\\+ compiler")],
)
def test_says_why_it_cannot_be_built(compiler, reason, monkeypatch, tmp_path):
    monkeypatch.setenv("DROPKEY_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    if not compiler:
        monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match=reason):
        build.build("plain")
    said = library._load.__wrapped__()
    assert isinstance(said, str)
    assert "\n" not in said
    assert not list(tmp_path.glob("*.so")) + list(tmp_path.glob("*.part"))


def test_compiler_that_takes_too_long(monkeypatch, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\ncase $1 in --version) echo 1;; *) sleep 5;; esac\n")
    slow.chmod(0o755)
    monkeypatch.setenv("CXX", str(slow))
    monkeypatch.setenv("DROPKEY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "TIME_LIMIT_S", 0.2)
    with pytest.raises(build.BuildError, match="took longer"):
        build.build("plain")


def test_cache_that_cannot_be_written(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("DROPKEY_CACHE_DIR", str(blocked / "below"))
    monkeypatch.setenv("CXX", "true")
    with pytest.raises(build.BuildError, match="cannot be built"):
        build.build("plain")


def test_built_once_and_kept(monkeypatch, tmp_path):
    """A compiler that only copies its name shows how often it is called, and what the file name depends on."""
    fake = tmp_path / "fake"
    fake.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nwhile [ $# -gt 1 ]; do [ "$1" = -o ] && : > "$2"; shift; done\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    monkeypatch.setenv("DROPKEY_CACHE_DIR", str(tmp_path / "cache"))
    first, again, other = build.build("plain"), build.build("plain"), build.build("avx2")
    assert first == again != other
    calls = (tmp_path / "calls").read_text().splitlines()
    assert sum("--version" not in call for call in calls) == 2


def test_cache_follows_the_users_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("DROPKEY_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "dropkey"

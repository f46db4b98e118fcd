"""The cache of the native kernel: what is damaged is made again, what others could have written is not loaded."""

import os
import subprocess
import time

import pytest

from dropkey.ops.cpu import build, cache, library

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="users and modes as on Unix")


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A compiler that writes a line and counts its calls."""
    fake = tmp_path / "fake"
    fake.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
        'while [ $# -gt 1 ]; do [ "$1" = -o ] && echo library > "$2"; shift; done\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    monkeypatch.setenv("DROPKEY_CACHE_DIR", str(tmp_path / "cache"))

    def calls():
        lines = (tmp_path / "calls").read_text().splitlines()
        return sum("--version" not in line for line in lines)

    return calls


def cut(path):
    path.write_bytes(path.read_bytes()[:3])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    path.write_bytes(b"L" + path.read_bytes()[1:])


def forget(path):
    path.with_suffix(".sha256").unlink()


def scribble(path):
    path.with_suffix(".sha256").write_bytes(b"\377\376")


@pytest.mark.parametrize("damage", [cut, empty, flip, forget, scribble], ids=lambda damage: damage.__name__)
def test_a_damaged_library_is_built_again(damage, compiler):
    path = build.build("plain")
    assert cache.is_sound(path)
    damage(path)
    assert not cache.is_sound(path)
    assert build.build("plain") == path
    assert path.read_text() == "library\n"
    assert cache.is_sound(path)
    assert compiler() == 2


@pytest.mark.parametrize("part", ["folder", "file"])
def test_what_others_may_write_is_not_loaded(part, compiler):
    path = build.build("plain")
    (path.parent if part == "folder" else path).chmod(0o777)
    assert not cache.is_sound(path)
    if part == "folder":
        with pytest.raises(build.BuildError, match=r"may be written by others: set DROPKEY_CACHE_DIR to a folder of"):
            build.build("plain")
    else:
        build.build("plain")  # the file is made anew
        assert cache.is_sound(path)


def test_what_belongs_to_somebody_else_is_not_loaded(compiler, monkeypatch):
    path = build.build("plain")
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    if owner:
        assert not cache.is_sound(path)
        with pytest.raises(build.BuildError, match=f"belongs to user {owner}"):
            build.build("plain")
    else:
        assert cache.is_sound(path)  # root's is everybody's


def test_another_user_is_not_trusted(compiler, monkeypatch):
    path = build.build("plain")
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    found = path.stat()
    stat = type(path).stat
    monkeypatch.setattr(type(path), "stat", lambda self, **k: os.stat_result((*found[:4], 12345, *found[5:])))
    assert not cache.is_sound(path)
    monkeypatch.setattr(type(path), "stat", stat)


def test_a_new_folder_is_private(compiler):
    assert build.build("plain").parent.stat().st_mode & 0o077 == 0


def test_a_lock_that_is_a_link_empties_nothing(compiler, tmp_path):
    path = build.build("plain")
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path.with_suffix(".lock").unlink()
    path.with_suffix(".lock").symlink_to(precious)
    empty(path)
    build.build("plain")
    assert precious.read_text() == "precious"
    assert cache.is_sound(path)


def test_a_complete_cache_is_only_read(compiler, monkeypatch):
    path = build.build("plain")
    monkeypatch.setattr(cache, "locked", None)
    monkeypatch.setattr(build, "locked", None)
    monkeypatch.setattr(build, "make_private", None)
    assert build.build("plain") == path


def test_without_a_compiler_a_warm_cache_is_used(compiler, monkeypatch, tmp_path):
    path = build.build("plain")
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert build.build("plain") == path
    flip(path)
    with pytest.raises(build.BuildError, match="is not there"):
        build.build("plain")


def test_what_a_killed_process_left_is_swept(compiler, tmp_path):
    folder = tmp_path / "cache"
    cache.make_private(folder)
    old, young = folder / "old.part", folder / "young.part"
    for part in (old, young):
        part.write_text("half")
    os.utime(old, (time.time() - 7200,) * 2)
    build.build("plain")
    assert not old.exists()
    assert young.exists()


def test_no_home_and_no_name(monkeypatch, tmp_path):
    for name in ("DROPKEY_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache.Path, "home", homeless)
    folder = cache.cache_folder()
    assert folder.parent == tmp_path
    cache.make_private(folder)
    assert folder.stat().st_mode & 0o077 == 0


def test_a_compiler_that_speaks_no_utf8(monkeypatch, tmp_path):
    odd = tmp_path / "odd"
    odd.write_bytes(b'#!/bin/sh\nprintf "\\377 error: n\\303o\\n" >&2\nexit 1\n')
    odd.chmod(0o755)
    monkeypatch.setenv("CXX", str(odd))
    monkeypatch.setenv("DROPKEY_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(build.BuildError, match=r"odd failed: .* error: n"):
        build.build("plain")


def test_a_slow_compiler_is_waited_for_once_and_ended(monkeypatch, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text(
        f"#!/bin/sh\ncase $1 in --version) echo 1; exit;; esac\necho x >> {tmp_path}/calls\n"
        f"sleep 30 &\necho $! > {tmp_path}/child\nwait\n"
    )
    slow.chmod(0o755)
    monkeypatch.setenv("CXX", str(slow))
    monkeypatch.setenv("DROPKEY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "TIME_LIMIT_S", 0.5)
    said = library._load.__wrapped__()
    assert "took longer than 0.5 seconds" in said
    assert (tmp_path / "calls").read_text() == "x\n"
    child = (tmp_path / "child").read_text().strip()
    time.sleep(0.2)
    state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True, check=False).stdout
    assert state.strip() in ("", "Z", "Zs"), state


def test_a_line_says_that_it_builds(compiler, caplog):
    build.build("plain")
    assert [record.message for record in caplog.records] == [
        "dropkey compiles its CPU kernel, once on this machine: about ten seconds"
    ]
    caplog.clear()
    build.build("plain")
    assert not caplog.records

"""Files are whole or not there, what a killed process left is cleared, and a folder is held by one process."""

import os
import stat
import subprocess
import sys

import pytest

from structure_first.errors import UserError
from structure_first.files import locked, replacing

HOLDING = """
import sys, time
from pathlib import Path
from structure_first.files import replacing
with replacing(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def write(path, text="whole"):
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_writes_is_not(tmp_path):
    path = tmp_path / "rows.parquet"
    others = [tmp_path / name for name in (".rows.parquet.tmp", ".rowsXparquet.0123abcd.tmp", ".rows.parquet.0123.tmp")]
    for other in others:
        other.write_text("mine")
    with subprocess.Popen([sys.executable, "-c", HOLDING, path], stdout=subprocess.PIPE) as running:
        running.stdout.readline()
        write(path)
        (held,) = set(tmp_path.iterdir()) - {path, *others}
        running.kill()
    write(tmp_path / "another")
    assert held.exists()
    write(path)
    assert set(tmp_path.iterdir()) == {path, *others, tmp_path / "another"}


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_mode_is_what_the_user_wants(tmp_path, umask):
    before = os.umask(umask)
    try:
        write(tmp_path / "a")
        with replacing(tmp_path / "b") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT, 0o600))  # as a writer does that has a temporary file of its own
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"} == {0o666 & ~umask}


def test_a_failure_leaves_what_was_there(tmp_path):
    write(tmp_path / "a", "before")
    with pytest.raises(KeyError), replacing(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_what_is_no_ordinary_file_is_not_replaced(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("full", "pipe", "folder"):
        with pytest.raises(UserError, match=f"cannot write .*{name}: it is no ordinary file; name another"):
            write(tmp_path / name)
    assert len([*tmp_path.iterdir()]) == 3


def test_one_process_holds_a_folder(tmp_path):
    folder = tmp_path / "a" / "b"
    with locked(folder):
        with pytest.raises(UserError, match=r"another process is writing to .*b; wait for it or name another folder"):
            locked(folder).__enter__()
        assert not [*folder.iterdir()]
    assert not folder.exists()
    with locked(folder):
        write(folder / "a")
    with locked(folder):
        pass
    assert [*folder.iterdir()] == [folder / "a"]
    with pytest.raises(UserError, match=r"cannot write to .*a: .*; name another folder"):
        locked(folder / "a").__enter__()

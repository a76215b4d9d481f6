"""Whatever is wrong with what pack and generate are given is told in one line, and nothing is written or removed."""

import gzip
import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from structure_first import cli

ROW = b'{"text": "fine"}\n'
LONG = "x" * 300
FEW = '{"format": 1, "shards": [], "tokeniser": {"digest": ""}}'
FILES = {
    "good.txt": b"Some text.",
    "empty.txt": b"",
    "empty.jsonl": b"",
    "blank.jsonl": b"\n \n",
    "no-text.jsonl": b'{"text": ""}\n',
    "binary.txt": b"\x7fELF\0\0",
    "utf16.txt": "text".encode("utf-16"),
    "binary.jsonl": b"PAR1\0",
    "latin.txt": b"caf\xe9",
    "latin.jsonl": b'{"text": "caf\xe9"}',
    "half.jsonl": ROW + b'{"text": "ha',
    "digits.jsonl": b'{"n": ' + b"9" * 5000 + b"}\n",
    "nested.jsonl": b'{"text": ' + b"[" * 99_999 + b"\n",
    "list.jsonl": b"[1, 2]\n",
    "body.jsonl": b'{"body": "x", "n": 1}\n',
    "names.jsonl": json.dumps({"a\nb": 1, "c" * 999: 2}).encode(),
    "number.jsonl": b'{"text": 3}\n',
    "surrogate.jsonl": b'{"text": "\\ud83d"}\n',
    "short.parquet": b"PAR1 and no more",
    "empty.parquet": b"",
    "short.jsonl.gz": gzip.compress(ROW)[:-9],
    "plain.jsonl.gz": ROW,
    "broken.txt.gz": gzip.compress(b"text " * 99)[:10] + b"\xff" * 40,
    "tok/tokenizer.json": b"{}",
    "latin-tok/tokenizer.json": b"caf\xe9",
    "bare-tok/tokenizer.json": b'{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}',
    "mine/tokenizer.json": b"mine",
    "app/manifest.json": b"{}",
    "list/manifest.json": b"[]",
    "latin-app/manifest.json": b"caf\xe9",
    "few/manifest.json": FEW.encode(),
    "newer/manifest.json": b'{"format": 99}',
    "mine.parquet": b"mine",
    "notes.md": b"# Notes",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One file of each kind."""
    folder = tmp_path_factory.mktemp("bad")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    for name, table in {
        "body.parquet": pa.table({"body": ["x"], "n": [1]}),
        "none.parquet": pa.table({"text": pa.array([], pa.string())}),
        "twice.parquet": pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["text", "text"]),
        "cut.parquet": pa.table({"text": [str(n) * 50 for n in range(999)]}),
    }.items():
        pq.write_table(table, folder / name)
    whole = (folder / "cut.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[:200] + b"\xff" * 400 + whole[600:])
    for name in ("bare", "folder.txt", "folder.jsonl", "bad-tok/tokenizer.json", "bad-app/manifest.json"):
        (folder / name).mkdir(parents=True)
    for name in ("pipe", "pipe.jsonl"):
        os.mkfifo(folder / name)
    (folder / "full.jsonl").symlink_to("/dev/full")
    (folder / "loop").symlink_to("loop")
    (folder / "gone.txt").symlink_to("nowhere")
    return folder


def listing(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


NO_FILE = "name a text, JSON lines or Parquet file, a folder or a glob"
PACKED = {
    "": "an empty value; leave it out or fill it in",
    "langauge": "unknown corpus 'langauge'; did you mean 'language'",
    "math": "the corpus math has no end; say how much of it with --limit-tokens",
    "math:extra": "unknown part of math 'extra'; did you mean 'extrapolate'",
    "no.txt": f"there is no file no.txt; {NO_FILE}",
    "*.no": f"there is no file *.no; {NO_FILE}",
    "bare": f"there are no files in bare; {NO_FILE}",
    "folder.txt": f"there are no files in folder.txt; {NO_FILE}",
    "gone.txt": "there is no file gone.txt",
    "./loop": "there is no file ./loop",
    "good.txt/a": "there is no file good.txt/a",
    "~nosuchuser/a.txt": "~nosuchuser/a.txt: there is no user of that name; write ./~nosuchuser/a.txt for a file",
    f"{LONG}.txt": f"there is no file {LONG}.txt",
    f"{LONG}/*": "there is no file",
    "./pipe": "./pipe is no ordinary file; write what it gives into one",
    "pipe.jsonl": "pipe.jsonl is no ordinary file",
    "/dev/full": "/dev/full is no ordinary file",
    "/proc/self/mem": "cannot read /proc/self/mem: Input/output error; name another file",
    "empty.txt": "empty.txt is empty; name files that hold some text",
    "empty.jsonl": "empty.jsonl is empty",
    "blank.jsonl": "blank.jsonl is empty",
    "no-text.jsonl": "no-text.jsonl is empty",
    "none.parquet": "none.parquet is empty",
    "binary.txt": "binary.txt is binary; name a text, JSON lines or Parquet file, by its suffix",
    "utf16.txt": "utf16.txt is binary",
    "binary.jsonl": "binary.jsonl is binary",
    "latin.txt": "latin.txt is not UTF-8 (byte 0xe9); convert it, for instance with iconv",
    "latin.jsonl": "latin.jsonl is not UTF-8 (byte 0xe9)",
    "half.jsonl": "line 2 of half.jsonl is not whole JSON; every line must hold one object; mend or remove it",
    "digits.jsonl": "line 1 of digits.jsonl is not whole JSON",
    "nested.jsonl": "line 1 of nested.jsonl is not whole JSON",
    "list.jsonl": 'line 1 of list.jsonl is no object; write lines such as {"text": "..."}',
    "body.jsonl": "line 1 of body.jsonl has no column 'text'; it has body, n; name one with --text-column",
    "names.jsonl": "line 1 of names.jsonl has no column 'text'; it has a b, ccc",
    "number.jsonl": "line 1 of number.jsonl holds no text under 'text'; name another --text-column",
    "surrogate.jsonl": "line 1 of surrogate.jsonl holds half a surrogate pair; mend or remove it",
    "short.parquet": "short.parquet is no whole Parquet file (",
    "empty.parquet": "empty.parquet is no whole Parquet file (",
    "cut.parquet": "cannot read cut.parquet: ",
    "body.parquet": "body.parquet has no column 'text'; it has body, n; name one with --text-column",
    "body.parquet --text-column n": "column 'n' of body.parquet holds int64, not text; name another with --text-column",
    "twice.parquet": "twice.parquet has no column 'text'; it has text, text",
    "short.jsonl.gz": "short.jsonl.gz is no whole gzip file (",
    "plain.jsonl.gz": "plain.jsonl.gz is no whole gzip file (",
    "broken.txt.gz": "broken.txt.gz is no whole gzip file (",
    "good.txt --seed -1": "--seed must be from 0 to 2,147,483,647, not -1",
    "good.txt --held-out 1": "the share held out must be at least 0 and below 1, not 1.0",
    "good.txt --held-out nan": "the share held out must be at least 0 and below 1, not nan",
    "good.txt --limit-tokens 0": "the limit must be from 1 to 10,000,000,000,000 tokens, not 0",
    "good.txt --tokeniser bpe:": "tokeniser 'bpe:': write bpe:VOCAB with a vocabulary of 257 to 1,048,576",
    "good.txt --tokeniser bpe:12": "tokeniser 'bpe:12': write bpe:VOCAB",
    f"good.txt --tokeniser bpe:{'9' * 5000}": "tokeniser 'bpe:999",
    "good.txt --tokeniser=": "an empty value of --tokeniser; leave it out or fill it in",
    f"good.txt --tokeniser {LONG}": "unknown tokeniser 'xxx",
    "good.txt --tokeniser tok": "cannot read the tokeniser tok/tokenizer.json (",
    "good.txt --tokeniser latin-tok": "cannot read the tokeniser latin-tok/tokenizer.json (",
    "good.txt --tokeniser bad-tok": "cannot read the tokeniser bad-tok/tokenizer.json (Is a directory)",
    "good.txt --tokeniser bare-tok": "tokeniser bare-tok has none of the separators <|endoftext|>,",
    "good.txt --tokeniser pipe": "cannot read the tokeniser pipe/tokenizer.json (Not a directory)",
    "good.txt --out=": "an empty value of --out; leave it out or fill it in",
    "good.txt --out .": ". holds files but no packed corpus; name a folder that is new or empty",
    "good.txt --out mine": "mine holds files but no packed corpus",
    "good.txt --out good.txt": "cannot write to good.txt: File exists; name another folder",
    "good.txt --out good.txt/a": "cannot write to good.txt/a: Not a directory",
    "good.txt --out pipe": "cannot write to pipe: File exists",
    "good.txt --out /dev/full": "cannot write to /dev/full: File exists",
    "good.txt --out /proc/out": "cannot write to /proc/out: No such file or directory",
    f"good.txt --out {LONG}": f"cannot write to {LONG}: File name too long",
    "good.txt --out app": "cannot read app/manifest.json (format is missing); restore it, or pack into another folder",
    "good.txt --out list": "cannot read list/manifest.json (",
    "good.txt --out few": "cannot read few/manifest.json (",
    "good.txt --out latin-app": "cannot read latin-app/manifest.json (",
    "good.txt --out bad-app": "cannot read bad-app/manifest.json (",
    "good.txt --out newer": "newer is packed in format 99, this version reads 1; pack again",
}
GENERATED = {
    "data": "cannot tell the format of data;",
    "/dev/full": "cannot tell the format of /dev/full;",
    "a\nb.jsonl": "the name 'a\\nb.jsonl' holds what cannot be shown; name another file",
    "b\udcff.jsonl": "'b\\udcff.jsonl' is no UTF-8; rename what it stands for",
    "/proc/data.parquet": "cannot write /proc/data.parquet: ",
    "pipe.jsonl": "pipe.jsonl is there already",
    "full.jsonl": "full.jsonl is there already",
    "mine.parquet": "mine.parquet is there already",
    "notes.parquet": "notes.md is there already",
}


def said(monkeypatch, capsys, folder: Path, *arguments: str) -> str:
    """The one line of a command that fails and leaves the folder as it was."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["structure-first", *arguments])
    before = listing(folder)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    assert (stopped.value.code, out, err.count("\n")) == (2, "", 1) and listing(folder) == before
    return err.removeprefix("structure-first: ")


@pytest.mark.parametrize("given", PACKED)
def test_packing(monkeypatch, capsys, folder, given):
    corpus, *options = given.split(" ")
    arguments = ["--tokeniser", "bytes", "--out", "out", *options]
    assert said(monkeypatch, capsys, folder, "pack", corpus, *arguments).startswith(PACKED[given])


@pytest.mark.parametrize("given", GENERATED)
def test_generating(monkeypatch, capsys, folder, given):
    out, *options = given.split(" ")
    arguments = ["--tokens", "10", "--out", out, *options]
    assert said(monkeypatch, capsys, folder, "generate", "identity", *arguments).startswith(GENERATED[given])

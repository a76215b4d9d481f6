"""Bad calls, every one answered in one line, with exit status 2 and nothing changed on the disk.

A row is a command line, some of the line that is expected, and the files that it needs beside those of `PREPARED`.
"""

import hashlib
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from structure_first import cli
from structure_first.evidence.store import COLUMNS, FORMAT

TINY = """
shape: {layers: 1, heads: 2, width: 32}
stage_one: {source: identity, settings: {length: 4, vocab: 8}, steps: 4, batch: 4, lr: 1e-3}
transfer: {embeddings: fresh}
corpus: {name: ./texts, tokeniser: bytes, context: 16, held_out: 0.2}
stage_two: {steps: 6, batch: 4, lr: 1e-3}
compute: {precision: float32}
"""
CLAIM = "- {{id: a, statement: b, paper: c, tuned: {{queries: [{}]}}}}"
PAIR = "[[dyck, random init]]"
QUERY = (
    f"{{experiment: haystack, metric: accuracy, compare: {PAIR}, differ: [stage_one, transfer], reproduced_from: 0.1}}"
)
NOTEBOOK = """{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code", "id": "a",
"metadata": {"tags": ["parameters"]}, "source": "", "outputs": [], "execution_count": null}]}"""
ROWS = "".join(f'{{"text": "{number:020}"}}\n' for number in range(40))
LONG, HUGE = "n" * 300, "9" * 40
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"

PREPARED = {
    "tiny.yaml": TINY,
    **{f"texts/{number}.txt": f"document {number} " + "lorem ipsum " * (number % 9) for number in range(20)},
    "rows.jsonl": ROWS,
    "latin.txt": b"caf\xe9\n",
    "binary.txt": b"\0\1\2",
    "empty.txt": "",
    "tokenizer.json": "{}",
    "file": "",
    "folder.parquet/inside": "",
    "results/haystack/manifest.json": f'{{"format": {FORMAT}, "runs": {{}}}}',
    "claims.yml": CLAIM.format(QUERY),
}


def yaml(old: str, new: str) -> dict[str, str]:
    """`run.yaml`: the tiny configuration with some text replaced."""
    assert old in TINY
    return {"run.yaml": TINY.replace(old, new, 1)}


def rows(**columns: object) -> bytes:
    """A file of rows with some columns changed, or left out where None."""
    whole = {name: ["a"] if kind == "str" else [1] for name, kind in COLUMNS.items()} | columns
    return pd.DataFrame({name: value for name, value in whole.items() if value is not None}).to_parquet()


def store(rows: bytes | str | None = None, manifest: bytes | str | None = None) -> dict[str, bytes | str]:
    given = {"rows.parquet": rows, "manifest.json": manifest}
    return {f"results/haystack/{name}": content for name, content in given.items() if content is not None}


COMMAND = [
    ("genrate", "unknown verb 'genrate'; did you mean 'generate'?"),
    ("it\\'s", 'unknown verb "it\'s"'),
    ("'a\nb'", "unknown verb"),
    ("claim", "unknown verb 'claim'; did you mean 'claims'?"),
    ("xyzzy", "unknown verb 'xyzzy'; known: bench, book, claims, doctor, generate, merge, pack, p"),
    ("--versoin", "unknown option '--versoin'; did you mean '--version'?"),
    ("-x", "unknown option '-x'"),
    ("''", "an empty value; leave it out or fill it in"),
    ("'' ''", "an empty value"),
    (f"{LONG}", "unknown verb"),
    ("🤖", "unknown verb '🤖'"),
    *((words, "is no UTF-8; rename what it stands for") for words in ("run caf\udce9", "train caf\udce9.yaml")),
    ("claims --ledger=\udcff", "is no UTF-8; rename what it stands for"),
    ("sources more", "extra argument"),
    ("sources --verbose", "unknown option '--verbose'"),
    ("sources --help=1", "Option '--help' does not take a value"),
    ("--version=2 sources", "does not take a value"),
]
GENERATE = [
    ("generate", "Missing argument 'name'"),
    ("generate dyck", "Missing option"),
    ("generate dyck --tokens 5", "Missing option '--out'"),
    ("generate dyck --out a.parquet", "Missing option '--tokens'"),
    ("generate '' --tokens 5 --out a.parquet", "an empty value"),
    ("generate dyck --tokens= --out a.parquet", "an empty value of --tokens"),
    ("generate dyck --tokens 5 --out ''", "an empty value"),
    ("generate dyck --tokens 5 --out", "Option '--out' requires an argument"),
    ("generate dyck --tokens five --out a.parquet", "Invalid value for '--tokens'"),
    ("generate dyck --tokens 1.5 --out a.parquet", "Invalid value for '--tokens'"),
    ("generate dyck --tokens nan --out a.parquet", "Invalid value for '--tokens'"),
    ("generate dyck --tokens 0 --out a.parquet", "the number of tokens must be from 1"),
    ("generate dyck --tokens -5 --out a.parquet", "tokens must be from 1 to 1,000,000,000,000, not -5"),
    (f"generate dyck --tokens {HUGE} --out a.parquet", "the number of tokens must be from 1"),
    (f"generate dyck --tokens {'9' * 5000} --out a.parquet", "Invalid value for '--tokens'"),
    ("generate dyck --tokens 5 --seed -1 --out a.parquet", "--seed must be from 0 to 2,147,483,647, not -1"),
    (f"generate dyck --tokens 5 --seed {2**63} --out a.parquet", "--seed must be from 0 to 2,147,483,647, not 9,223"),
    (f"generate dyck --tokens 5 --seed {HUGE} --out a.parquet", "--seed must be from 0 to"),
    ("generate dyck --tokens 5 --seed one --out a.parquet", "Invalid value for '--seed'"),
    ("generate dick --tokens 5 --out a.parquet", "unknown source 'dick'; did you mean 'dyck'?"),
    ("generate shufled:dyck --tokens 5 --out a.parquet", "unknown control 'shufled'; did you mean 'shuffled'?"),
    ("generate shuffled:dyk --tokens 5 --out a.parquet", "unknown source 'dyk'; did you mean 'dyck'?"),
    ("generate shuffled: --tokens 5 --out a.parquet", "unknown source ''"),
    ("generate dyck+ --tokens 5 --out a.parquet", "unknown source ''"),
    ("generate + --tokens 5 --out a.parquet", "unknown source ''"),
    ("generate dyck --tokens 5 --out a.csv", "format of a.csv; its name must end in one of .parquet, .jsonl, .json"),
    ("generate dyck --tokens 5 --out .", "must end in one of .parquet, .jsonl"),
    ("generate dyck --tokens 5 --out folder.parquet", "generate did not make it; remove it or name another file"),
    ("generate dyck --tokens 5 --out file/a.parquet", "cannot write file/a.parquet: "),
    ("generate dyck --tokens 5 --out ~nosuchuser/a.parquet", "there is no user of that name"),
    ("generate dyck --tokens 5 --out=~nosuchuser/a.parquet", "there is no user of that name"),
    ("generate dyck --tokens 5 --out=~/a.parquet", "no shell expands ~ behind a =; write --out ~/a.parquet"),
    (f"generate dyck --tokens 5 --out {LONG}.parquet", "File name too long"),
    ("generate dyck --tokens 5 --out a.parquet --length 7", "length must be even, not 7"),
    ("generate dyck --tokens 5 --out a.parquet --length -2", "length must be from 1 to 65,536, not -2"),
    ("generate dyck --tokens 5 --out a.parquet --length", "option '--length' has no value"),
    ("generate dyck --tokens 5 --out a.parquet --length=", "an empty value of --length"),
    ("generate dyck --tokens 5 --out a.parquet --lenght 8", "dyck '--lenght'; did you mean '--length'?"),
    ("generate dyck --tokens 5 --out a.parquet --sed 8", "option of generate dyck '--sed'; did you mean '--seed'?"),
    ("generate identity --tokens 5 --out a.parquet --k 8", "unknown option of generate identity '--k'"),
    ("generate dyck --tokens 5 --out a.parquet --length 8.5", "length must be a whole number"),
    ("generate dyck --tokens 5 --out a.parquet --length 1e99", "length must be a whole number"),
    (f"generate dyck --tokens 5 --out a.parquet --k {HUGE}", "k must be from 1 to 65,536"),
    ("generate dyck --tokens 5 --out a.parquet --p nan", "option --p takes a number, not 'nan'"),
    ("generate dyck --tokens 5 --out a.parquet --p inf", "option --p takes a number, not 'inf'"),
    ("generate dyck --tokens 5 --out a.parquet --p 1e999", "p must be from 0 to 1, not inf"),
    ("generate dyck --tokens 5 --out a.parquet --p -0.5", "p must be from 0 to 1, not -0.5"),
    ("generate dyck --tokens 5 --out a.parquet -x 3", "unexpected argument '-x'"),
    ("generate dyck --tokens 5 --out a.parquet 3 4", "unexpected argument '3'"),
    ("generate dyck --tokens 5 --out a.parquet extra", "option 'extra' has no value"),
    ("generate eca --tokens 5 --out a.parquet --rule 256", "rule must be from 0 to 255, not 256"),
    ("generate eca --tokens 5 --out a.parquet --length 5", "length must be a multiple of width"),
    ("generate stack --tokens 5 --out a.parquet --length 64 --vocab 10", "vocab must be 64 or more"),
    ("generate haystack --tokens 5 --out a.parquet --pairs 0", "pairs must be from 1 to"),
    ("generate addition --tokens 5 --out a.parquet --digits 5000", "digits must be from 1 to 1,000"),
    ("generate identity --tokens 5 --out a.parquet --vocab 1", "vocab must be from 2 to 1,048,576, not 1"),
]
PACK = [
    ("pack", "Missing argument 'corpus'"),
    ("pack rows.jsonl", "Missing option '--tokeniser'"),
    ("pack rows.jsonl --tokeniser bytes", "Missing option '--out'"),
    ("pack rows.jsonl --tokeniser bytes --out p --text-column ''", "an empty value"),
    ("pack rows.jsonl --tokenizer bytes --out p", "unknown option '--tokenizer'; did you mean '--tokeniser'?"),
    (f"pack {LONG} --tokeniser bytes --out p", "unknown corpus 'nnn"),
    ("pack rows.jsonl --tokeniser bytes --out ~nosuchuser/p", "there is no user of that name"),
    ("pack rows.jsonl --tokeniser bpe:many --out p", "write bpe:VOCAB with a vocabulary of 257 to 1,048,576"),
    ("pack rows.jsonl --tokeniser bpe:-300 --out p", "write bpe:VOCAB with a vocabulary of 257 to 1,048,576"),
    ("pack rows.jsonl --tokeniser tokenizer.json --out p", "cannot read the tokeniser tokenizer.json"),
    ("pack rows.jsonl --tokeniser latin.txt --out p", "cannot read the tokeniser latin.txt"),
    ("pack rows.jsonl --tokeniser texts --out p", "cannot read the tokeniser texts/tokenizer.json (No such file"),
    ("pack rows.jsonl --tokeniser bytes --out p --held-out -1", "the share held out must be at least 0 and below 1"),
    ("pack rows.jsonl --tokeniser bytes --out p --held-out some", "Invalid value for '--held-out'"),
    ("pack rows.jsonl --tokeniser bytes --out p --limit-tokens -1", "the limit must be from 1 to"),
    (f"pack rows.jsonl --tokeniser bytes --out p --limit-tokens {HUGE}", "the limit must be from 1 to"),
    (f"pack rows.jsonl --tokeniser bytes --out p --seed {2**63}", "--seed must be from 0 to 2,147,483,647"),
    ("pack rows.jsonl --tokeniser bytes --out p --text-column none", "has no column 'none'; it has text"),
    ("pack rows.jsonl --tokeniser bytes --out p", "cannot read p/manifest.json", {"p/manifest.json": "{"}),
]
RUN = [
    ("run", "Missing argument 'experiment'"),
    ("run ''", "an empty value"),
    ("run haystak", "unknown experiment 'haystak'; did you mean 'haystack'?"),
    (f"run {LONG}", "unknown experiment"),
    ("run haystack --scale smok", "unknown scale 'smok'; did you mean 'smoke'?"),
    ("run haystack --scale ''", "an empty value"),
    ("run haystack --seeds 0", "--seeds must be from 1 to 10,000, not 0"),
    ("run haystack --seeds -3", "--seeds must be from 1 to 10,000, not -3"),
    (f"run haystack --seeds {HUGE}", "--seeds must be from 1 to 10,000"),
    ("run haystack --seeds two", "Invalid value for '--seeds'"),
    ("run haystack --seeds nan", "Invalid value for '--seeds'"),
    ("run haystack --first-seed -1", "--first-seed must be from 0 to"),
    (f"run haystack --first-seed {2**63}", "--first-seed must be from 0 to"),
    ("run haystack --workers 0", "--workers must be from 1 to 1,000, not 0"),
    ("run haystack --workers -1", "--workers must be from 1 to 1,000"),
    ("run haystack --workers 1000000", "--workers must be from 1 to 1,000"),
    ("run haystack --scale smoke --part 0", "part must be a share above 0 and at most 1, not 0"),
    ("run haystack --scale smoke --part 1.5", "part must be a share above 0 and at most 1, not 1.5"),
    ("run haystack --scale smoke --part nan", "part must be a share above 0 and at most 1, not nan"),
    ("run haystack --scale smoke --part 0.5 --plan", "--plan is of whole runs"),
    ("run haystack --scale smoke --cells ''", "an empty value"),
    ("run haystack --scale smoke --cells=", "an empty value of --cells"),
    ("run haystack --scale smoke --cells ,", "unknown cell ''"),
    ("run skills --cells '?'", "unknown cell '?'; known: addition / delete / attention, addition"),
    ("run skills --cells '?'", ", and 345 more"),
    ("run haystack --scale smoke --cells 'random int'", "did you mean 'random init'?"),
    ("run haystack --scale smoke --cells '[' --plan", "unknown cell '['"),
    ("run haystack_search --scale gpu", "no cells at scale gpu; scales at which it has some: laptop"),
    ("run additive_2x64_tuning --scale gpu", "no cells at scale gpu; scales at which it has some: smoke, laptop"),
    ("run haystack --scale smoke --device tpu", "unknown device 'tpu'"),
    ("run haystack --scale smoke --device cudda", "unknown device 'cudda'; did you mean 'cuda'?"),
    ("run haystack --scale smoke --device tpu --plan", "unknown device 'tpu'"),
    ("run haystack --scale smoke --out file", "file is a file; name a folder with --out"),
    ("run haystack --scale smoke --out file --plan", "file is a file; name a folder with --out"),
    ("run haystack --scale smoke --out file/more", "cannot write to file/more/haystack"),
    (f"run haystack --scale smoke --out {LONG}", "File name too long"),
    ("run haystack --scale smoke --out ~nosuchuser", "there is no user of that name"),
    ("run haystack --plna", "unknown option '--plna'; did you mean '--plan'?"),
    ("run haystack more", "extra argument"),
    ("verify haystack --workers -1", "--workers must be from 1 to 1,000, not -1"),
    *(
        ("run haystack --scale smoke --workers 1 --out other", line, {f"other/haystack/{name}": content})
        for line, name, content in [
            ("cannot read manifest", "manifest.json", "{"),
            ("cannot read manifest", "manifest.json", "[]"),
            ("cannot read manifest", "manifest.json", "3"),
            ("cannot read manifest", "manifest.json", b"\xff\xfe"),
            ("cannot read manifest", "manifest.json", f'{{"format": {FORMAT}}}'),
            ("was written in format 1", "manifest.json", '{"format": 1, "runs": {}}'),
            ("was written in format 99", "manifest.json", '{"format": 99, "runs": {}}'),
            ("cannot read results", "rows.parquet", b"PAR1"),
            ("cannot read results", "rows.parquet", b""),
            ("cannot read results", "rows.parquet", rows(value=None)),
            ("cannot read results", "rows.parquet", rows(seed=["one"])),
            ("has rows of runs that", "rows.parquet", rows()),
        ]
    ),
    ("run haystack --scale smoke --workers 1 --out other", "cannot ", {"other/haystack": "a file"}),
]
CONFIG = [
    (verb + line, fragment, *files)
    for verb in ("train", "plan")
    for line, fragment, *files in [
        ("", "Missing argument 'CONFIG'"),
        (" ''", "an empty value"),
        (" none.yaml", "cannot read none.yaml: No such file or directory; write one like"),
        (" texts", "cannot read texts: Is a directory"),
        (" file/run.yaml", "cannot read file/run.yaml: Not a directory"),
        (f" {LONG}.yaml", "File name too long"),
        (" ~nosuchuser/run.yaml", "there is no user of that name"),
        (" latin.txt", "latin.txt is no YAML"),
        (" binary.txt", "binary.txt is no YAML"),
        (" empty.txt", "empty.txt is empty"),
        (" rows.jsonl", "rows.jsonl is no YAML"),
        (" run.yaml", "an alias; write out what it stands for", {"run.yaml": BOMB}),
        (" run.yaml", "more than 16 levels deep", {"run.yaml": "[" * 1100}),
        (" run.yaml", "has more than 65,536 bytes", {"run.yaml": "#" * 70_000}),
        (" run.yaml", "must be a section", {"run.yaml": "3"}),
        (" tiny.yaml --steps 0", "--steps must be 1 or more, not 0"),
        (" tiny.yaml --steps -1", "--steps must be 1 or more, not -1"),
        (" tiny.yaml --steps few", "Invalid value for '--steps'"),
        (" tiny.yaml more", "extra argument"),
        (" run.yaml", "seed must be from 0 to", yaml("shape:", "seed: -1\nshape:")),
        (" run.yaml", "seed must be from 0 to", yaml("shape:", f"seed: {2**63}\nshape:")),
        (" run.yaml", "seed must be a whole number, not 'a'", yaml("shape:", "seed: a\nshape:")),
        (" run.yaml", "layers must be 1 or more, at most 1,024", yaml("layers: 1", "layers: 1000000000")),
        (" run.yaml", "heads must be 1 or more, at most 1,024, not 0", yaml("heads: 2", "heads: 0")),
        (" run.yaml", "width 33 is not a multiple of 2 heads", yaml("width: 32", "width: 33")),
        (" run.yaml", "dropout must be at least 0 and below 1", yaml("width: 32", "width: 32, dropout: 2.0")),
        (" run.yaml", "dropout must be at least 0 and below 1", yaml("lr: 1e-3", "lr: 1e-3, dropout: 2.0")),
        (" run.yaml", "unknown key 'shape.hds'; did you mean 'shape.heads'?", yaml("heads", "hds")),
        (" run.yaml", "unknown shape 'gtp2'; did you mean 'gpt2'?", yaml("{layers: 1, heads: 2, width: 32}", "gtp2")),
        (" run.yaml", "unknown source 'identiti'", yaml("identity", "identiti")),
        (" run.yaml", "did you mean 'length'?", yaml("length: 4", "lenght: 4")),
        (" run.yaml", "lr must be a finite number", yaml("1e-3", ".inf")),
        (" run.yaml", "lr must be above 0", yaml("1e-3", "0")),
        (" run.yaml", "lr must be above 0, at most 1000", yaml("1e-3", "1e300")),
        (
            " run.yaml",
            "steps must be 1 or more, and at most 9,007,199,254,740,992, not 0",
            yaml("steps: 6", "steps: 0"),
        ),
        (" run.yaml", "steps must be a whole number", yaml("steps: 6", f"steps: {HUGE}.5")),
        (" run.yaml", "batch must be 1 or more, and at most 16,777,216, not 999", yaml("batch: 4", f"batch: {HUGE}")),
        (" run.yaml", "is the former name of", yaml("batch: 4, lr", "batch: 4, rate: 1, lr")),
        (" run.yaml", "the key 'steps' stands twice", yaml("steps: 6", "steps: 6, steps: 7")),
        (" run.yaml", "lower stage_one.steps", yaml("steps: 4", "steps: 400")),
        (" run.yaml", "unknown transfer rule for embeddings 'frsh'", yaml("fresh", "frsh")),
        (" run.yaml", "'mean' is for embeddings and positions", yaml("embeddings: fresh", "mlp: mean")),
        (" run.yaml", "context must be from 1 to 65,535, not 65,536", yaml("context: 16", "context: 65536")),
        (" run.yaml", "held_out must be a share above 0", yaml("held_out: 0.2", "held_out: 0")),
        (" run.yaml", "seed must be from 0 to", yaml("held_out: 0.2", "held_out: 0.2, seed: -1")),
        (" run.yaml", "limit_tokens must be context + 1", yaml("context: 16", "context: 16, limit_tokens: 3")),
        (" run.yaml", "name either a corpus", yaml("name: ./texts", "packed: x, name: ./texts")),
        (
            " run.yaml",
            "there is no packed corpus in nowhere",
            yaml("name: ./texts, tokeniser: bytes, context: 16, held_out: 0.2", "packed: nowhere, context: 16"),
        ),
        (" run.yaml", "there is no file ./none", yaml("./texts", "./none")),
        (" run.yaml", "there is no user", yaml("./texts", "~nosuchuser/texts")),
        (" run.yaml", "there is no file ./nnn", yaml("./texts", f"./{LONG}")),
        (" run.yaml", "unknown corpus ''", yaml("./texts", "''")),
        (" run.yaml", "unknown corpus 'langage'; did you mean 'language'?", yaml("./texts", "langage")),
        (" run.yaml", "write bpe:VOCAB", yaml("bytes", "'bpe:1'")),
        (" run.yaml", "write bpe:VOCAB", yaml("bytes", f"'bpe:{'9' * 5000}'")),
        (" run.yaml", "cannot read the tokeniser texts/tokenizer.json", yaml("bytes", "texts")),
        (" run.yaml", "unknown precision 'float8'", yaml("float32", "float8")),
        (" run.yaml", "micro_batch must be 1 or more", yaml("precision: float32", "micro_batch: 0")),
        (" run.yaml", "unknown schedule 'cosin'", yaml("lr: 1e-3", "lr: 1e-3, schedule: cosin")),
    ]
]
TRAIN = [
    ("train tiny.yaml --device gpu", "unknown device 'gpu'"),
    ("train tiny.yaml --device ''", "an empty value"),
    ("train tiny.yaml --out ''", "an empty value"),
    ("train tiny.yaml --out file", "cannot write to file: it is a file; name another --out folder"),
    ("train tiny.yaml --out file/more", "cannot write to file/more"),
    (f"train tiny.yaml --out {LONG}", "File name too long"),
    ("train tiny.yaml --out run", "run holds results, but of no training", {"run/rows.parquet": rows()}),
    ("train tiny.yaml --out run", "cannot read results", {"run/rows.parquet": b"PAR1", "run/config.yaml": TINY}),
    ("train run.yaml", "cannot read weights from none:", yaml("embeddings: fresh", "mlp: from(none)")),
    ("train run.yaml", "cannot read weights from texts:", yaml("embeddings: fresh", "mlp: from(texts)")),
    ("train run.yaml", "cannot read weights from latin.txt:", yaml("embeddings: fresh", "mlp: from(latin.txt)")),
    ("train run.yaml", "corpus.vocab is 7 but the tokeniser has 256", yaml("bytes", "bytes, vocab: 7")),
    (
        "train run.yaml",
        "needs more memory than there is",
        yaml(
            TINY[TINY.index("context: 16") :],
            "context: 65535}\nstage_two: {steps: 6, batch: 4, lr: 1, held_out: 16777216}",
        ),
    ),
]
PLAN = [
    ("plan tiny.yaml --gpu h1000", "unknown GPU 'h1000'; did you mean 'h100'?"),
    ("plan tiny.yaml --gpu H100", "unknown GPU 'H100'"),
    ("plan tiny.yaml --gpu ''", "an empty value"),
    ("plan tiny.yaml --gpus 0", "--gpus must be from 1 to 65,536"),
    ("plan tiny.yaml --gpus -8", "--gpus must be from 1 to 65,536"),
    (f"plan tiny.yaml --gpus {HUGE}", "--gpus must be from 1 to 65,536"),
    ("plan tiny.yaml --price -1", "--price must be from 0 to 1,000,000, not -1.0"),
    ("plan tiny.yaml --price nan", "--price must be from 0 to 1,000,000, not nan"),
    ("plan tiny.yaml --price inf", "--price must be from 0 to 1,000,000, not inf"),
    ("plan tiny.yaml --price 1e300", "--price must be from 0 to 1,000,000"),
    ("plan tiny.yaml --price free", "Invalid value for '--price'"),
    ("plan tiny.yaml --utilisation 0", "--utilisation must be a share above 0 and at most 1"),
    ("plan tiny.yaml --utilisation nan", "--utilisation must be a share above 0 and at most 1"),
    ("plan tiny.yaml --utilisation 30", "--utilisation must be a share above 0 and at most 1"),
    ("plan tiny.yaml --utilization 0.3", "unknown option '--utilization'; did you mean '--utilisation'?"),
]
CLAIMS = [
    ("claims --results none", "there is no folder none; go to the folder of the book, or name it with --results"),
    ("claims", "there is no folder book/results"),
    ("claims --results file --ledger claims.yml", "there is no folder file"),
    (f"claims --results {LONG}", "File name too long"),
    ("claims --results", "requires an argument"),
    ("claims --results ''", "an empty value"),
    ("claims --results results --ledger none.yml", "cannot read none.yml: No such file or directory; go to the folder"),
    ("claims --results results --ledger texts", "cannot read texts: Is a directory"),
    (f"claims --results results --ledger {LONG}", "File name too long"),
    ("claims --results results --ledger latin.txt", "latin.txt is no YAML"),
    ("claims --results results --ledger empty.txt", "cannot read the claims in empty.txt: it must be a list, not None"),
    ("claims --results results --ledger binary.txt", "binary.txt is no YAML"),
    ("claims --resluts x", "unknown option '--resluts'; did you mean '--results'?"),
    ("claims --json more", "extra argument"),
    *(
        ("claims --results results --ledger bad.yml", line, {"bad.yml": text})
        for text, line in [
            ("- id: [", "bad.yml is no YAML"),
            ("[" * 1100, "more than 16 levels deep"),
            (BOMB, "an alias; write out what it stands for"),
        ]
    ),
    *(
        ("claims --results results --ledger bad.yml", f"cannot read the claims in bad.yml: {more}", {"bad.yml": text})
        for text, more in [
            ("3", "it must be a list, not 3; write them as the book's claims.yml does"),
            ("- 3", "[0] must be an object, not 3"),
            ("a: b", "it must be a list"),
            ("- [a]", "[0] must be an object"),
            ("- {id: a}", "[0].statement is missing"),
            ("- {id: 1, statement: b, paper: c}", "[0].id must be text, not 1"),
            (f"{CLAIM}\n{CLAIM}".format(QUERY, QUERY), "the id 'a' stands twice"),
            (CLAIM.format("3"), "[0].tuned.queries[0] must be an object, not 3"),
            (CLAIM.format("[a]"), "[0].tuned.queries[0] must be an object"),
            (CLAIM.format("{experiment: haystack}"), "[0].tuned.queries[0].metric is missing"),
            (CLAIM.format(QUERY.replace(PAIR, "null")), "[0].tuned.queries[0].compare must be a list, not None"),
            (CLAIM.format(QUERY.replace(PAIR, "[[a]]")), "[0].tuned.queries[0].compare[0] must be a list of 2"),
            (CLAIM.format(QUERY.replace(PAIR, "3")), "[0].tuned.queries[0].compare must be a list, not 3"),
            (CLAIM.format(QUERY.replace("experiment: haystack, ", "")), "[0].tuned.queries[0].experiment is missing"),
            (CLAIM.format(QUERY.replace("haystack", "[a]")), "[0].tuned.queries[0].experiment must be text"),
        ]
    ),
    (
        "claims --results results --ledger bad.yml",
        "claim 'a' compares nothing; name pairs of cells under compare",
        {"bad.yml": CLAIM.format(QUERY.replace(PAIR, "[]"))},
    ),
    *(
        ("claims --results results --ledger claims.yml", line, store(*files))
        for line, *files in [
            ("cannot read results", b"PAR1"),
            ("cannot read results", b""),
            ("cannot read results", rows(step=["many"])),
            ("cannot read results", rows(run=None)),
            ("has rows of runs that", rows()),
            ("cannot read manifest", None, "{"),
            ("cannot read manifest", None, "null"),
            ("cannot read manifest", None, b"\xff"),
            ("cannot read manifest", None, f'{{"format": {FORMAT}, "runs": 3}}'),
            ("cannot read manifest", None, f'{{"format": {FORMAT}, "runs": []}}'),
            ("cannot read manifest", None, f'{{"format": {FORMAT}, "runs": {{"a": 3}}}}'),
            ("cannot read manifest", None, f'{{"format": {FORMAT}, "runs": {{"a": {{"recipe": 3}}}}}}'),
            ("was written in format 1", None, '{"format": 1, "runs": {}}'),
            (f"was written in format {FORMAT + 1}", None, f'{{"format": {FORMAT + 1}, "runs": {{}}}}'),
        ]
    ),
]
TOC = {"_config.yml": "title: Tiny", "book/_toc.yml": "root: intro", "book/intro.md": "# Tiny", "book/claims.yml": "[]"}
CHAPTERS = "format: jb-book\nroot: intro\nchapters: [{file: %s}]"
CHAPTER = TOC | {"book/_toc.yml": CHAPTERS % "a"}
JUMP = TOC | {"book/_toc.yml": CHAPTERS % "03_jump", "book/03_jump.ipynb": NOTEBOOK}
BOOK = [
    ("book", "run this from the top of the repository"),
    ("book --scale laptp", "unknown scale 'laptp'; did you mean 'laptop'?"),
    ("book --scale ''", "an empty value"),
    ("book --chapter ''", "an empty value"),
    ("book more", "extra argument"),
    ("book --chapter 4", "unknown chapter '4'", TOC),
    ("book --chapter 04", "unknown chapter '04'; did you mean '03'?", JUMP),
    *(
        ("book", f"book/_toc.yml: {said}", TOC | {"book/_toc.yml": toc})
        for toc, said in (
            ("a: [", "while parsing a flow node"),
            (b"\xff", "'utf-8' codec can't decode"),
            ("[" * 1100, "maximum recursion depth exceeded"),
            ("3", "toc is not a mapping"),
            ("", "toc is not a mapping"),
            ("format: jb-book", "'root' key not found"),
            ("root: intro\nformat: [jb-book]", "unhashable type"),
            ("root: intro\nchapters: [{file: a}]", "Unknown keys found: {'chapters'}"),
        )
    ),
    ("book", "cannot read the claims in", TOC | {"book/claims.yml": "- 3"}),
    ("book", "a.ipynb is not a Jupyter notebook", CHAPTER | {"book/a.ipynb": NOTEBOOK[: NOTEBOOK.index("[")] + "3}"}),
    ("book", "lists none, but there is no none.md", TOC | {"book/_toc.yml": "root: none"}),
    ("book", "a.ipynb is not a Jupyter notebook", CHAPTER | {"book/a.ipynb": "{"}),
    ("book", "a.ipynb is not a Jupyter notebook", CHAPTER | {"book/a.ipynb": "[]"}),
    ("book", "a.ipynb is not a Jupyter notebook", CHAPTER | {"book/a.ipynb": b"\xff"}),
    (
        "book",
        "a.ipynb has no cell tagged 'parameters'",
        CHAPTER | {"book/a.ipynb": NOTEBOOK.replace("param", "p")},
    ),
    ("book", "cannot build the book: ", CHAPTER | {"book/a.ipynb": NOTEBOOK, "book/_build": "a file"}),
]
BENCH = [
    ("bench --quick --out texts", "texts is a folder; name a file with --out"),
    ("bench --only x", "unknown part of the bench 'x'"),
    ("bench --against none.json", "cannot read none.json: No such file or directory; name a file that"),
    ("bench --against rows.jsonl", "cannot read rows.jsonl: it holds no ratios; name a file that"),
    ("bench more", "extra argument"),
]
OTHERS = [
    ("merge", "Missing argument 'folder'"),
    ("merge nowhere", "there are no results in nowhere; name a folder such as book/results"),
    ("merge rows.jsonl", "there are no results in rows.jsonl"),
    ("merge texts --out there", "there are no results in texts; name a folder such as book/results"),
    ("merge texts more", "extra argument"),
    ("slides", "run this from the top of the repository"),
    ("slides --scale large", "unknown scale 'large'; did you mean"),
    ("slides more", "extra argument"),
    ("pdf", "run this from the top of the repository"),
    ("pdf --out texts", "texts is a folder; name a file with --out"),
    ("pdf --out ''", "an empty value"),
    ("doctor now", "extra argument"),
    ("doctor --times", "unknown option '--times'; did you mean '--time'?"),
    ("verify", "Missing argument 'experiment'"),
    ("verify nothing", "unknown experiment 'nothing'"),
    ("verify haystack --sample 0", "--sample must be from 1 to 10,000, not 0"),
    ("verify haystack --out there", "unknown option '--out'; did you mean '--results'?"),
    ("verify haystack --cells x", "unknown cell 'x'; known: "),
    ("sample", "Missing argument 'run'"),
    ("sample texts --tokens 0", "tokens must be from 1 to"),
    ("sample texts --temperature 0", "temperature must be above 0"),
    ("sample texts", "texts holds no trained run"),
]
TABLE = [*COMMAND, *GENERATE, *PACK, *RUN, *CONFIG, *TRAIN, *PLAN, *CLAIMS, *BOOK, *BENCH, *OTHERS]


def prepare(folder: Path, files: dict[str, bytes | str]) -> None:
    for name, content in (PREPARED | files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def digest(folder: Path) -> str:
    """Of every name and every byte below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(f"{path.relative_to(folder)}\n".encode())
        found.update(path.read_bytes() if path.is_file() else b"folder")
    return found.hexdigest()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0][:60])
def test_a_bad_call_is_one_line(tmp_path, monkeypatch, capsys, row):
    line, fragment, *files = row
    prepare(tmp_path, files[0] if files else {})
    before = digest(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["structure-first", *shlex.split(line)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, "")
    assert err.startswith("structure-first: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert fragment in err
    assert digest(tmp_path) == before


def test_there_are_many_of_them():
    assert len(TABLE) >= 200 and len({repr(row) for row in TABLE}) == len(TABLE)


def started(*arguments: str | bytes, folder: Path, **options) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "structure_first.cli", *arguments]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, env=environment, **options)


def is_one_line(running: subprocess.Popen, fragment: str) -> None:
    err = running.communicate(timeout=120)[1].decode()
    assert running.returncode == 2 and err.count("\n") == 1, err
    assert err.startswith("structure-first: ") and fragment in err


@pytest.mark.parametrize("verb", ["sources", "--help", "--version"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_an_output_that_is_full_is_one_line(tmp_path, verb):
    with open("/dev/full", "w") as full:
        is_one_line(started(verb, folder=tmp_path, stdout=full), "No space left on device; free some space")


def test_a_file_that_may_grow_no_further_is_one_line(tmp_path, monkeypatch, capsys):
    """As on a disk that is full."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split("structure-first generate dyck --tokens 100000 --out new/a.jsonl"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, "") and err.count("\n") == 1
    assert err.startswith("structure-first: cannot write new/a.jsonl: ") and "free some space" in err
    assert not list(tmp_path.rglob("*.*"))


def test_a_reader_that_has_gone_is_told_nothing(tmp_path):
    """As in `structure-first --help | head -1`."""
    read, write = os.pipe()
    os.close(read)
    running = started("--help", folder=tmp_path, stdout=write)
    os.close(write)
    assert running.communicate(timeout=120)[1] == b"" and running.returncode not in (0, 2)


def test_a_closed_output_is_no_mistake(tmp_path):
    command = [sys.executable, "-P", "-m", "structure_first.cli", "--help"]
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    said = subprocess.run(shell, cwd=tmp_path, capture_output=True)
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")


INTERRUPTED = """
import builtins, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background inherits that it is ignored
from structure_first.cli import main

real = builtins.__import__

def imported(name, *rest):
    if name.startswith(NAME):
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest)

builtins.__import__ = imported
main()
"""


@pytest.mark.parametrize("name", ["typer", "torch", "structure_first.training"])
def test_ctrl_c_while_it_is_still_being_loaded_is_one_line(tmp_path, name):
    code = INTERRUPTED.replace("NAME", repr(name))
    command = [sys.executable, "-c", code, "run", "haystack", "--scale", "smoke", "--plan"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (130, "")
    assert said.stderr == "structure-first: stopped; give the same command again to go on\n"


def test_what_answers_ctrl_c_loads_at_once():
    code = "import sys\nfrom structure_first import cli\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"typer", "torch", "numpy", "pandas", "yaml", "json", "multiprocessing"} & set(loaded)

"""Packing: what is read back is what was given, in whatever way packing was stopped."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from structure_first import cli
from structure_first.data.controls import shuffled
from structure_first.data.corpora import cached, documents, packing, tokenisers
from structure_first.data.corpora.packed import Packed, read_manifest
from structure_first.data.corpora.packed import source as packed_source
from structure_first.data.corpora.packing import pack
from structure_first.errors import UserError
from structure_first.files import locked
from structure_first.model.transformer import Shape, Transformer
from structure_first.training.loop import fit
from structure_first.training.stage import Stage
from structure_first.training.stream import Stream

TEXTS = [f"document {i}: " + "lorem ipsum é dolor\n" * (i % 7) for i in range(300)]


def lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture
def corpus(tmp_path) -> Path:
    return lines(tmp_path / "corpus.jsonl", TEXTS)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read(folder: Path) -> dict[str, list[str]]:
    """The documents of each split."""
    made = tokenisers.saved(folder / tokenisers.FILE, read_manifest(folder)["tokeniser"]["name"])

    def texts(shard: np.ndarray) -> list[str]:
        return [made.decode(part[1:]) for part in np.split(shard, np.flatnonzero(shard == made.separator))[1:]]

    return {split: [*chain.from_iterable(map(texts, Packed(folder, split).shards))] for split in ("train", "held_out")}


documents_of_any_kind = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents_of_any_kind.filter(any), st.sampled_from(["bytes", "bpe:257"]), st.integers(1, 200), st.integers(0, 9))
def test_every_document_comes_back_once_in_order(tmp_path_factory, texts, tokeniser, shard_tokens, tenths):
    folder = tmp_path_factory.mktemp("any")
    made = pack(
        lines(folder / "c.jsonl", texts), tokeniser, folder / "p", shard_tokens=shard_tokens, held_out=tenths / 10
    )
    found, kept = read(folder / "p"), list(dict.fromkeys(filter(None, texts)))
    assert [text for text in kept if text in found["train"]] == found["train"]
    assert [text for text in kept if text in found["held_out"]] == found["held_out"]
    assert sorted(found["train"] + found["held_out"]) == sorted(kept)  # each once, so that none is in both
    assert made["documents"] == {split: len(each) for split, each in found.items()} | {
        "duplicates": len(list(filter(None, texts))) - len(kept)
    }
    assert made["tokens"] == {split: Packed(folder / "p", split).tokens() for split in found}
    assert made == read_manifest(folder / "p") and made["finished"] and made["ended"]


def test_characters_lose_only_what_they_have_no_sign_for(tmp_path):
    pack(lines(tmp_path / "c.jsonl", ["What is 1 + 1?\n2", "naïve\tq"]), "characters", tmp_path / "p", held_out=0.0)
    assert read(tmp_path / "p")["train"] == ["What is 1 + 1?\n2", "na?ve?q"]
    assert Packed(tmp_path / "p").shards[0].tolist()[:3] == [97, ord("W") - 32, ord("h") - 32]


def test_the_split_depends_on_the_document_alone(tmp_path, corpus):
    pack(corpus, "bytes", tmp_path / "all", held_out=0.2)
    pack(lines(tmp_path / "back.jsonl", [*TEXTS[::-1], "another"]), "bpe:300", tmp_path / "back", held_out=0.2)
    pack(corpus, "bytes", tmp_path / "more", held_out=0.5)
    held, back, more = (set(read(tmp_path / name)["held_out"]) for name in ("all", "back", "more"))
    assert held == back - {"another"} and held < more and 30 < len(held) < 90
    trained = set(read(tmp_path / "all")["train"])
    assert not trained & back and trained & more


class Stop(BaseException):
    pass


@pytest.mark.parametrize("tokeniser", ["bytes", "bpe:300"])
def test_a_stopped_packing_goes_on_to_the_same_bytes(tmp_path, corpus, monkeypatch, tokeniser):
    settings = dict(shard_tokens=800, held_out=0.1)
    monkeypatch.setattr(packing, "BATCH", 300)
    pack(corpus, tokeniser, tmp_path / "whole", **settings)
    whole, real = contents(tmp_path / "whole"), packing.write_array
    for calls in (1, 2, 5, 9, 14):
        parts, left = tmp_path / str(calls), iter(range(calls))

        def stopping(path, array, left=left):
            if next(left, None) is None:
                raise Stop
            return real(path, array)

        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(packing, "write_array", stopping)
            pack(corpus, tokeniser, parts, **settings)
        (parts / ".train-00000.npy.0123abcd.tmp").write_text("half")
        if read_manifest(parts)["shards"]:
            with pytest.raises(UserError, match="is not packed to its end; give the same"):
                Packed(parts)
        for _ in range(2):
            pack(corpus, tokeniser, parts, **settings)
            assert contents(parts) == whole


def test_a_killed_packing_goes_on_to_the_same_bytes(tmp_path, corpus, monkeypatch):
    settings = dict(shard_tokens=800, held_out=0.1)
    pack(corpus, "bytes", tmp_path / "whole", **settings)
    child = os.fork()
    if not child:
        try:
            fsync, calls = os.fsync, count()
            monkeypatch.setattr(os, "fsync", lambda file: os.kill(os.getpid(), 9) if next(calls) == 7 else fsync(file))
            pack(corpus, "bytes", tmp_path / "parts", **settings)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert len(read_manifest(tmp_path / "parts")["shards"]) == 3
    assert list((tmp_path / "parts").glob(".*.tmp"))
    pack(corpus, "bytes", tmp_path / "parts", **settings)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_higher_limit_adds_to_what_is_there(tmp_path, corpus):
    for limit in (3000, 9000, 9000, 100):
        made = pack(corpus, "bytes", tmp_path / "parts", limit_tokens=limit, held_out=0.1)
        assert limit <= sum(made["tokens"].values()) < limit + 150 or limit == 100
    pack(corpus, "bytes", tmp_path / "whole", limit_tokens=9000, held_out=0.1)
    parts, whole = (np.concatenate(Packed(tmp_path / name).shards) for name in ("parts", "whole"))
    assert parts.tolist() == whole.tolist() and len(Packed(tmp_path / "parts").shards) == 2


def test_the_same_texts_teach_the_same_bpe_and_held_out_ones_teach_nothing(tmp_path, corpus):
    held = [text for text in TEXTS if packing.hashed([text])[0] < packing.threshold(0.5)]
    changed = lines(tmp_path / "changed.jsonl", [text for text in TEXTS if text not in held])
    for name, path in (("a", corpus), ("b", corpus), ("c", changed)):
        pack(path, "bpe:400", tmp_path / name, held_out=0.5)
    files = [(tmp_path / name / "tokenizer.json").read_bytes() for name in "abc"]
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize(("limit", "read"), [(1000, 257 * 256), (50_000, 50_000 * 8), (200_000, 500_000)])
def test_a_limit_bounds_what_a_bpe_learns_from(monkeypatch, limit, read):
    """By the vocabulary, by the limit, or by as much as is read without one."""
    monkeypatch.setattr(tokenisers, "LEARNT_FROM", 500_000)
    drawn, text = [], "What is 1 + 1?\n2 and nothing more"

    def texts():
        while True:
            drawn.append(len(text))
            yield text

    tokenisers.tokeniser("bpe:257", texts, limit)
    assert read <= sum(drawn) < read + len(text)
    whole, kept = (tokenisers.tokeniser("bpe:300", lambda: TEXTS, each) for each in (None, limit))
    assert tokenisers.digest(whole) == tokenisers.digest(kept), "a small corpus is read whole"


def test_a_corpus_without_an_end_is_read_only_so_far_to_learn_from(tmp_path, monkeypatch):
    def generated(*_):
        for i in range(20_000):
            drawn.append(i)
            yield f"What is {i} + {i}?\n{2 * i}"

    drawn = []
    monkeypatch.setattr("structure_first.data.corpora.mathematics.generated", generated)
    made = pack("math", "bpe:300", tmp_path / "out", limit_tokens=1000)
    assert made["finished"] and not made["ended"] and made["tokeniser"]["vocab"] == 300 and len(drawn) < 5000


def test_a_copy_is_met_once():
    seen = {7}
    assert packing.unseen(np.array([5, 7, 5, 2**64 - 1], np.uint64), seen).tolist() == [True, False, False, True]
    assert seen == {5, 7, 2**64 - 1}


@pytest.fixture
def packed(tmp_path, corpus) -> Path:
    pack(corpus, "bytes", tmp_path / "packed", shard_tokens=3000, held_out=0.2)
    return tmp_path / "packed"


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_windows_are_what_stands_in_the_shards(packed, split):
    source = Packed(packed, split).source(16)
    assert (source.length, source.window, source.vocab) == (17, 16, 256)
    shards = [shard.tobytes() for shard in Packed(packed, split).shards]
    tokens, mask = source.draw(2000, torch.Generator().manual_seed(0))
    assert tokens.shape == mask.shape == (2000, 17) and tokens.dtype == torch.int64
    assert not mask[:, 0].any() and mask[:, 1:].all()
    texts = [bytes(row) for row in tokens.tolist()]
    assert all(any(text in shard for shard in shards) for text in texts)
    if len(shards) > 1:
        assert all(any(text in shard for text in texts) for shard in shards if len(shard) > 500)


def test_every_window_is_drawn_alike(tmp_path):
    pack(lines(tmp_path / "c.jsonl", ["abc", "defgh", "ij"]), "bytes", tmp_path / "p", held_out=0.0, shard_tokens=4)
    shards = [shard.tobytes() for shard in Packed(tmp_path / "p").shards]
    places = [shard[i : i + 3] for shard in shards for i in range(len(shard) - 2)]
    tokens, _ = Packed(tmp_path / "p").source(2).draw(len(places) * 3000, torch.Generator().manual_seed(1))
    drawn, counts = np.unique(tokens.numpy(), axis=0, return_counts=True)
    assert sorted(map(bytes, drawn.tolist())) == sorted(places)
    assert abs(counts - 3000).max() < 6 * 3000**0.5


def test_the_stream_of_a_packed_corpus_is_stateless(packed):
    source = Packed(packed).source(8)
    one, two = (Stream(source, 4, [0, 1], "stage") for _ in range(2))
    assert one(0).tokens.shape == (2, 4, 9)
    later = one(500).tokens
    assert torch.equal(two(500).tokens, later) and not torch.equal(later[0], later[1])
    assert source.at(5).length == 5 and source.at(9) is source and source.teaches


def test_the_loop_trains_on_one_split_and_is_evaluated_on_the_other(packed):
    source = packed_source(packed, 16)
    drawn = {"train": 0, "held_out": 0}

    def counted(source, split):
        def draw(count, generator):
            drawn[split] += count
            return real(count, generator)

        real = source.draw
        return replace(source, draw=draw)

    watched = replace(counted(source, "train"), held_out=counted(source.held_out, "held_out"))
    model = Transformer(Shape(vocab=256, context=17, layers=1, heads=1, width=8), [0])
    rows = fit(model, watched, Stage(steps=20, batch=8, warmup=2, lr=0.01, held_out=50, evaluate_every=10))
    losses = [row["value"] for row in rows if row["metric"] == "loss"]
    assert losses[-1] < losses[0] and drawn["held_out"] >= 50 and drawn["train"] >= 160
    held = b"".join(shard.tobytes() for shard in Packed(packed, "held_out").shards)
    assert all(bytes(row) in held for row in source.held_out.draw(50, torch.Generator().manual_seed(0)).tokens.tolist())
    assert source.at(9).held_out.length == source.at(9).length == 9
    assert shuffled(source).held_out.name == shuffled(source).name


def test_shards_that_changed_are_not_read(packed, corpus):
    shard = packed / "train-00001.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + b"x")
    with pytest.raises(UserError, match=r"train-00001.npy has changed since it was packed; restore it or pack again"):
        Packed(packed)
    Packed(packed, "held_out"), Packed(packed, checked=False)
    with pytest.raises(UserError, match="has changed since it was packed"):
        pack(corpus, "bytes", packed, held_out=0.2)
    shard.write_bytes(whole[:100])
    with pytest.raises(UserError, match="cannot read the shards in"):
        Packed(packed, checked=False)
    shard.unlink()
    with pytest.raises(UserError, match=r"cannot read .*train-00001.npy \(No such file"):
        Packed(packed)


def test_a_tokeniser_that_does_not_match(packed, corpus):
    with pytest.raises(UserError, match=r"shards of another tokeniser \(bytes, not characters\); name another folder"):
        pack(corpus, "characters", packed, held_out=0.2)
    tokenisers.save(tokenisers.Characters(), packed)
    with pytest.raises(UserError, match=r"tokenizer.json is not what made the shards beside it; restore it"):
        pack(corpus, "bytes", packed, held_out=0.2)
    (packed / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"cannot read .*tokenizer.json \(No such file"):
        pack(corpus, "bytes", packed, held_out=0.2)


def test_a_folder_of_something_else(packed, corpus, tmp_path):
    with pytest.raises(UserError, match=r"shards of another held-out share \(0.2, not 0.3\)"):
        pack(corpus, "bytes", packed, held_out=0.3)
    lines(corpus, TEXTS[:-1])
    with pytest.raises(UserError, match=r"shards of another corpus .* name another folder or remove this one"):
        pack(corpus, "bytes", packed, held_out=0.2)
    with pytest.raises(UserError, match=r"there is no packed corpus in .*; make one with structure-first pack"):
        Packed(tmp_path)
    few = '{"format": 1, "shards": [], "tokeniser": {"digest": ""}, "finished": true}'
    for text in ("", "{}", "[]", "null", '{"format": 1}', few, "[" * 200_000):
        (packed / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=r"cannot read .*manifest.json .*; restore it, or pack into another folder"):
            Packed(packed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shards": 3}, "shards must be a list, not 3"),
        ({"shards": [3]}, r"shards\[0\] must be an object, not 3"),
        ({"shards": []}, "tokens.train is not the sum of the shards'"),
        ({"shards": [{"hashes": {"digest": ""}, "train": None}]}, r"shards\[0\].train must be an object, not None"),
        ({"state": 3}, "state must be an object, not 3"),
        (
            {"state": {"position": -1}},
            "state.position must be a whole number from 0 to 9,223,372,036,854,775,807, not -1",
        ),
        ({"tokens": 3}, "tokens must be an object, not 3"),
        ({"tokens": {"train": 3, "held_out": 0, "more": "x"}}, "tokens: unknown key 'more'; known: held_out, train"),
        ({"documents": []}, r"documents must be an object, not \[\]"),
        ({"dtype": "float32"}, "dtype must be 'uint8' or 'uint16' or 'uint32', not 'float32'"),
        ({"finished": 1}, "finished must be true or false, not 1"),
        ({"held_out": float("nan")}, "held_out must be a number, not nan"),
    ],
)
def test_a_manifest_of_another_form_is_one_line(packed, corpus, change, said):
    path = packed / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = contents(packed)
    for call in (lambda: Packed(packed), lambda: pack(corpus, "bytes", packed, held_out=0.2)):
        with pytest.raises(
            UserError, match=rf"cannot read .*manifest.json \({said}\); restore it, or pack into another"
        ):
            call()
    assert contents(packed) == before


def test_whatever_a_manifest_holds_is_read_or_refused(tmp_path, corpus, misshapen):
    folder, options = tmp_path / "out", {"held_out": 0.2, "limit_tokens": 500}
    whole, refused = pack(corpus, "bytes", folder, **options), 0
    for manifest in misshapen(whole | {"finished": False}):
        (folder / "manifest.json").write_text(json.dumps(manifest))
        before = contents(folder)
        try:
            read_manifest(folder)
            packed_source(folder, 4).draw(2, torch.Generator())
            pack(corpus, "bytes", folder, **options)
        except UserError:
            refused += 1
            assert contents(folder) == before
    assert refused > 300


def test_a_file_that_changed_is_another_corpus_whatever_its_name_size_and_date(tmp_path):
    for name in ("a/x.txt", "b/x.txt"):
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / name).write_text(f"the text of {name}")
    corpus, out = tmp_path / "c", tmp_path / "out"
    made = pack(corpus, "bytes", out, held_out=0.0)
    for path in corpus.rglob("*.txt"):
        os.utime(path, ns=(1, 1))  # touched
    assert pack(corpus, "bytes", out, held_out=0.0) == made
    changed = r"holds shards of another corpus \(its files have changed\); name another folder or remove this one"
    for path, text in (
        ("a/x.txt", "the TEXT of a/x.txt"),
        ("a/x.txt", "the text of b/x.txt"),
        ("b/x.txt", "longer" * 9),
    ):
        before = (corpus / path).read_text()
        (corpus / path).write_text(text)
        with pytest.raises(UserError, match=changed):
            pack(corpus, "bytes", out, held_out=0.0)
        (corpus / path).write_text(before)
    (corpus / "a").rename(corpus / "z")
    with pytest.raises(UserError, match=changed):
        pack(corpus, "bytes", out, held_out=0.0)
    (corpus / "z").rename(corpus / "a")
    assert pack(corpus, "bytes", out, held_out=0.0) == made


def test_what_is_told_by_its_date_is_not_read_again(tmp_path, corpus, monkeypatch):
    made = pack(corpus, "bytes", tmp_path / "out")
    monkeypatch.setattr(documents, "content_digest", lambda found: pytest.fail("read again"))
    assert pack(corpus, "bytes", tmp_path / "out") == made


def test_a_file_that_changed_is_packed_anew_in_the_cache(tmp_path, corpus, monkeypatch):
    monkeypatch.setenv("STRUCTURE_FIRST_CORPORA", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    one, again = (cached.corpus(corpus.name, "bytes", 8, 20_000) for _ in range(2))
    lines(corpus, [text.upper() for text in TEXTS])
    other = cached.corpus(corpus.name, "bytes", 8, 20_000)
    assert one.settings == again.settings and one.settings["digest"] != other.settings["digest"]


def test_a_tokeniser_of_a_path_is_told_by_what_its_file_holds(tmp_path, corpus, monkeypatch):
    """One that is learnt again is packed with anew; and a/b is not a_b, though their folders are named alike."""
    monkeypatch.setenv("STRUCTURE_FIRST_CORPORA", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, texts in (("a/b", TEXTS), ("a_b", ["another text"])):
        tokenisers.save(tokenisers.tokeniser("bpe:270", lambda texts=texts: texts), Path(name))
    names = "a/b", "./a/b/tokenizer.json", "a_b"
    digests = [cached.corpus(corpus.name, name, 8, 20_000).settings["digest"] for name in names]
    assert digests[0] == digests[1] != digests[2]
    tokenisers.save(tokenisers.tokeniser("bpe:270", lambda: ["ipsum ipsum"]), Path("a/b"))
    again = cached.corpus(corpus.name, "a/b", 8, 20_000).settings["digest"]
    assert again not in digests and again == cached.corpus(corpus.name, "a/b", 8, 20_000).settings["digest"]


def test_two_tokenisers_of_the_hub_whose_folders_are_named_alike(tmp_path, corpus, monkeypatch):
    monkeypatch.setenv("STRUCTURE_FIRST_CORPORA", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tokenisers.save(tokenisers.tokeniser("bpe:270", lambda: TEXTS), tmp_path / "there")
    monkeypatch.setattr(tokenisers, "fetched", lambda name: tmp_path / "there" / tokenisers.FILE)
    cached.corpus(corpus.name, "x/y_z", 8, 20_000)
    cached.corpus(corpus.name, "x/y_z", 9, 20_000)
    with pytest.raises(UserError, match=r"holds shards of another tokeniser \(x/y_z, not x_y/z\); name another folder"):
        cached.corpus(corpus.name, "x_y/z", 8, 20_000)


def test_a_window_longer_than_the_shards(packed):
    with pytest.raises(UserError, match=r"held_out of .* has no 5,001 tokens in a row, at most .*; pack more"):
        Packed(packed, "held_out").source(5000)
    with pytest.raises(UserError, match="unknown split 'test'"):
        Packed(packed, "test")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shard_tokens": -1}, "the size of a shard must be from 1 to"),
        ({"text_column": "body"}, "line 1 of .* has no column 'body'; it has text; name one with --text-column"),
    ],
)
def test_bad_settings_leave_nothing_behind(tmp_path, corpus, changed, message):
    given = {"corpus": corpus, "tokeniser": "bytes", "folder": tmp_path / "out"} | changed
    with pytest.raises(UserError, match=message):
        pack(**given)
    assert not (tmp_path / "out").exists()
    pack(corpus, "bytes", tmp_path / "out")


def test_a_full_disk_keeps_the_finished_shards(tmp_path, corpus):
    """A limit on the size of a file stands for the full disk; it can be lifted again."""
    lines(corpus, [str(i) * 20 for i in range(20_000)])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    pack(corpus, "bytes", tmp_path / "out", shard_tokens=100_000, limit_tokens=300_000)
    before = contents(tmp_path / "out")
    resource.setrlimit(resource.RLIMIT_FSIZE, (530_000, limit[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*train-00003.npy: File too large; free some space"):
            pack(corpus, "bytes", tmp_path / "out", shard_tokens=600_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert contents(tmp_path / "out") == before
    made = pack(corpus, "bytes", tmp_path / "out", shard_tokens=600_000)
    assert sum(made["documents"].values()) == 20_000


def test_what_is_packed_takes_no_more_space(tmp_path, corpus):
    pack(corpus, "bytes", tmp_path / "out")
    before, limit = contents(tmp_path / "out"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        pack(corpus, "bytes", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert contents(tmp_path / "out") == before


def test_what_was_stopped_behind_a_lower_limit_is_packed_to_that_one(tmp_path, corpus, monkeypatch):
    real = packing.write_manifest

    def stopping(folder, manifest):
        real(folder, manifest)
        if manifest["shards"]:
            raise Stop

    monkeypatch.setattr(packing, "write_manifest", stopping)
    with pytest.raises(Stop):
        pack(corpus, "bytes", tmp_path / "out", shard_tokens=800, limit_tokens=5000)
    monkeypatch.setattr(packing, "write_manifest", real)
    assert not read_manifest(tmp_path / "out")["finished"]
    assert pack(corpus, "bytes", tmp_path / "out", limit_tokens=500) == read_manifest(tmp_path / "out")
    assert Packed(tmp_path / "out").tokens() >= 500


@pytest.mark.parametrize("name", ["tokenizer.json", "notes.md", ".hidden", ".notes.tmp", ".train-00000.npy.tmp", "a/b"])
def test_a_folder_that_holds_what_is_not_ours_is_left_alone(tmp_path, corpus, name):
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"out holds files but no packed corpus; name a folder that is new or empty"):
        pack(corpus, "bytes", tmp_path / "out")
    assert mine.read_text() == "mine" and len([*(tmp_path / "out").iterdir()]) == 1
    mine.unlink()
    if name == "a/b":
        mine.parent.rmdir()
    pack(corpus, "bytes", tmp_path / "out", limit_tokens=500)
    mine.parent.mkdir(exist_ok=True)
    if name != "tokenizer.json":
        mine.write_text("mine")
    pack(corpus, "bytes", tmp_path / "out")
    assert name == "tokenizer.json" or mine.read_text() == "mine"


def test_the_current_folder_is_not_meant_by_an_empty_name(tmp_path, corpus, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", ["structure-first", "pack", str(corpus), "--tokeniser", "bytes", "--out", ""])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err == "structure-first: an empty value; leave it out or fill it in\n"
    assert not [*(tmp_path / "here").iterdir()]


def test_what_was_killed_before_the_first_shard_begins_anew(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(tokenisers, "save", lambda *_: os.kill(os.getpid(), 9))
    child = os.fork()
    if not child:
        try:
            pack(corpus, "bytes", tmp_path / "out")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    monkeypatch.undo()
    assert (tmp_path / "out" / "manifest.json").exists()
    assert pack(corpus, "bytes", tmp_path / "out") == pack(corpus, "bytes", tmp_path / "out")


@pytest.mark.parametrize("name", ["held_out-00000.npy", "hashes-00000.npy"])
def test_a_disk_that_is_full_within_the_first_shard_leaves_nothing_in_the_way(tmp_path, corpus, monkeypatch, name):
    real = packing.write_array

    def full(path, array):
        if path.name == name:
            raise UserError("No space left on device")
        return real(path, array)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left"):
        patch.setattr(packing, "write_array", full)
        pack(corpus, "bytes", tmp_path / "out", held_out=0.2)
    pack(corpus, "bytes", tmp_path / "whole", held_out=0.2)
    pack(corpus, "bytes", tmp_path / "out", held_out=0.2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_two_processes_do_not_pack_into_one_folder(tmp_path, corpus):
    with locked(tmp_path / "out"), pytest.raises(UserError, match=r"another process is writing to .*; wait for it or"):
        pack(corpus, "bytes", tmp_path / "out")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_text(tmp_path):
    """The most memory that a process has held after a corpus of 2 MB and after one of 40 MB."""
    for name, size in (("small", 2_000), ("large", 40_000)):
        (tmp_path / f"{name}.txt").write_text("".join(f"{i} {'lorem ipsum ' * 83}\n" for i in range(size)))
    code = "import sys\nfrom pathlib import Path\nfrom structure_first.data.corpora.packing import pack\n"
    code += "for name in ('small', 'large'):\n"
    code += "    pack(f'{sys.argv[1]}/{name}.txt', 'bytes', f'{sys.argv[1]}/{name}', shard_tokens=1 << 19)\n"
    code += "    print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    most = [*map(int, subprocess.check_output([sys.executable, "-c", code, tmp_path]).split())]
    assert most[1] - most[0] < 15_000  # KB


def test_the_reader_needs_only_numpy_and_torch():
    code = "import sys\nimport structure_first.data.corpora.packed\n"
    code += "print({'datasets', 'tokenizers', 'pyarrow', 'transformers'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"

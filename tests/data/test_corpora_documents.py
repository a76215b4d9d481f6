"""Every corpus as a stream of documents, and a line for each way in which a file can be wrong."""

import gzip
import json
import shutil
import sys
from itertools import islice
from pathlib import Path
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from structure_first import cli
from structure_first.data.corpora import cached, hub, mathematics, paths, pinned, tokenisers
from structure_first.data.corpora import documents as corpora
from structure_first.data.corpora.documents import documents
from structure_first.data.corpora.packing import pack
from structure_first.errors import UserError

TEXTS = ["one\r\ntwo", "naïve 中文 🙂", "x" * 5000, "\n"]


def write(path: Path, texts: list[str], column: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({column: texts, "n": range(len(texts))}), path)
    else:
        rows = "".join(json.dumps({"n": n, column: text}) + "\n" for n, text in enumerate(texts)).encode()
        path.write_bytes(gzip.compress(rows) if path.suffix == ".gz" else rows)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.ndjson", "a.jsonl.gz", "a.JSONL", "a.parquet"])
def test_rows(tmp_path, name):
    path = write(tmp_path / name, TEXTS, "body")
    assert list(documents(path, "body")) == TEXTS
    assert list(documents(str(path), "body")) == TEXTS


def test_a_text_file_is_a_document(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXTS[1] + "\r\n", encoding="utf-8", newline="")
    assert list(documents(path)) == [TEXTS[1] + "\r\n"]
    path.write_text("\ufeffmarked", encoding="utf-8")
    assert list(documents(path)) == ["marked"]


def test_a_long_text_file_is_cut_at_line_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "LONGEST", 1000)
    monkeypatch.setattr(paths, "PIECE", 100)
    text = "".join(f"line {i} is é\n" for i in range(500)) + "x" * 500
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    found = list(documents(tmp_path / "a.txt"))
    assert "".join(found) == text and max(map(len, found)) <= 200
    assert all(each.endswith("\n") for each in found[:-5])


def test_a_text_file_is_cut_alike_packed_or_not(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "LONGEST", 1000)
    monkeypatch.setattr(paths, "PIECE", 100)
    for size, parts in ((1000, 1), (1001, 10)):
        text = b"\n" * size  # of which gzip leaves next to nothing
        (tmp_path / "a.txt").write_bytes(text)
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text))
        found, packed = (list(documents(tmp_path / name)) for name in ("a.txt", "a.txt.gz"))
        assert found == packed and len(found) == parts


def test_folders_and_globs(tmp_path):
    for name in ("b/2.txt", "b/1.txt", "a.py", ".hidden/c.txt", "b/.d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty.txt").touch()
    assert list(documents(tmp_path)) == ["a.py", "b/1.txt", "b/2.txt"]
    assert list(documents(f"{tmp_path}/**/*.txt")) == ["b/1.txt", "b/2.txt"]
    assert list(documents(f"{tmp_path}/b/[2-9]*")) == ["b/2.txt"]
    write(tmp_path / "b" / "z.jsonl", ["from JSON"])
    assert list(documents(tmp_path)) == ["from JSON"]
    write(tmp_path / "c" / "z.parquet", ["from Parquet"])
    assert list(documents(tmp_path)) == ["from Parquet"]


def test_streams_go_on(tmp_path):
    write(tmp_path / "a.jsonl", [str(i) for i in range(10)])
    write(tmp_path / "b.jsonl", [str(i) for i in range(10, 25)])
    stream = documents(tmp_path)
    assert list(islice(stream, 7)) == [str(i) for i in range(7)]
    state = json.loads(json.dumps(stream.state()))
    assert list(documents(tmp_path, state=state)) == [str(i) for i in range(7, 25)]
    other = documents(tmp_path)
    write(tmp_path / "b.jsonl", ["changed"])
    assert documents(tmp_path).source != other.source


def test_a_later_mistake_keeps_the_finished_shards(tmp_path):
    rows = b"".join(b'{"text": "%d"}\n' % i for i in range(1000))
    (tmp_path / "a.jsonl").write_bytes(rows + b'{"text": "ha')
    with pytest.raises(UserError, match=r"line 1,001 of .* is not whole JSON"):
        pack(tmp_path / "a.jsonl", "bytes", tmp_path / "out", shard_tokens=500)
    assert sorted(path.name for path in (tmp_path / "out").glob("train*"))[:2] == ["train-00000.npy", "train-00001.npy"]


def test_names():
    with pytest.raises(UserError, match="unknown corpus 'langauge'; did you mean 'language'"):
        documents("langauge")
    with pytest.raises(UserError, match="unknown part of math 'extra'"):
        documents("math:extra")


def test_math_is_a_corpus(monkeypatch):
    monkeypatch.setattr(mathematics, "generated", lambda split, seed, start, workers: iter([f"{split} {seed} {start}"]))
    assert next(documents("math", seed=4)) == "train 4 0"
    assert next(documents("math:extrapolate", seed=4, state={"position": 9})) == "extrapolate 4 9"
    assert documents("math").endless and not documents("language").endless


PROSE = "This sentence has more than five words in it. And here is another sentence, which makes it long enough."
SOURCE = f'"""{PROSE}\n\n    Too short.\n\nArgs:\n    x: Not a sentence of prose at all.\n"""\n\n'
SOURCE += 'def f():\n    """Short."""\n'
IN_CLASS = f"class C:\n    def f(self):\n        '''{PROSE} In C.\n\n\t{PROSE}\n        '''\n"
FILES = {
    "b/a.py": SOURCE.encode(),
    "b/c/d.py": IN_CLASS.encode(),
    "b/data.py": b"x = " + b"1" * 2000,
    "b/bare.py": b"x = 1\n",
    "b/c.txt": PROSE.encode(),
    "b-1.0.data/purelib/e.py": b"x = 2\n",
    "b/broken.py": b"def (",
    "b/later.py": b"type X = int\n",  # is syntax from Python 3.12 on
    "b/latin.py": b"# caf\xe9\n",
    "b/__init__.py": b"",
}


def wheel(folder: Path, tags: str, files: dict[str, bytes]) -> None:
    with ZipFile(folder / f"b-1.0{tags}.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """An installed package of a few files, and the list of them that its wheels have made."""
    wheel(tmp_path, "-cp311-linux", FILES | {"b/version.py": b"cpu = True\n"})
    wheel(tmp_path, "+cu-cp312-linux", FILES | {"b/version.py": b"cpu = None\n", "b/cuda.py": b"x = 3\n"})
    monkeypatch.setattr(pinned, "LIST", tmp_path / "list.json.gz")
    pinned.pin(tmp_path.glob("*.whl"))
    root = tmp_path / "lib"
    for name, content in {
        **FILES,
        "b-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: b\nVersion: 1.0\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    monkeypatch.syspath_prepend(root)
    yield root
    pinned.listed.cache_clear()


def test_the_list_has_what_all_wheels_have_and_every_python_reads(library):
    assert list(pinned.listed()["b==1.0"]) == ["b/a.py", "b/bare.py", "b/c/d.py", "b/data.py"]
    before, first = pinned.LIST.read_bytes(), documents("code").source
    pinned.pin(library.parent.glob("*.whl"))
    assert pinned.LIST.read_bytes() == before and documents("code").source == first
    wheel(library.parent, "-cp313-linux", FILES | {"b/bare.py": b"x = 4\n"})
    pinned.pin(library.parent.glob("*.whl"))
    assert list(pinned.listed()["b==1.0"]) == ["b/a.py", "b/c/d.py", "b/data.py"]
    assert documents("code").source != first


def test_the_pinned_packages(library):
    assert sorted(documents("code")) == sorted([SOURCE, IN_CLASS, "x = 1\n"])
    assert sorted(documents("language")) == [PROSE, f"{PROSE} In C.\n{PROSE}"]
    orders = {tuple(documents("code", seed=seed)) for seed in range(10)}
    assert 1 < len(orders) <= 6 and list(documents("code", seed=3)) == list(documents("code", seed=3))
    before = documents("code").source
    (library / "b" / "new.py").write_text("x = 1\n")
    assert documents("code").source == before and sorted(documents("code")) == sorted([SOURCE, IN_CLASS, "x = 1\n"])


def test_a_file_that_is_not_the_pinned_one_is_named(library):
    path, again = library / "b" / "bare.py", "install the versions that constraints.txt pins$"
    path.write_text("x = 2\n")
    with pytest.raises(UserError, match=rf"bare.py is not the file of b==1.0; {again}"):
        list(documents("code"))
    stream = documents("language")
    path.write_text("x = 10\n")
    with pytest.raises(UserError, match=rf"bare.py is not there as b==1.0 has it; {again}"):
        documents("code")
    path.unlink()
    with pytest.raises(UserError, match=rf"bare.py is not there as b==1.0 has it; {again}"):
        documents("language")
    with pytest.raises(UserError, match=rf"cannot read .*bare.py of b==1.0 \(No such file or directory\); {again}"):
        list(stream)
    metadata = library / "b-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "1.1"))
    with pytest.raises(UserError, match=f"code and language are made from b==1.0, not 1.1; {again}"):
        documents("code")
    metadata.write_text(metadata.read_text().replace("1.1", "1.0+cu"))
    path.write_text("x = 1\n")
    assert len(list(documents("code"))) == 3
    shutil.rmtree(metadata.parent)
    with pytest.raises(UserError, match=f"made from b==1.0, which is not installed; {again}"):
        documents("code")


def test_the_real_list_is_of_the_versions_that_are_pinned_and_installed():
    constraints = Path(__file__).parents[2].joinpath("constraints.txt").read_text().lower().splitlines()
    assert set(pinned.listed()) <= set(constraints)
    assert len(pinned.files(0)) == sum(map(len, pinned.listed().values())) > 7000
    assert pinned.LIST.parent == Path(pinned.__file__).parent


def test_the_real_corpora():
    assert all("import" in text or "def" in text or "=" in text or "#" in text for text in islice(documents("code"), 5))
    for text in islice(documents("language"), 5):
        assert len(text) >= pinned.SHORTEST and text[0].isalpha()


@pytest.mark.parametrize("name", ["code", "language"])
def test_an_older_corpus_says_what_has_taken_its_place(tmp_path, name):
    message = f"the corpus {name}@1 was whatever Python files were installed, .*; '{name}' has taken its place"
    for asked in (lambda: documents(f"{name}@1"), lambda: cached.corpus(f"{name}@1", "bytes", 8, 100)):
        with pytest.raises(UserError, match=message):
            asked()
    with pytest.raises(UserError, match=f"unknown corpus '{name}@0'; did you mean '{name}'"):
        documents(f"{name}@0")


def test_another_version_has_a_cache_folder_of_its_own(library, tmp_path, monkeypatch):
    monkeypatch.setenv("STRUCTURE_FIRST_CORPORA", str(tmp_path / "cache"))
    places = [cached.corpus_folder(name, "bytes", 100) for name in ("code", "language", "math")]
    monkeypatch.setitem(corpora.VERSIONS, "code", 3)
    places += [cached.corpus_folder("code", "bytes", 100)]
    wheel(tmp_path, "-cp313-linux", FILES | {"b/bare.py": b"x = 4\n"})
    pinned.pin(tmp_path.glob("*.whl"))
    places += [cached.corpus_folder("code", "bytes", 100)]
    assert len(set(places)) == 5 and places[2].name == "math-bytes-100"
    others = [cached.corpus_folder("math", name, 100).name for name in ("bpe:512", "owner/name")]
    assert others == [f"math-bpe-512@{corpora.VERSIONS['bpe']}-100", "math-owner_name-100"]


@pytest.fixture
def local_hub(tmp_path, monkeypatch) -> list[str]:
    """A folder laid out like a data set of the hub, in place of C4."""
    texts = [f"page {i}" for i in range(40)]
    for shard in range(4):
        write(tmp_path / "c4" / "data" / f"train-{shard:05}-of-00004.parquet", texts[shard * 10 : shard * 10 + 10])
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(hub.HUB, "c4", hub.Hub(str(tmp_path / "c4")))
    return texts


def test_the_hub_streams_and_goes_on(local_hub):
    assert list(documents("c4")) == local_hub
    for taken in (3, 10, 17):
        stream = documents("c4")
        assert list(islice(stream, taken)) == local_hub[:taken]
        state = json.loads(json.dumps(stream.state()))
        assert list(documents("c4", state=state)) == local_hub[taken:]


def test_a_hub_corpus_is_packed_and_goes_on(local_hub, tmp_path):
    pack("c4", "bytes", tmp_path / "parts", limit_tokens=100, held_out=0.0)
    pack("c4", "bytes", tmp_path / "parts", held_out=0.0)
    made = pack("c4", "bytes", tmp_path / "parts", held_out=0.0)
    assert made["documents"]["train"] == 40 and made["source"]["column"] == "text"
    with pytest.raises(UserError, match="c4 has no text under 'body'; it has text, n; name one with --text-column"):
        next(documents("c4", "body"))


@pytest.mark.parametrize(("name", "offline"), [("c4", "language"), ("codeparrot", "code"), ("hub:a/b", "language")])
def test_without_a_network(monkeypatch, name, offline):
    def refused(*_, **__):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refused)
    message = (
        f"from the hub .Name or service not known.; the corpus '{offline}' needs no network, and a path of your own"
    )
    with pytest.raises(UserError, match=message):
        documents(name)


def test_the_network_may_go_while_it_streams(local_hub, monkeypatch):
    class Rows:
        def __iter__(self):
            yield {"text": "first"}
            raise OSError("connection lost")

        def state_dict(self):
            return {}

    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: Rows())
    read, _ = hub.stream(hub.HUB["c4"], "text")
    assert next(read) == "first"
    with pytest.raises(UserError, match=r"from the hub \(connection lost\); the corpus 'language' needs no network"):
        next(read)


def test_a_data_set_that_is_not_there(monkeypatch):
    with pytest.raises(UserError, match="the hub has no data set 'not a name' that is open to you; the corpus"):
        documents("hub:not a name")


def test_a_tokeniser_of_the_hub_without_a_network(monkeypatch):
    def refused(*_, **__):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refused)
    with pytest.raises(UserError, match=r"cannot fetch the tokeniser 'a/b' from the hub .*; bytes, characters, bpe"):
        tokenisers.tokeniser("a/b", list)
    with pytest.raises(UserError, match="unknown tokeniser 'not a name'; "):
        tokenisers.tokeniser("not a name", list)


def test_a_tokeniser_of_a_folder(tmp_path):
    trained = tokenisers.tokeniser("bpe:300", lambda: TEXTS)
    tokenisers.save(trained, tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        assert tokenisers.digest(tokenisers.tokeniser(str(path), list)) == tokenisers.digest(trained)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"cannot read the tokeniser .*; name a tokenizer.json of"):
        tokenisers.tokeniser(str(tmp_path), list)


def test_a_tokeniser_of_the_hub_that_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "of a later version"}}')
    with pytest.raises(
        UserError, match=r"cannot read the tokeniser .*tokenizer.json .*; name a tokenizer.json of"
    ) as said:
        tokenisers.tokeniser("a/b", list)
    assert "\n" not in str(said.value)


def test_a_vocabulary_with_gaps_ends_with_its_largest_number(tmp_path):
    tokenisers.save(tokenisers.Bytes(), tmp_path)
    described = json.loads((tmp_path / "tokenizer.json").read_text())
    described["added_tokens"].append(described["added_tokens"][0] | {"id": 400, "content": "<|endoftext|>"})
    described["model"]["vocab"]["<|endoftext|>"] = 400
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    made = tokenisers.tokeniser(str(tmp_path), list)
    assert (made.vocab, made.separator) == (401, 400)


@pytest.mark.parametrize("name", ["bytes", "characters", "bpe:300"])
def test_transformers_reads_what_is_saved(tmp_path, name):
    from transformers import AutoTokenizer

    texts = ["What is 1 + 1?\n2", "a  <|endoftext|> b", "<pad><begin>", "naïve 🙂\tq"]
    made = tokenisers.tokeniser(name, lambda: texts * 5)
    tokenisers.save(made, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    tokens, lengths = made.encode(texts)
    ends = lengths.cumsum()
    for text, start, end in zip(texts, ends - lengths, ends, strict=True):
        mine = tokens[start:end]
        assert mine.tolist() == theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert made.separator not in mine
        if name != "characters":
            assert made.decode(mine) == theirs.decode(mine.tolist()) == text
    assert len(theirs) == made.vocab and theirs.bos_token_id == made.separator


def test_the_command(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a.jsonl", [*(f"text number {i}" for i in range(50)), "text number 3"], "body")
    arguments = ["pack", tmp_path / "a.jsonl", "--tokeniser", "bytes", "--out", tmp_path / "out", "--held-out", "0.2"]
    for changed, code in (([], 2), (["--text-column", "body"], 0), (["--text-column", "body"], 0)):
        monkeypatch.setattr(sys, "argv", ["structure-first", *map(str, arguments), *changed])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        said = capsys.readouterr()
        assert exit.value.code == code and said.err.count("\n") == (code == 2)
    assert said.out.startswith(f"packed {tmp_path}/out: ") and said.out.endswith("held out; 1 copies dropped\n")

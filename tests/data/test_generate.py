"""Files of sequences: what is read back is what was drawn, and a failure leaves nothing."""

import resource
from dataclasses import replace

import datasets
import pytest
import yaml

import structure_first
from structure_first.data import generate
from structure_first.data.registry import source
from structure_first.errors import UserError
from structure_first.seeding import generator


def read(path, cache):
    kind = "parquet" if path.suffix == ".parquet" else "json"
    return datasets.load_dataset(kind, data_files=str(path), cache_dir=str(cache), split="train")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
@pytest.mark.parametrize(
    ("name", "chosen"), [("set", {"length": 7, "vocab": 50_000}), ("shuffled:dyck", {"length": 20})]
)
def test_datasets_reads_back_what_was_drawn(tmp_path, monkeypatch, suffix, name, chosen):
    monkeypatch.setattr(generate, "CHUNK_TOKENS", 100)
    made = source(name, **chosen)
    out = generate.write(made, 991, tmp_path / f"data{suffix}", seed=3)
    table = read(out, tmp_path / "cache")
    sequences = -(-991 // made.length)
    chunk = 100 // made.length
    drawn = [made.draw(chunk, generator("cpu", 3, "generate", i)) for i in range(-(-sequences // chunk))]
    assert table.column_names == ["tokens", "loss_mask"]
    assert list(table["tokens"]) == [row for batch in drawn for row in batch.tokens.tolist()][:sequences]
    assert list(table["loss_mask"]) == [row for batch in drawn for row in batch.loss_mask.int().tolist()][:sequences]


def test_more_tokens_of_a_seed_begin_with_the_same(tmp_path):
    made = source("eca")
    few, many, other = (
        generate.write(made, tokens, tmp_path / f"{tokens}-{seed}.jsonl", seed).read_text()
        for tokens, seed in [(1000, 0), (9000, 0), (1000, 1)]
    )
    assert many.startswith(few) and few != other and few.count("\n") == 8


def test_the_card(tmp_path):
    out = generate.write(source("dyck", k=4, length=32), 1000, tmp_path / "words.parquet", seed=5)
    card = out.with_suffix(".md").read_text()
    _, header, text = card.split("---\n")
    assert yaml.safe_load(header)["configs"] == [{"config_name": "default", "data_files": "words.parquet"}]
    assert "a closer always closes the bracket opened last" in text and structure_first.__version__ in text
    for said in ("# dyck", "| k | 4 |", "| length | 32 |", "| seed | 5 |", "| sequences | 32 of 32 tokens |"):
        assert said in text
    assert "2601.21725" in text and "2505.22308" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["words.md", "words.parquet"]


def test_a_source_that_is_not_in_the_registry_is_told_by_its_name(tmp_path):
    """A packed corpus by its own, even where the corpus is called like a source."""
    for name in ("packed:code", "packed:dyck", "shuffled:packed:code", "of my own"):
        out = generate.write(replace(source("dyck", length=8), name=name), 20, tmp_path / "data.jsonl", seed=0)
        _, header, text = out.with_suffix(".md").read_text().split("---\n")
        assert f"\n\nSequences of {name}.\n" in text and yaml.safe_load(header)["pretty_name"] == name


@pytest.mark.parametrize("name", ["a #1.jsonl", "- a.jsonl", 'é "b": c.jsonl', "{a}\\.jsonl", "[a.jsonl"])
def test_a_name_of_any_signs_stands_in_the_card_and_is_known_again(tmp_path, name):
    for seed in (0, 1):
        out = generate.write(source("identity"), 100, tmp_path / name, seed=seed)
        _, header, text = out.with_suffix(".md").read_text().split("---\n")
        assert yaml.safe_load(header)["configs"] == [{"config_name": "default", "data_files": name}]
        assert f"| seed | {seed} |" in text


def test_a_card_of_an_earlier_version_is_known(tmp_path):
    out = generate.write(source("identity"), 100, tmp_path / "data.jsonl", seed=0)
    card = out.with_suffix(".md")
    card.write_text(card.read_text().replace('"data.jsonl"', "data.jsonl"))
    generate.write(source("identity"), 100, out, seed=1)
    assert "| seed | 1 |" in card.read_text()


def test_what_generate_made_it_replaces(tmp_path):
    out = tmp_path / "data.jsonl"
    first = generate.write(source("identity"), 100, out, seed=0).read_text()
    assert generate.write(source("identity"), 100, out, seed=1).read_text() != first
    assert "| seed | 1 |" in out.with_suffix(".md").read_text()
    with pytest.raises(UserError, match=r"data.md is there already and generate did not make it"):
        generate.write(source("identity"), 100, tmp_path / "data.parquet", seed=0)  # the card is of data.jsonl
    out.with_suffix(".md").unlink()
    with pytest.raises(UserError, match=r"data.jsonl is there already and generate did not make it"):
        generate.write(source("identity"), 100, out, seed=0)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_full_disk_leaves_what_was_there(tmp_path, suffix):
    out = tmp_path / f"data{suffix}"
    before = generate.write(source("identity"), 1000, out, seed=0).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(UserError, match=f"cannot write {out}"):
            generate.write(source("identity"), 500_000, out, seed=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len([*tmp_path.iterdir()]) == 2 and out.read_bytes() == before


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "describe_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate.write(source("identity"), 1000, tmp_path / "data.parquet", seed=0)
    assert not [*tmp_path.iterdir()]

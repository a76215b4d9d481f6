"""A configuration: what is read is what was written, and every mistake is one line that says where and what else."""

from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from structure_first.errors import UserError
from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Shape
from structure_first.pretraining.config import Body, Corpus, First, Training, check, read
from structure_first.training.stage import Stage

GOOD = """
seed: 3
shape: tiny
first: {source: set, settings: {length: 8, vocab: 10}, steps: 4, batch: 4, rate: 5e-4, dropout: 0.1}
transfer: {attention: permute, mlp: fresh}
corpus: {name: code, tokeniser: bytes, context: 32}
second: {steps: 40, batch: 4, rate: 1e-3, weight_decay: 0}
"""


@pytest.fixture
def refused(tmp_path):
    """The line with which a text is refused."""

    def line(text: str) -> str:
        (tmp_path / "run.yaml").write_text(text)
        with pytest.raises(UserError) as error:
            read(tmp_path / "run.yaml")
        assert str(error.value).startswith(f"{tmp_path}/run.yaml") and "\n" not in str(error.value)
        return str(error.value).removeprefix(f"{tmp_path}/run.yaml").removeprefix(": ")

    return line


def written(folder: Path, text: str) -> Path:
    (folder / "run.yaml").write_text(text)
    return folder / "run.yaml"


def test_what_is_read_is_what_was_written(tmp_path):
    config = read(written(tmp_path, GOOD))
    assert config.seed == 3 and config.transfer == Transfer(attention="permute", mlp="fresh")
    assert config.first.made.name == "set" and config.first.made.settings == {"length": 8, "vocab": 10}
    assert (config.first.rate, config.second.rate) == (5e-4, 1e-3) and config.second.weight_decay == 0
    assert config.second.stage == Stage(steps=40, batch=4, rate=1e-3, weight_decay=0, warmup=0, held_out=128)
    size = dict(layers=4, heads=4, width=128)
    assert config.shape.at(256, 32) == Shape(256, 32, **size, tied=True)
    assert config.shape.at(12, 17, dropout=0.1) == Shape(12, 17, **size, tied=True, dropout=0.1)
    assert config.tokens == 40 * 4 * 33 and config.first.tokens == 4 * 4 * 17


def test_a_section_has_the_fields_of_what_it_stands_for():
    """So that a field that comes later can be set at once."""
    for section, kind in ((Body, Shape), (Training, Stage), (First, Stage)):
        assert {each.name for each in fields(kind)} <= {each.name for each in fields(section)}


@given(st.lists(st.integers(2, 5), max_size=4), st.integers(1, 50), st.integers(0, 60))
def test_updates_are_counted_without_going_through_them(curriculum, steps, first):
    training = Training(steps=steps, batch=1, rate=1.0, curriculum=tuple(curriculum))
    for count in (min(first, steps), None):
        each = range(steps if count is None else count)
        assert training.updates(9, count) == Counter(training.length_at(step, 9) for step in each)


def test_a_curriculum_counts_each_length(tmp_path):
    shorter = GOOD.replace("rate: 5e-4", "rate: 5e-4, curriculum: [2, 4]").replace(
        "rate: 1e-3", "rate: 1e-3, curriculum: [9]"
    )
    config = read(written(tmp_path, shorter))
    assert config.first.tokens == 4 * (5 + 9 + 2 * 17)
    assert config.tokens == 4 * 20 * (9 + 33)


@given(st.floats(min_value=1e-12, max_value=1e3), st.sampled_from("eE"), st.booleans())
def test_every_way_to_write_a_rate_is_a_number(tmp_path_factory, rate, letter, plain):
    text = repr(rate) if plain else f"{rate:{letter}}"
    config = read(written(tmp_path_factory.getbasetemp(), GOOD.replace("5e-4", text)))
    assert config.first.rate == float(text)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("shape: tiny", "shape: tny", "shape: unknown shape 'tny'; did you mean 'tiny'?"),
        (
            "tiny",
            "{layers: 2, heads: 3, width: 32}",
            "shape: width 32 is not a multiple of 3 heads; choose one that is",
        ),
        ("tiny", "{layers: 2, hds: 3, width: 32}", "unknown key 'shape.hds'; did you mean 'shape.heads'?"),
        ("tiny", "{layers: 2}", "shape.heads is missing; it has no default"),
        ("tiny", "{name: 3}", "shape.name must be text, not 3"),
        ("tiny", "{name: tiny, vocab: 3}", "unknown key 'shape.vocab'"),
        ("tiny", "5", "shape must be a section with keys layers, heads, width, tied"),
        ("shape: tiny", "", "shape is missing; it has no default"),
        ("seed: 3", "sead: 3", "unknown key 'sead'; did you mean 'seed'?"),
        ("seed: 3", "seed: -1", "seed: must be from 0 to 2,147,483,647, not -1"),
        ("seed: 3", "seed: true", "seed must be a whole number, not True"),
        ("steps: 40", "stpes: 40", "unknown key 'second.stpes'; did you mean 'second.steps'?"),
        ("rate: 1e-3", "lr: 1e-3", "unknown key 'second.lr'; did you mean 'second.rate'?"),
        ("steps: 40", "steps: 40.5", "second.steps must be a whole number, not 40.5"),
        ("steps: 40", "steps: 4, steps: 40", " is no YAML (the key 'steps' stands twice"),
        ("steps: 40", "steps: 40, warmup: 50", "second: warmup must lie between 0 and the 40 steps, not 50"),
        ("rate: 1e-3", "rate: fast", "second.rate must be a number, not 'fast'"),
        ("weight_decay: 0", "weight_decay: -1", "second: weight_decay must be 0 or more and clip above 0, or null"),
        (
            "weight_decay: 0",
            "clip: 0",
            "second: weight_decay must be 0 or more and clip above 0, or null for none, not",
        ),
        ("weight_decay: 0", "mastery: 98", "second: mastery must be an accuracy above 0 and at most 1, not 98.0"),
        ("rate: 1e-3", "rate: .nan", "second.rate must be a finite number, not nan"),
        ("rate: 1e-3", "rate: 1, schedule: cosin", "second: unknown schedule 'cosin'; did you mean 'cosine'?"),
        ("rate: 1e-3", "rate: 1, curriculum: 4", "second.curriculum must be a list, not 4"),
        ("rate: 1e-3", "rate: 1, curriculum: [34]", "second.curriculum: lengths must be from 2 to context + 1 = 33"),
        ("rate: 5e-4", "rate: 1, curriculum: [9]", "first: the curriculum's 9 is longer than the source itself"),
        ("rate: 5e-4", "rate: 1, curriculum: [a]", "first.curriculum.0 must be a whole number, not 'a'"),
        ("source: set", "source: sett", "first: unknown source 'sett'; did you mean 'set'?"),
        ("length: 8", "lenght: 8", "first: unknown setting of set 'lenght'; did you mean 'length'?"),
        ("length: 8", "length: a", "first.settings.length must be a whole number, not 'a'"),
        ("{length: 8, vocab: 10}", "7", "first.settings must be a section, not 7"),
        ("mlp: fresh", "mlp: frsh", "transfer: unknown transfer rule for mlp 'frsh'; did you mean 'fresh'?"),
        ("mlp: fresh", "mpl: fresh", "unknown key 'transfer.mpl'; did you mean 'transfer.mlp'?"),
        ("name: code, ", "", "corpus: name either a corpus (name: c4, or a path) or a packed folder"),
        ("name: code", "name: code, packed: x", "corpus: name either a corpus (name: c4, or a path) or a packed"),
        ("name: code, tokeniser: bytes", "packed: x, held_out: 0.5", "corpus: held_out was settled when x was packed"),
        ("tokeniser: bytes, ", "", "corpus: tokeniser is missing; write bytes, characters, bpe:VOCAB, a folder, or"),
        ("context: 32", "context: 65536", "corpus: context must be from 1 to 65,535 tokens, not 65,536"),
        ("context: 32", "context: 32, held_out: 1", "corpus: held_out must be a share above 0 and below 1, not 1.0"),
        ("seed: 3", "compute: {precision: bfloat}", "compute: unknown precision 'bfloat'; did you mean 'bfloat16'?"),
        ("seed: 3", "compute: {recompute: 1}", "compute.recompute must be true or false, not 1"),
        ("seed: 3", "compute: fast", "compute must be a section with keys precision, compile, recompute"),
        ("seed: 3", "\tx", " is no YAML (while scanning"),
        (GOOD, "", " is empty; write it like book/configs/quick.yaml"),
        (GOOD, "[1]", "the file must be a section with keys seed, shape, first"),
        (GOOD, "a: &a [*a]", " is no YAML (Circular reference detected)"),
        (GOOD, "second: 1999-01-01", "second must be a section with keys steps"),
        (
            "steps: 4,",
            "steps: 400,",
            "stage one would read 27,200 tokens, more than stage two's 5,280; lower first.steps",
        ),
    ],
)
def test_a_mistake_is_one_line(refused, old, new, line):
    assert GOOD.replace(old, new, 1) != GOOD
    assert refused(GOOD.replace(old, new, 1)).startswith(line)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path, refused):
    with pytest.raises(
        UserError, match=r"cannot read .*none.yaml: No such file or directory; name a YAML file such as"
    ):
        read(tmp_path / "none.yaml")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory; name a YAML file"):
        read(tmp_path)
    (tmp_path / "run.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(UserError, match="is no YAML"):
        read(tmp_path / "run.yaml")


def test_more_structure_than_text_has_to_be_asked_for(tmp_path):
    config = read(written(tmp_path, GOOD.replace("steps: 4,", "steps: 400,") + "allow_larger_first: true"))
    assert config.first.tokens > config.tokens
    with pytest.raises(UserError, match="stage one would read"):
        check(config.model_copy(update={"allow_larger_first": False}))


def test_a_try_is_shorter_in_everything(tmp_path):
    config = read(written(tmp_path, GOOD.replace("rate: 1e-3", "rate: 1e-3, warmup: 7")))
    short = config.stopped_at(5)
    assert (short.first.steps, short.second.steps, short.second.warmup) == (4, 5, 5)
    assert short.corpus.limit_tokens is None and short.second.evaluate_every == 5
    assert short.enough == 3200 * 33 == config.enough
    limited = read(written(tmp_path, GOOD.replace("context: 32", "context: 32, limit_tokens: 1000000"))).stopped_at(5)
    assert limited.corpus.limit_tokens == 3200 * 33
    assert config.stopped_at(None) is config
    with pytest.raises(UserError, match="--steps must be 1 or more, not 0"):
        config.stopped_at(0)


def test_as_json_it_is_the_same_again(tmp_path):
    config = read(written(tmp_path, GOOD))
    assert yaml.safe_load(yaml.safe_dump(config.plain())) == config.plain()
    assert config.plain()["corpus"] == asdict(Corpus(name="code", tokeniser="bytes", context=32))

"""A configuration: what is read is what was written, and every mistake is one line that says where and what else."""

import tracemalloc
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from structure_first.data.registry import source
from structure_first.errors import UserError
from structure_first.model.transfer import Transfer
from structure_first.model.transformer import Shape
from structure_first.pretraining.config import Config, Corpus, ShapeSection, StageOne, Training, check, read
from structure_first.pretraining.reading import read_yaml
from structure_first.pretraining.stages import jobs, stand_in
from structure_first.runs.jobs import weights_path
from structure_first.runs.recipe import Phase
from structure_first.training.stage import Stage
from structure_first.versions import VERSIONS

GOOD = """
seed: 3
shape: tiny
stage_one: {source: set, settings: {length: 8, vocab: 10}, steps: 4, batch: 4, lr: 5e-4, dropout: 0.1}
transfer: {attention: permute, mlp: fresh}
corpus: {name: code, tokeniser: bytes, context: 32}
stage_two: {steps: 40, batch: 4, lr: 1e-3, weight_decay: 0}
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
    assert config.stage_one.phase == Phase("set", config.stage_one.stage, {"length": 8, "vocab": 10}, True, 0.1)
    assert (config.stage_one.lr, config.stage_two.lr) == (5e-4, 1e-3) and config.stage_two.weight_decay == 0
    assert config.stage_two.stage == Stage(steps=40, batch=4, lr=1e-3, weight_decay=0, warmup=0, held_out=128)
    recipe, size = config.recipe, dict(layers=4, heads=4, width=128)
    assert recipe.last == Phase("code", config.stage_two.stage, {"context": 32}, True)
    assert recipe.shape(recipe.last, source("random", vocab=256, length=33)) == Shape(256, 32, **size, tied=True)
    first = recipe.alone.shape(recipe.stage_one, recipe.stage_one.make())
    assert first == Shape(12, 16, **size, tied=True, dropout=0.1)
    assert config.tokens == 40 * 4 * 33 and config.stage_one.tokens == 4 * 4 * 17


def test_former_names_of_keys_are_read(tmp_path, refused):
    former = GOOD.replace("stage_one:", "first:").replace("stage_two:", "second:").replace("lr:", "rate:")
    assert former != GOOD and read(written(tmp_path, former)) == read(written(tmp_path, GOOD))
    both = refused(GOOD.replace("lr: 1e-3", "lr: 1e-3, rate: 1e-3"))
    assert both == "rate is the former name of lr, which stands beside it; leave it out"


def test_a_section_has_the_fields_of_what_it_stands_for():
    """So that a field that comes later can be set at once."""
    for section, kind in ((ShapeSection, Shape), (Training, Stage), (StageOne, Stage)):
        assert {each.name for each in fields(kind)} <= {each.name for each in fields(section)}


def test_a_curriculum_counts_each_length(tmp_path):
    shorter = GOOD.replace("lr: 5e-4", "lr: 5e-4, curriculum: [2, 4]").replace("lr: 1e-3", "lr: 1e-3, curriculum: [9]")
    config = read(written(tmp_path, shorter))
    assert config.stage_one.tokens == 4 * (5 + 9 + 2 * 17)
    assert config.tokens == 4 * 20 * (9 + 33)


@given(st.floats(min_value=1e-12, max_value=1e3), st.sampled_from("eE"), st.booleans())
def test_every_way_to_write_a_rate_is_a_number(tmp_path_factory, rate, letter, plain):
    text = repr(rate) if plain else f"{rate:{letter}}"
    config = read(written(tmp_path_factory.getbasetemp(), GOOD.replace("5e-4", text)))
    assert config.stage_one.lr == float(text)


def test_what_only_begins_as_a_number_is_text(tmp_path):
    assert read_yaml(written(tmp_path, "[1e9-tokens, 1e9]")) == ["1e9-tokens", 1e9]


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
        (
            "tiny",
            "5",
            "shape must be a section with keys layers, heads, width, tied, name, dropout, init, init_embedding, not 5",
        ),
        ("shape: tiny", "", "shape is missing; it has no default"),
        ("seed: 3", "sead: 3", "unknown key 'sead'; did you mean 'seed'?"),
        ("seed: 3", "seed: -1", "seed must be from 0 to 2,147,483,647, not -1"),
        ("seed: 3", "seed: true", "seed must be a whole number, not True"),
        ("steps: 40", "stpes: 40", "unknown key 'stage_two.stpes'; did you mean 'stage_two.steps'?"),
        ("lr: 1e-3", "learning_rate: 1e-3", "unknown key 'stage_two.learning_rate'; did you mean 'stage_two.lr'?"),
        ("steps: 40", "steps: 40.5", "stage_two.steps must be a whole number, not 40.5"),
        ("steps: 40", "steps: 4, steps: 40", " is no YAML (the key 'steps' stands twice"),
        ("steps: 40", "steps: 40, warmup: 50", "stage_two: warmup must lie between 0 and the 40 steps, not 50"),
        ("lr: 1e-3", "lr: fast", "stage_two.lr must be a number, not 'fast'"),
        ("weight_decay: 0", "weight_decay: -1", "stage_two: weight_decay must be 0 or more and clip above 0, or null"),
        (
            "weight_decay: 0",
            "clip: 0",
            "stage_two: weight_decay must be 0 or more and clip above 0, or null for none, not",
        ),
        ("weight_decay: 0", "mastery: 98", "stage_two: mastery must be an accuracy above 0 and at most 1, not 98.0"),
        ("lr: 1e-3", "lr: .nan", "stage_two.lr must be a finite number, not nan"),
        ("lr: 1e-3", "lr: 1, schedule: cosin", "stage_two: unknown schedule 'cosin'; did you mean 'cosine'?"),
        ("lr: 1e-3", "lr: 1, curriculum: 4", "stage_two.curriculum must be a list, not 4"),
        ("lr: 1e-3", "lr: 1, curriculum: [34]", "stage_two.curriculum: lengths must be from 2 to context + 1 = 33"),
        ("lr: 5e-4", "lr: 1, curriculum: [9]", "stage_one: the curriculum's 9 is longer than the source itself"),
        ("lr: 5e-4", "lr: 1, curriculum: [a]", "stage_one.curriculum.0 must be a whole number, not 'a'"),
        ("source: set", "source: sett", "stage_one: unknown source 'sett'; did you mean 'set'?"),
        ("length: 8", "lenght: 8", "stage_one: unknown setting of set 'lenght'; did you mean 'length'?"),
        ("length: 8", "length: a", "stage_one.settings.length must be a whole number, not 'a'"),
        ("{length: 8, vocab: 10}", "7", "stage_one.settings must be a section, not 7"),
        ("mlp: fresh", "mlp: frsh", "transfer: unknown transfer rule for mlp 'frsh'; did you mean 'fresh'?"),
        ("mlp: fresh", "mpl: fresh", "unknown key 'transfer.mpl'; did you mean 'transfer.mlp'?"),
        ("name: code, ", "", "corpus: name either a corpus (name: c4, or a path) or a packed folder"),
        ("name: code", "name: code, packed: x", "corpus: name either a corpus (name: c4, or a path) or a packed"),
        ("name: code, tokeniser: bytes", "packed: x, held_out: 0.5", "corpus: held_out was settled when x was packed"),
        ("tokeniser: bytes, ", "", "corpus: tokeniser is missing; write bytes, characters, bpe:VOCAB, a folder, or"),
        ("context: 32", "context: 65536", "corpus: context must be from 1 to 65,535, not 65,536"),
        ("context: 32", "context: 32, held_out: 1", "corpus: held_out must be a share above 0 and below 1, not 1.0"),
        ("seed: 3", "compute: {precision: bfloat}", "compute: unknown precision 'bfloat'; did you mean 'bfloat16'?"),
        ("seed: 3", "compute: {recompute: 1}", "compute.recompute must be true or false, not 1"),
        ("seed: 3", "compute: fast", "compute must be a section with keys precision, compile, recompute"),
        ("seed: 3", "\tx", " is no YAML (while scanning"),
        (GOOD, "", " is empty; write one like book/configs/quick.yaml"),
        (GOOD, "[1]", "the file must be a section with keys seed, shape, stage_one"),
        (GOOD, "a: &a [*a]", " is no YAML (an alias; write out what it stands for"),
        (GOOD, "[" * 17 + "]" * 17, " is no YAML (more than 16 levels deep"),
        (GOOD, "[" * 60_000, " is no YAML (more than 16 levels deep"),
        (GOOD, "#" * 65_537, " has more than 65,536 bytes; write one like"),
        (GOOD, "a: 1" + ":1" * 9_000 + ".5", " is no YAML ("),
        (GOOD, "a: " + "9" * 9_000, " is no YAML ("),
        (
            "tiny",
            "{layers: 1000000000, heads: 1, width: 1}",
            "shape: a transformer's layers must be 1 or more, at most 1,024, not 1000000000",
        ),
        (
            "tiny",
            "{layers: 1, heads: 0, width: 1}",
            "shape: a transformer's heads must be 1 or more, at most 1,024, not 0",
        ),
        ("tiny", "{name: tiny, init: -1}", "shape: init must be a deviation from 0 to 100, not -1.0"),
        (
            "steps: 40",
            f"steps: {10**30}",
            "stage_two: steps must be 1 or more, and at most 9,007,199,254,740,992, not 1000000000000",
        ),
        ("lr: 1e-3", f"lr: 1e-3, curriculum: {[2] * 101}", "stage_two: the curriculum has 101 lengths; name 100"),
        ("context: 32", "context: 32, seed: -1", "corpus: seed must be from 0 to 2,147,483,647, not -1"),
        ("context: 32", "context: 32, limit_tokens: 0", "corpus: limit_tokens must be from 1 to 10,000,000,000,000"),
        (GOOD, "stage_two: 1999-01-01", "stage_two must be a section with keys steps"),
        (
            "steps: 40, batch: 4",
            "steps: 1_000_000_000, batch: 1_000_000",
            "stage two needs 33,000,000,000,000,000 tokens, of which 10,000,000,000,000 can be packed; lower",
        ),
        ("context: 32", "context: 32, held_out: 1e-320", "stage two needs 105,"),
        (
            "steps: 4,",
            "steps: 400,",
            "stage one would read 27,200 tokens, more than stage two's 5,280; lower stage_one.steps",
        ),
    ],
)
def test_a_mistake_is_one_line(refused, old, new, line):
    assert GOOD.replace(old, new, 1) != GOOD
    assert refused(GOOD.replace(old, new, 1)).startswith(line)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path, refused):
    with pytest.raises(UserError, match=r"cannot read .*none.yaml: No such file or directory; write one like"):
        read(tmp_path / "none.yaml")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory; write one like"):
        read(tmp_path)
    (tmp_path / "run.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(UserError, match="is no YAML"):
        read(tmp_path / "run.yaml")


def test_a_small_file_takes_no_more_than_it_says(tmp_path):
    """256 bytes of aliases once came to gigabytes."""
    bomb = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 8)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
    )
    tracemalloc.start()
    with pytest.raises(UserError, match="an alias; write out what it stands for"):
        read(written(tmp_path, bomb))
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_more_structure_than_text_has_to_be_asked_for(tmp_path):
    config = read(written(tmp_path, GOOD.replace("steps: 4,", "steps: 400,") + "allow_larger_stage_one: true"))
    assert config.stage_one.tokens > config.tokens
    with pytest.raises(UserError, match="stage one would read"):
        check(config.model_copy(update={"allow_larger_stage_one": False}))


def test_a_try_is_shorter_in_everything(tmp_path):
    config = read(written(tmp_path, GOOD.replace("lr: 1e-3", "lr: 1e-3, warmup: 7")))
    short = config.stopped_at(5)
    assert (short.stage_one.steps, short.stage_two.steps, short.stage_two.warmup) == (4, 5, 5)
    assert short.corpus.limit_tokens is None and short.stage_two.evaluate_every == 5
    assert short.enough == 3200 * 33 == config.enough
    limited = read(written(tmp_path, GOOD.replace("context: 32", "context: 32, limit_tokens: 1000000"))).stopped_at(5)
    assert limited.corpus.limit_tokens == 3200 * 33
    assert config.stopped_at(None) is config
    with pytest.raises(UserError, match="--steps must be 1 or more, not 0"):
        config.stopped_at(0)


def test_as_json_it_is_the_same_again(tmp_path):
    config = read(written(tmp_path, GOOD))
    assert yaml.safe_load(yaml.safe_dump(config.plain())) == config.plain()
    of_before = asdict(Corpus(name="code", tokeniser="bytes", context=32))
    assert not of_before.pop("answers") and config.plain()["corpus"] == of_before, "which its key holds"
    of_answers = read(written(tmp_path, GOOD.replace("bytes", "characters, answers: true")))
    assert (
        of_answers.plain()["corpus"]["answers"]
        and Config.model_validate(of_answers.plain(), strict=False) == of_answers
    )


def test_a_folder_that_was_begun_before_goes_on(tmp_path):
    """What is finished is known by these keys and files, and checkpoints by these; they are of version 0.4.0."""
    config = read(written(tmp_path, GOOD))
    found = [(job.replicas[0], job) for job in jobs(config, stand_in(config.corpus), tmp_path)]
    assert [model.configuration for model, _ in found] == ["78b5dd64cb2b", "f329f4d2a960"]
    assert {model.key[0] for model, _ in found} == {"set(length=8, vocab=10)"}
    for folder in ("weights", "checkpoints"):
        kept = [weights_path(model, tmp_path) if folder == "weights" else job.checkpoint for model, job in found]
        assert kept == [tmp_path / folder / f"stage_{stage}.safetensors" for stage in (1, 2)]


@pytest.mark.parametrize(
    ("rule", "stages"),
    [
        *((rule, [1, 2]) for rule in ("set", "dropout", "init", "stream", "training")),
        *((rule, [2]) for rule in ("code", "bytes", "keep", "permute")),
        *((rule, []) for rule in ("reverse", "bpe", "language", "rotate")),
    ],
)
def test_a_rule_that_is_raised_changes_the_keys_of_what_it_makes(tmp_path, monkeypatch, rule, stages):
    def keys(text: str = GOOD) -> list[str]:
        config = read(written(tmp_path, text))
        return [job.replicas[0].configuration for job in jobs(config, stand_in(config.corpus))]

    by_path = GOOD.replace("code,", f"{tmp_path}/code/a.txt,").replace("bytes", "'bpe:300'")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.txt").write_text("some text")
    before, of_path = keys(), keys(by_path)
    monkeypatch.setitem(VERSIONS, rule, 3)
    assert [stage for stage, (old, new) in enumerate(zip(before, keys(), strict=True), 1) if old != new] == stages
    assert (keys(by_path)[1] != of_path[1]) == (rule == "bpe" or (bool(stages) and rule not in ("code", "bytes")))

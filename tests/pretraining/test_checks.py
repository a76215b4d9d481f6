"""What can be known before any work is refused before any work, and the advice that is given is taken."""

import json

import pytest
import torch
from safetensors.torch import save_file

from structure_first.cost import memory
from structure_first.data.corpora.packing import pack
from structure_first.errors import UserError
from structure_first.model import weights
from structure_first.model.transformer import Shape, Transformer
from structure_first.pretraining import two_stages
from structure_first.pretraining.checks import check
from structure_first.pretraining.stages import jobs, stand_in
from structure_first.pretraining.two_stages import train
from structure_first.runs import execution
from structure_first.versions import VERSIONS

CPU = torch.device("cpu")


@pytest.fixture
def refused(tmp_path, config, monkeypatch):
    """The line with which a run is refused, before anything is packed, and with nothing left behind."""

    def line(*changes: tuple[str, str]) -> str:
        with monkeypatch.context() as patch, pytest.raises(UserError) as error:
            patch.setattr(two_stages, "pack", None)
            train(config(*changes), tmp_path / "run", "cpu")
        assert not (tmp_path / "run").exists() and "\n" not in str(error.value)
        return str(error.value)

    return line


def test_what_would_fail_after_an_hour_fails_at_once(tmp_path, refused):
    for changes, line in [
        ([("lr: 1e-3, ev", "lr: 1e-3, dropout: 2.0, ev")], "dropout must be at least 0 and below 1, not 2.0"),
        ([("heads: 2", "heads: 3")], "width 32 is not a multiple of 3 heads"),
        ([("tokeniser: bytes", "tokeniser: bytes, vocab: 7")], "corpus.vocab is 7 but the tokeniser has 256 tokens"),
        ([("tokeniser: bytes", "tokeniser: 'bpe:300', vocab: 301")], "corpus.vocab is 301 but the tokeniser has 300"),
        ([("tokeniser: bytes", "tokeniser: 'bpe:3'")], "write bpe:VOCAB with a vocabulary of 257"),
        ([("corpus.jsonl", "none.jsonl")], "there is no file "),
        ([("held_out: 0.2", "held_out: 0.2, answers: true")], "answers are found in characters only, not in bytes"),
        ([("context: 16", "context: 16, limit_tokens: 16")], "corpus.limit_tokens must be context + 1 = 17 or more"),
        ([("shape:", "transfer: {mlp: from(none)}\nshape:")], "cannot read weights from none: "),
        ([("shape:", f"transfer: {{mlp: from({tmp_path})}}\nshape:")], f"cannot read weights from {tmp_path}: "),
    ]:
        assert line in refused(*changes)


def test_a_file_or_a_folder_of_something_else_is_left_alone(tmp_path, config):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file: it is a file; name another --out folder"):
        train(config(), tmp_path / "file", "cpu")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="run holds results, but of no training; name another --out"):
        train(config(), tmp_path / "run", "cpu")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["rows.parquet"]


def test_a_run_of_another_version_of_a_rule_is_refused_and_no_other(tmp_path, config, monkeypatch):
    train(config(), tmp_path / "run", "cpu")
    monkeypatch.setitem(VERSIONS, "reverse", 2)
    train(config(), tmp_path / "run", "cpu")
    monkeypatch.setitem(VERSIONS, "identity", 2)
    with pytest.raises(UserError, match="run holds a run that another version of one of its rules made; name another"):
        train(config(), tmp_path / "run", "cpu")


@pytest.mark.parametrize(
    ("part", "shape", "line"),
    [
        ("attention", dict(width=64), "has width 64, this run 32; name weights of a model with the same layers, heads"),
        ("mlp", dict(heads=4), "has heads 4, this run 2"),
        ("positions", dict(layers=2), "has layers 2, this run 1"),
        ("attention", {}, None),
        ("positions", {}, None),
        ("embeddings", dict(tied=False), None),
    ],
)
def test_weights_of_another_body_are_refused_and_those_that_are_not_carry_over(tmp_path, config, part, shape, line):
    body = dict(vocab=9, context=24, layers=1, heads=2, width=32, tied=True) | shape
    weights.save(tmp_path / "other.safetensors", Transformer(Shape(**body)))
    made = config(("shape:", f"transfer: {{{part}: from({tmp_path}/other.safetensors)}}\nshape:"))
    if line is None:
        train(made, tmp_path / "run", "cpu")
        return
    with pytest.raises(UserError) as error:
        check(made, tmp_path / "run", CPU)
    assert f"transfer.{part}: {tmp_path}/other.safetensors {line}" in str(error.value)


def test_weights_of_another_program_are_refused(tmp_path, config):
    rule = ("shape:", f"transfer: {{attention: from({tmp_path}/other.safetensors)}}\nshape:")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="was written by something else; name weights/"):
        check(config(rule), tmp_path / "run", CPU)
    (tmp_path / "other.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(UserError, match=r"cannot read weights from .*; name weights/"):
        check(config(rule), tmp_path / "run", CPU)


def test_the_tokeniser_saved_beside_the_shards_is_theirs_whatever_its_name(tmp_path, config):
    made, packed = config(), tmp_path / "packed"
    pack(made.corpus.name, "bpe:300", packed, held_out=0.2)
    own = (f"name: {made.corpus.name}, tokeniser: bytes", f"packed: {packed}, tokeniser: {packed}")
    taken(tmp_path, config, own, (", held_out: 0.2}", "}"))


def taken(tmp_path, config, *changes: tuple[str, str]) -> None:
    """Follow an advice: there is a complaint no more."""
    check(config(*changes), tmp_path / "run", CPU)


def test_advice_is_accepted(tmp_path, config, monkeypatch):
    """Each line's advice is what the next attempt does."""
    larger = ("steps: 4", "steps: 12")
    with pytest.raises(UserError, match="batch, or write allow_larger_stage_one: true"):
        config(larger)
    taken(tmp_path, config, ("shape:", "allow_larger_stage_one: true\nshape:"), larger)
    taken(tmp_path, config, ("steps: 4", "steps: 11"))
    with pytest.raises(UserError, match=r"corpus.vocab is 7 but .* 256 tokens; write that"):
        taken(tmp_path, config, ("bytes", "bytes, vocab: 7"))
    taken(tmp_path, config, ("bytes", "bytes, vocab: 256"))


def test_what_packing_says_of_its_options_is_said_of_keys(tmp_path, config):
    """`train` has no --text-column."""
    made = config()
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"other": "words " * 900}) + "\n")
    with pytest.raises(UserError, match=r"has no column 'text'; it has other; name one with corpus.text_column$"):
        train(made, tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()
    made = config(("bytes", "bytes, text_column: other"))
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"other": "words " * 900}) + "\n")
    with pytest.raises(UserError, match=r"raise corpus.held_out, or take a shorter context"):
        train(made, tmp_path / "run", "cpu")


@pytest.mark.parametrize("stage", [1, 2])
def test_advice_on_memory_is_accepted_by_a_run_that_has_begun(tmp_path, config, monkeypatch, stage):
    """`compute` may change in the same folder; batch, held_out and shape in another one, as the line says."""
    fit = execution.fit

    def failing(model, *rest, random_key, **options):
        if random_key == f"stage {stage}":
            raise MemoryError
        return fit(model, *rest, random_key=random_key, **options)

    with monkeypatch.context() as patch, pytest.raises(UserError) as error:
        patch.setattr(execution, "fit", failing)
        train(config(), tmp_path / "run", "cpu")
    advice = f"stage {stage} needs more memory than there is; write compute: {{recompute: true}}, lower "
    advice += "compute.micro_batch, or name another --out for a smaller shape, batch or held_out"
    assert str(error.value) == advice
    for compute in ("recompute: true", "micro_batch: 1"):
        check(config(("shape:", f"compute: {{{compute}}}\nshape:")), tmp_path / "run", CPU)
    for change in (("width: 32", "width: 16"), ("batch: 4", "batch: 2"), ("held_out: 8", "held_out: 4")):
        check(config(("shape:", "allow_larger_stage_one: true\nshape:"), change), tmp_path / "other", CPU)


def test_memory_is_known_before_it_is_taken(tmp_path, config, monkeypatch):
    check(config(), tmp_path / "run", CPU)
    monkeypatch.setattr(memory, "free_memory", lambda device: 100_000)
    with pytest.raises(UserError, match=r"stage 1 needs more memory than there is \(0.0 GB for one sequence at once"):
        check(config(), tmp_path / "run", CPU)


def test_memory_is_that_of_all_the_processes_that_torchrun_started(tmp_path, config, monkeypatch):
    made = config((config.stage_one, "compute: {sharded: true}"), ("layers: 1", "layers: 8"))
    (job,) = jobs(made, stand_in(made.corpus))
    alone, of_four = (
        sum(memory.needed(job.shape, job.source, job.phase.stage, 1, job.compute, count)[0].values())
        for count in (1, 4)
    )
    monkeypatch.setattr(memory, "usable_memory", lambda device: (alone + of_four) / 2)
    with pytest.raises(UserError, match="stage 2 needs more memory than there is"):
        check(made, tmp_path / "run", CPU)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "any")
    monkeypatch.setenv("WORLD_SIZE", "4")
    check(made, tmp_path / "run", CPU)

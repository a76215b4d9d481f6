"""A run of two stages, for real and tiny: what it leaves behind, how it goes on, and what it refuses."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from structure_first.data.corpora import tokenisers
from structure_first.data.corpora.packed import source
from structure_first.data.corpora.packing import pack
from structure_first.errors import UserError
from structure_first.evidence.statistics import final
from structure_first.evidence.store import Store
from structure_first.model import weights
from structure_first.pretraining.config import read
from structure_first.pretraining.stages import jobs
from structure_first.pretraining.two_stages import train
from structure_first.runs import execution
from structure_first.training import processes
from structure_first.training.loop import Run, fit


def stored(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_leaves_what_it_says(tmp_path, config):
    made, folder = config(), tmp_path / "run"
    rows = train(made, folder, "cpu")
    assert {path.name for path in folder.iterdir()} == {
        *("config.yaml", "corpus", "rows.parquet", "manifest.json", "weights", "checkpoints", "export")
    }
    assert not list((folder / "checkpoints").iterdir())
    assert read(folder / "config.yaml") == made
    assert set(rows["cell"]) == {"identity(length=4, vocab=8)"} and set(rows["metric"]) == {
        "loss",
        "accuracy",
        "loss in sight",
        "loss elsewhere",
        "cosine",
    }
    assert rows.groupby("stage")["step"].unique().map(list).to_dict() == {1: [0, 2, 4], 2: [0, 3, 6]}
    runs = Store(folder).manifest()["runs"]
    for stage in (1, 2):
        (key,) = set(rows.loc[rows["stage"] == stage, "run"])
        assert runs[key]["settings"] == made.plain() and runs[key]["stage"] == stage
        assert runs[key]["corpus"]["tokens"]["train"] > 0 and runs[key]["packages"]["torch"]


def test_what_is_finished_is_not_done_again(tmp_path, config, monkeypatch):
    rows, before = train(config(), tmp_path / "run", "cpu"), stored(tmp_path / "run")
    monkeypatch.setattr(execution, "fit", None)
    pd.testing.assert_frame_equal(train(config(), tmp_path / "run", "cpu"), rows)
    assert stored(tmp_path / "run") == before
    (tmp_path / "run" / "weights" / "stage_1.safetensors").unlink()
    (tmp_path / "run" / "export" / "config.json").unlink()
    train(config(), tmp_path / "run", "cpu")
    assert stored(tmp_path / "run").keys() == before.keys() - {"weights/stage_1.safetensors"}


def test_answers_alone_bear_loss_where_that_is_asked_for(tmp_path, config):
    """Of sums: what is solved is measured, the card says it, and it is another run than with loss on every token."""
    sums = [{"text": f"What is {a} + {b}?\n{a + b}"} for a in range(20) for b in range(20)]
    (tmp_path / "sums.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in sums))
    in_characters = ("corpus.jsonl, tokeniser: bytes, context: 16", "sums.jsonl, tokeniser: characters, context: 40")
    made = config(in_characters, ("held_out: 0.2", "held_out: 0.2, answers: true"))
    rows = train(made, tmp_path / "run", "cpu")
    assert rows.loc[rows["metric"] == "problems", ["stage", "step"]].to_numpy().tolist() == [[2, 0], [2, 3], [2, 6]]
    card = (tmp_path / "run" / "export" / "README.md").read_text()
    assert "problems solved |" in card and "nan" not in card and "answers: true" in card
    with pytest.raises(UserError, match=r"run holds a run with corpus.answers True, not None; name another --out"):
        train(config(in_characters), tmp_path / "run", "cpu")
    own = f"name: {tmp_path}/corpus.jsonl, tokeniser: bytes, context: 16, held_out: 0.2"
    packed = f"packed: {tmp_path}/run/corpus, context: 40"
    again = train(config((own, f"{packed}, answers: true")), tmp_path / "again", "cpu")
    of_all = train(config((own, packed)), tmp_path / "all", "cpu")
    assert final(again, "loss").item() == final(rows, "loss").item() != final(of_all, "loss").item()


def test_a_stopped_run_goes_on_and_ends_with_the_same_weights(tmp_path, config, monkeypatch):
    train(config(), tmp_path / "whole", "cpu")
    whole, real = stored(tmp_path / "whole"), Run.update
    same = [name for name in whole if name.startswith(("weights", "export", "corpus"))]
    assert len(same) > 8
    monkeypatch.setattr(execution, "fit", partial(fit, checkpoint_seconds=0))
    for updates in (3, 6, 9):
        done, stops = [], [updates]

        def update(self, *arguments, done=done, stops=stops):
            if [len(done)] == stops:
                raise KeyboardInterrupt
            done.append(self.random_key)
            return real(self, *arguments)

        monkeypatch.setattr(Run, "update", update)
        with pytest.raises(KeyboardInterrupt):
            train(config(), tmp_path / str(updates), "cpu")
        stops.clear()
        train(config(), tmp_path / str(updates), "cpu")
        assert done == ["stage 1"] * 4 + ["stage 2"] * 6
        parts = stored(tmp_path / str(updates))
        assert all(parts[name] == whole[name] for name in same)


def test_the_configuration_of_a_row_is_what_was_trained_whatever_its_seed_and_machine(tmp_path, config):
    folder = tmp_path / "run"
    rows = train(config(), folder, "cpu")
    corpus, keys = source(folder / "corpus", 16), [[*rows.groupby("stage")["configuration"].unique().explode()]]
    for change in ("seed: 1", "compute: {micro_batch: 2}", "transfer: {mlp: fresh}"):
        stages = jobs(config(("shape:", f"{change}\nshape:")), corpus, folder, "cpu")
        keys.append([each.configuration for job in stages for each in job.replicas])
    assert all(isinstance(key, str) and len(key) == 12 for stages in keys for key in stages)
    assert keys[0] == keys[1] == keys[2] and len({*keys[0], *keys[3]}) == 3 and keys[0][0] == keys[3][0]


def test_another_configuration_is_refused_but_another_machine_is_not(tmp_path, config):
    folder = tmp_path / "run"
    rows = train(config(), folder, "cpu")
    for changes, line in [
        ([("steps: 6", "steps: 7")], "stage_two.steps 6, not 7; name another --out"),
        ([("{source: identity", "{source: reverse")], "stage_one.source identity, not reverse"),
        ([("shape:", "seed: 1\nshape:")], "seed 0, not 1"),
    ]:
        before = stored(folder)
        with pytest.raises(UserError, match=f"run holds a run with {line}"):
            train(config(*changes), folder, "cpu")
        assert stored(folder) == before
    split = config(("shape:", "compute: {micro_batch: 2}\nshape:"))
    pd.testing.assert_frame_equal(train(split, folder, "cpu"), rows)
    (folder / "config.yaml").write_text("- [")
    with pytest.raises(UserError, match=r"config.yaml is no YAML .*; restore it or remove the run"):
        train(config(), folder, "cpu")


def test_without_stage_one_it_is_the_baseline_on_the_same_batches(tmp_path, config):
    """Transferring nothing is starting afresh: the two runs agree in every row of stage two."""
    alone = train(config((config.stage_one, "stage_one: null")), tmp_path / "alone", "cpu")
    fresh = "transfer: {attention: fresh, mlp: fresh, norms: fresh, positions: fresh, embeddings: fresh}\nshape:"
    after = train(config(("shape:", fresh)), tmp_path / "after", "cpu")
    assert set(alone["stage"]) == {2} and set(alone["cell"]) == {"random init"}
    columns = ["step", "tokens", "flops", "metric", "value"]
    second = after.loc[after["stage"] == 2, columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone[columns], second, check_exact=True)


def test_weights_of_another_run_can_be_carried_over(tmp_path, config):
    train(config(("identity", "reverse")), tmp_path / "other", "cpu")
    path = tmp_path / "other" / "weights" / "stage_1.safetensors"
    rule = f"transfer: {{mlp: from({path})}}\nshape:"
    start = {}
    watched = config(("shape:", rule))

    def fitted(model, *arguments, random_key, **options):
        start[random_key] = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        return fit(model, *arguments, random_key=random_key, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "fit", fitted)
        train(watched, tmp_path / "run", "cpu")
    other, mine = weights.load(path), weights.load(tmp_path / "run" / "weights" / "stage_1.safetensors")
    for name, tensor in start["stage 2"].items():
        if ".mlp." in name:
            assert torch.equal(tensor, other.get_parameter(name))
        elif ".attention." in name:
            assert torch.equal(tensor, mine.get_parameter(name))
    missing = config(("shape:", "transfer: {mlp: from(none.safetensors)}\nshape:"))
    with pytest.raises(UserError, match=r"cannot read weights from none.safetensors: "):
        train(missing, tmp_path / "none", "cpu")
    assert not (tmp_path / "none" / "weights").exists()


def test_hugging_face_loads_the_export(tmp_path, config):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    train(config(), tmp_path / "run", "cpu")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "export").eval()
    tokeniser = AutoTokenizer.from_pretrained(tmp_path / "run" / "export")
    tokens = tokeniser("lorem ipsum", return_tensors="pt")["input_ids"]
    assert tokens.tolist() == [list(b"lorem ipsum")]
    mine = weights.load(tmp_path / "run" / "weights" / "stage_2.safetensors").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, mine(tokens[None])[0], atol=1e-5, rtol=1e-5)


def test_a_packed_corpus_serves_and_is_checked(tmp_path, config):
    packed = tmp_path / "packed"
    pack(tmp_path / "corpus.jsonl" if config() else "", "bytes", packed, held_out=0.2)
    own = (f"name: {tmp_path}/corpus.jsonl, tokeniser: bytes", f"packed: {packed}")
    own = [own, (", held_out: 0.2}", "}")]
    assert (
        train(config(*own), tmp_path / "run", "cpu")["stage"].max() == 2 and not (tmp_path / "run" / "corpus").exists()
    )

    def refused(name: str, *changes: tuple[str, str]) -> str:
        with pytest.raises(UserError) as error:
            train(config(*own, *changes), tmp_path / name, "cpu")
        assert not (tmp_path / name / "weights").exists()
        return str(error.value)

    tokeniser = (f"packed: {packed}", f"packed: {packed}, tokeniser: characters")
    said = refused("a", tokeniser)
    assert f"the shards in {packed} were made by another tokeniser (bytes, " in said
    assert said.endswith("; use the one saved beside them, or pack again")
    assert "corpus.vocab is 9 but the tokeniser has 256 tokens; write that or leave it out" in refused(
        "b", (f"{packed}", f"{packed}, vocab: 9")
    )
    assert "has no 5,001 tokens in a row" in refused("c", ("context: 16", "context: 5000"))
    assert "there is no packed corpus in" in refused("d", (f"packed: {packed}", f"packed: {tmp_path}"))
    assert not any((tmp_path / name).exists() for name in "abcd"), "looked into before anything else"
    shard = packed / "train-00000.npy"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert "has changed since it was packed; restore it or pack again" in refused("e")


def test_a_bpe_of_the_corpus_is_exported_with_the_model(tmp_path, config):
    train(config(("tokeniser: bytes", "tokeniser: 'bpe:300'")), tmp_path / "run", "cpu")
    made = tokenisers.saved(tmp_path / "run" / "export" / tokenisers.FILE, "bpe:300")
    model = weights.load(tmp_path / "run" / "weights" / "stage_2.safetensors")
    assert made.vocab == model.shape.vocab <= 300


@pytest.mark.parametrize(
    "changes",
    [
        [("layers: 1, heads: 2, width: 32", "layers: 1000, heads: 8, width: 65536")],
        [("held_out: 8", "held_out: 16777216"), ("context: 16", "context: 65535")],
    ],
)
def test_what_is_too_large_for_the_memory_is_one_line(tmp_path, config, changes):
    with pytest.raises(
        UserError, match=r"stage [12] needs more memory than there is \(.* GB for one sequence .*\); write compute: "
    ):
        train(config(*changes, ("shape:", "allow_larger_stage_one: true\nshape:")), tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()


def two_processes(folder: Path) -> subprocess.CompletedProcess:
    """The command under torchrun, on the configuration in a folder."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "structure_first.cli", "train", folder / "run.yaml", "--out", folder / "both", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=300)


def test_numpy_may_be_what_runs_out_of_memory(tmp_path, config, monkeypatch):
    monkeypatch.setattr(execution, "fit", lambda *_, **__: np.empty((10**6, 10**9)))
    with pytest.raises(UserError, match="stage 1 needs more memory than there is"):
        train(config(), tmp_path / "run", "cpu")


def test_the_others_look_at_the_rows_once_they_are_written(tmp_path, config, monkeypatch):
    seen, agreed, append = [], processes.all_reduce_max, Store.append
    monkeypatch.setattr(Store, "append", lambda *given: append(*given) or seen.append("kept"))
    monkeypatch.setattr(processes, "all_reduce_max", lambda *values: seen.append("agreed") or agreed(*values))
    train(config(), tmp_path / "run", "cpu")
    assert seen.count("kept") == 2 and seen[-1] == "agreed"
    assert [seen[place + 1] for place, each in enumerate(seen) if each == "kept"] == ["agreed"] * 2


def test_a_mistake_of_two_processes_is_said_once(tmp_path, config):
    config((f"name: {tmp_path}/corpus.jsonl, tokeniser: bytes", "packed: nowhere"), (", held_out: 0.2}", "}"))
    said = two_processes(tmp_path)
    assert said.returncode == 1 and said.stderr.count("structure-first: there is no packed corpus in nowhere;") == 1


def test_two_processes_train_the_same(tmp_path, config):
    alone = train(config(), tmp_path / "alone", "cpu")
    said = two_processes(tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("stage 1") == said.stdout.count("stage 2") == 1
    both = Store(tmp_path / "both").rows()
    pd.testing.assert_frame_equal(both, alone, rtol=1e-4)
    assert (tmp_path / "both" / "export" / "config.json").exists()

"""A folder in, a folder out: what `transformers` loads, made once, whole or not there, and never by somebody's code."""

import json
import stat
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from structure_first.data.registry import source
from structure_first.errors import UserError
from structure_first.pretraining import warm_folder as module
from structure_first.pretraining.warm_folder import MANIFEST, warm_folder
from structure_first.versions import VERSIONS

COPY = source("identity", length=4, vocab=6)
SIZE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, vocab_size=70)
CONFIG = LlamaConfig(**SIZE, max_position_embeddings=32)


def silent(*arguments, **options):
    return warm_folder(*arguments, **{"steps": 3, "device": "cpu", "say": lambda line: None} | options)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


@pytest.fixture
def config(tmp_path) -> Path:
    CONFIG.save_pretrained(tmp_path / "empty")
    return tmp_path / "empty" / "config.json"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Of a model that has weights, and a tokeniser."""
    torch.manual_seed(9)
    LlamaForCausalLM(CONFIG).save_pretrained(tmp_path / "trained")
    (tmp_path / "trained" / "tokenizer.json").write_text("{}")
    return tmp_path / "trained"


def test_a_configuration_becomes_a_model_the_same_for_the_same_seed(config, tmp_path):
    manifest = silent(config, tmp_path / "a", COPY, seed=1)
    silent(config.parent, tmp_path / "b", COPY, seed=1)
    silent(config, tmp_path / "c", COPY, seed=2)
    a, b, c = (tensors(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["lm_head.weight"], c["lm_head.weight"]) and a["lm_head.weight"].shape == (70, 32)
    assert json.loads((tmp_path / "a" / MANIFEST).read_text()) == manifest
    recipe, reached = manifest["recipe"], manifest["reached"]
    assert (recipe["seed"], recipe["source"], recipe["settings"]) == (1, "identity", {"length": 4, "vocab": 6})
    assert recipe["weights"] == "drawn from the seed" and recipe["stage"]["steps"] == 3
    assert (
        reached["updates"] == 3 and 0 <= reached["accuracy"] <= 1 and manifest["packages"]["transformers"][0].isdigit()
    )
    assert not list(tmp_path.glob(".*"))
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "a").iterdir()}
    assert len(modes) == 1


def test_the_process_keeps_its_own_random_numbers(config, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    silent(config, tmp_path / "a", COPY)
    assert torch.equal(torch.rand(1), expected)


def test_weights_in_the_folder_are_taken_and_its_tokeniser_goes_along(folder, tmp_path):
    manifest = silent(folder, tmp_path / "out", COPY)
    before, after = tensors(folder), tensors(tmp_path / "out")
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"model.embed_tokens.weight", "lm_head.weight"} and manifest["recipe"]["weights"] == "as they were"
    assert (tmp_path / "out" / "tokenizer.json").exists()
    silent(folder / "config.json", tmp_path / "drawn", COPY)
    assert not torch.equal(tensors(tmp_path / "drawn")["lm_head.weight"], before["lm_head.weight"])


def test_what_is_there_is_not_made_again(config, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    made = silent(config, out, COPY)
    monkeypatch.setattr(module, "warm_up", None)
    assert silent(config, out, COPY) == made
    for options, different in [({"seed": 1}, "seed"), ({"steps": 4}, "stage"), ({"embeddings": "fresh"}, "embeddings")]:
        with pytest.raises(UserError, match=f"out was made with another {different}; name another --out"):
            silent(config, out, COPY, **options)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="made with another version; name another"):
        patch.setitem(VERSIONS, "identity", 2)
        silent(config, out, COPY)
    (out / MANIFEST).write_text("{}")
    with pytest.raises(UserError, match="recipe is missing; remove"):
        silent(config, out, COPY)


def test_a_failure_leaves_no_folder_and_a_killed_one_goes_on(config, tmp_path, monkeypatch):
    silent(config, tmp_path / "whole", COPY)

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", full)
    with pytest.raises(UserError, match=r"cannot write .*out: No space left on device"):
        silent(config, tmp_path / "out", COPY)
    assert not (tmp_path / "out").exists() and [path.name for path in tmp_path.glob(".*")] == [".out.checkpoint"]
    monkeypatch.undo()
    (tmp_path / ".out.tmp").mkdir()  # as a killed process leaves it
    silent(config, tmp_path / "out", COPY)
    whole, again = tensors(tmp_path / "whole"), tensors(tmp_path / "out")
    assert all(torch.equal(whole[name], again[name]) for name in whole) and not list(tmp_path.glob(".*"))


REMOTE = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModelForCausalLM": "code.Model"}}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "transformers makes no causal language model of .*; name a config.json of transformers"),
        (json.dumps({"model_type": "llamas"}), "transformers makes no causal language model"),
        (json.dumps({"model_type": "vit"}), "transformers makes no causal language model"),
        (json.dumps(REMOTE), "transformers makes no causal language model"),
        (
            CONFIG.to_json_string().replace('"vocab_size": 70', f'"vocab_size": {1 << 40}'),
            "GB can be used; name a smaller",
        ),
    ],
)
def test_what_is_no_configuration_of_theirs_is_one_line(tmp_path, text, line):
    (tmp_path / "code.py").write_text("raise SystemExit('somebody ran this')")
    (tmp_path / "config.json").write_text(text)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=line) as said:
        silent(tmp_path, tmp_path / "out", COPY)
    assert "\n" not in str(said.value) and sorted(tmp_path.iterdir()) == before


def test_what_would_be_unpickled_or_is_not_whole_is_refused(folder, tmp_path):
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(500)
    with pytest.raises(UserError, match="transformers makes no causal language model"):
        silent(folder, tmp_path / "out", COPY)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is pickled, and may run code"):
        silent(folder, tmp_path / "out", COPY)
    assert not (tmp_path / "out").exists()


def test_weights_that_lack_some_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    save_file({name: each for name, each in state.items() if "norm" not in name}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"lack model\.layers\.0\.input_layernorm\.weight"):
        silent(folder, tmp_path / "out", COPY)


def test_a_folder_of_something_else_is_left_alone(config, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="other holds something else; name a new or empty"):
        silent(config, other, COPY)
    with pytest.raises(UserError, match="it is a file; name another"):
        silent(config, other / "thesis.tex", COPY)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]

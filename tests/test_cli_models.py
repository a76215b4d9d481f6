"""The verbs of models, as a user gives them."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
LLAMA |= {"num_attention_heads": 2, "vocab_size": 50, "max_position_embeddings": 32}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(json.dumps(LLAMA))
    return tmp_path


WARM = (
    "warm",
    "config.json",
    "--source",
    "identity",
    "--out",
    "warm",
    "--steps",
    2,
    "--device",
    "cpu",
    "--length",
    4,
    "--vocab",
    6,
)


def test_a_model_is_warmed_up_and_what_it_takes_said(said, here):
    out, _ = said(*WARM)
    first, second, *_, last = out.splitlines()
    assert first.startswith("stage one  identity: at most 2 updates") and "was NOT learnt" in second
    assert last.startswith("warm holds it: accuracy 0.") and Path("warm/model.safetensors").exists()
    assert said(*WARM)[0] == last + "\n"


def test_beside_the_book_the_ledger_speaks_first(said, here):
    Path("book").symlink_to(ROOT / "book")
    lines = said(*WARM)[0].splitlines()
    assert lines[0] == "the ledger at 4 layers x 128, in nats a token:"
    start = next(number for number, line in enumerate(lines) if line.startswith("stage one"))
    assert any("on code a better start alone" in line for line in lines[:start])
    assert lines[start - 1].startswith("the ledger at 2 layers x 64, tuned: identity 1% in front gains on language")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"config.json": "gpt2"}, "there is no gpt2; name a config.json of transformers"),
        ({"identity": "identify"}, "unknown source 'identify'; did you mean 'identity'?"),
        ({"--steps": "--lengt"}, "unknown option of warm identity '--lengt'; did you mean '--length'?"),
        ({"identity": "language/bytes"}, "unknown setting of language/bytes 'length'; known: context, tokens"),
        ({2: 0}, "steps must be 1 or more"),
        ({"--device": "--seed", "cpu": -1}, "--seed must be from 0 to 2,147,483,647, not -1"),
        ({"--device": "--precision"}, "unknown precision 'cpu'"),
        ({4: 64}, "identity has sequences of 129 tokens, the model a context of 32; give the source a shorter length"),
    ],
)
def test_a_bad_call_is_one_line_and_writes_nothing(said, here, changes, line):
    out, error = said(*(changes.get(word, word) for word in WARM))
    assert line in error and not out and [path.name for path in here.iterdir()] == ["config.json"]


@pytest.mark.parametrize("out", [".", ".."])
def test_the_current_folder_is_not_replaced(said, here, out):
    _, error = said(*(out if place == 5 else word for place, word in enumerate(WARM)))
    assert f"cannot write to {out}: the current folder is in it; name another --out folder" in error


def test_a_trained_run_is_sampled(said, here):
    Path("texts").mkdir()
    for number in range(60):
        Path("texts", f"{number}.txt").write_text(f"document {number} " + "lorem ipsum " * (number % 9))
    Path("tiny.yaml").write_text(
        "{shape: {layers: 1, heads: 2, width: 32}, stage_two: {steps: 2, batch: 4, lr: 1e-3},"
        " corpus: {name: ./texts, tokeniser: bytes, context: 16, held_out: 0.2}}"
    )
    said("train", "tiny.yaml", "--device", "cpu")
    command = ["sample", "runs/tiny", "--prompt", "lorem", "--tokens", "5", "--top-k", "9", "--seed", "1"]
    text, _ = said(*command)
    assert text.startswith("lorem") and text == said(*command)[0]
    assert "texts holds no trained run" in said("sample", "texts")[1]
    assert "temperature must be above 0" in said("sample", "runs/tiny", "--temperature", 0)[1]

"""The pass of `gpt2.js`, in a browser, is torch's."""

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from structure_first.analysis import attention
from structure_first.book.figures import ask
from structure_first.model import weights
from structure_first.model.transformer import Shape, Transformer
from structure_first.runs.jobs import trained, weights_path

BOOK = Path(__file__).parents[2] / "book"
LOGITS, ATTENTION = 1e-4, 1e-5  # how far apart the two may be
RUN = """
const [code, weights, sequences] = arguments;
const gpt2 = new Function(`${code}; return gpt2`)();
const model = gpt2.read(weights);
return JSON.stringify(sequences.map((tokens) => gpt2.run(model, tokens)));
"""

Said = Callable[[Path, list[list[int]]], list[dict]]


@pytest.fixture(scope="module")
def said(browser) -> Said:
    """What the page's own pass gives, by the file of weights and the sequences."""
    code = (BOOK / "_static" / "gpt2.js").read_text()

    def said(path: Path, sequences: list[list[int]]) -> list[dict]:
        return json.loads(browser.execute_script(RUN, code, b64encode(path.read_bytes()).decode(), sequences))

    return said


@torch.no_grad()
def holds(model: Transformer, tokens: list[int], found: dict) -> None:
    asked = torch.tensor([tokens])
    patterns = attention.patterns(model, asked)[:, 0, 0]
    close(found["logits"], model(asked[None])[0, 0], LOGITS)
    assert [len(heads) for heads in found["attention"]] == [model.shape.heads] * model.shape.layers
    for heads, layer in zip(found["attention"], patterns, strict=True):
        for rows, pattern in zip(heads, layer, strict=True):
            for place, row in enumerate(rows):
                close(row, pattern[place, : place + 1], ATTENTION)


def close(found: list, wanted: torch.Tensor, apart: float) -> None:
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float32), wanted, atol=apart, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_of_any_shape_and_any_weights(tied, tmp_path, said):
    """Biases, scales and shifts among them, which fresh weights have at 0 and 1."""
    model = Transformer(Shape(layers=3, heads=2, width=12, vocab=9, context=5, tied=tied, init=0.4), [0])
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=random)
    path, sequences = tmp_path / "any.safetensors", [[8, 0, 3, 3, 1], [4]]
    weights.save(path, model)
    for tokens, found in zip(sequences, said(path, sequences), strict=True):
        holds(model, tokens, found)


@pytest.mark.parametrize("name", ask.replicas())
def test_of_the_stored_models_on_haystacks(name, said):
    replica, folder = ask.replicas()[name], BOOK / "results" / "haystack"
    haystacks = [attention.example(pairs, seed=pairs).tokens[0, :-1].tolist() for pairs in (1, 2, 6, 12)]
    for tokens, found in zip(haystacks, said(weights_path(replica, folder), haystacks), strict=True):
        holds(trained([replica], folder), tokens, found)

"""A configuration of a few steps, with some of its text replaced, for every test of a training."""

import json

import pytest

from structure_first.pretraining.config import read

TEXTS = [f"document {i}: " + "lorem ipsum dolor\n" * (i % 7) for i in range(200)]
CONFIG = """
shape: {layers: 1, heads: 2, width: 32}
stage_one: {source: identity, settings: {length: 4, vocab: 8}, steps: 4, batch: 4, lr: 1e-3, evaluate_every: 2}
corpus: {name: CORPUS, tokeniser: bytes, context: 16, held_out: 0.2}
stage_two: {steps: 6, batch: 4, lr: 1e-3, held_out: 8, evaluate_every: 3}
"""


@pytest.fixture
def config(tmp_path):
    """The configuration `CONFIG`, changed."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))

    def changed(*changes: tuple[str, str]):
        text = CONFIG.replace("CORPUS", str(corpus))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "run.yaml").write_text(text)
        return read(tmp_path / "run.yaml")

    changed.stage_one = next(line for line in CONFIG.splitlines() if line.startswith("stage_one"))
    return changed

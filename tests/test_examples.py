"""The examples, run as they are, beside the book and in a folder where what they write does no harm."""

import runpy
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[1]
EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    for name in ("src", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    quick = (ROOT / "book" / "configs" / "quick.yaml").read_text()
    assert "\nshape: tiny " in quick
    smaller = quick.replace("\nshape: tiny ", "\nshape: {layers: 2, heads: 4, width: 64} #")
    (tmp_path / "book" / "configs").mkdir(parents=True)
    (tmp_path / "book" / "configs" / "quick.yaml").write_text(smaller)
    monkeypatch.chdir(tmp_path)

    def run(example: str) -> list[str]:
        runpy.run_path(str(EXAMPLES[example]), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def test_data_for_ones_own_trainer(printed):
    lines = printed("data")
    assert len(lines) == 3 and len(set(lines)) == 3 and all("(64, 65), " in line for line in lines)


def test_a_model_is_warmed_up_and_trained_on(printed):
    lines = printed("warm_up")
    assert "identity was learnt" in lines[1] and any("train_loss" in line for line in lines)
    assert AutoModelForCausalLM.from_pretrained("runs/warmed_up").config.vocab_size == 256


def test_two_structures_are_compared(printed):
    lines = printed("compare")
    ends = {line.split(":")[0]: float(line.split()[2]) for line in lines}
    assert list(ends) == ["after identity", "after set", "after None"]
    assert all(2 < loss < 8 for loss in ends.values()) and len(set(ends.values())) == 3


def test_none_is_left_out():
    assert all(f'printed("{name}")' in Path(__file__).read_text() for name in EXAMPLES)

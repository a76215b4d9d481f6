"""The card beside an exported model: numbers that are the rows', a recipe that makes the same run again."""

import re
from math import nan

import yaml
from pandas import concat

from structure_first.evidence.statistics import final
from structure_first.pretraining.card import FILE, card
from structure_first.pretraining.config import Config
from structure_first.pretraining.two_stages import train


def narrowed(text: str) -> list[str]:
    """The lines, whose columns are else as wide as what is in them."""
    return re.sub(" +", " ", text).splitlines()


def test_it_holds_the_recipe_and_the_rows_last_numbers(tmp_path, config):
    made = config()
    rows = train(made, tmp_path / "run", "cpu")
    text = (tmp_path / "run" / "export" / FILE).read_text()
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "transformers"
    recipe = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "again.yaml").write_text(recipe)
    assert Config.model_validate(yaml.safe_load(recipe), strict=False) == made
    lines = [line.split(" | ") for line in narrowed(text) if re.match(r"\| \d", line)]
    assert [(line[0], line[1]) for line in lines] == [("| 1", "4"), ("| 2", "6")]
    for number, line in enumerate(lines, 1):
        assert line[4] == f"{final(rows, 'loss', number).item():.4f}"
        assert line[5] == f"{final(rows, 'accuracy', number).item():.3f} |"
    assert "# identity(length=4, vocab=8), then " in text and "width of 32" in text


def test_a_run_without_a_front_says_so(tmp_path, config):
    made = config((config.stage_one, "stage_one: null"))
    rows = train(made, tmp_path / "run", "cpu")
    assert "corpus.jsonl alone\n" in card(made, rows)
    assert not any(line.startswith("| 1 |") for line in narrowed(card(made, rows)))


def test_a_loss_that_is_no_longer_finite_stands_beside_the_last_update(config, rows_of):
    losses, right = (rows_of({("a", 0): {3: 0.5, 6: nan}}, metric) for metric in ("loss", "accuracy"))
    (line,) = (line for line in narrowed(card(config(), concat([losses, right]))) if line.startswith("| 2 |"))
    assert line.split(" | ")[1] == "6" and line.endswith("| nan | nan |")

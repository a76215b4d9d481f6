"""The models that the reader questions: stored weights are what their rows say, and the figure says what they say."""

import re
from itertools import chain
from pathlib import Path

import pytest
import torch
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from structure_first.analysis import attention
from structure_first.analysis.stored import of_today
from structure_first.book.figures import ask
from structure_first.book.figures.tokens import in_haystack
from structure_first.data.diagnostics import KEY, QUERY
from structure_first.errors import UserError
from structure_first.evidence.statistics import final
from structure_first.experiments.haystack import EXPERIMENT
from structure_first.model.transformer import Transformer
from structure_first.runs.jobs import trained
from structure_first.training.predictions import evaluate
from structure_first.training.stream import Stream

BOOK = Path(__file__).parents[2] / "book"
RESULTS, STATIC = BOOK / "results", BOOK / "_static"
REPLICAS = ask.replicas()
CLOSE = 0.01  # trained as one program with other seeds, or alone: rounding differs, and grows


def stored(name: str) -> Transformer:
    return trained([REPLICAS[name]], RESULTS / EXPERIMENT.name)


@pytest.mark.parametrize("name", REPLICAS)
def test_stored_weights_are_as_right_as_their_row_says(name):
    replica, model = REPLICAS[name], stored(name)
    row = final(of_today(EXPERIMENT, RESULTS)[ask.SCALE])[replica.cell, replica.seed]
    task, stage = replica.phase.make(), replica.phase.stage
    held_out = Stream(task, stage.held_out, model.seeds, "stage 2, held out")(0)
    assert evaluate(model, held_out, task)["accuracy"].item() == pytest.approx(row, abs=CLOSE)


@pytest.fixture(scope="module")
def told() -> dict:
    return ask.asked(RESULTS)


def test_the_head_that_is_drawn_first_looks_most_at_what_is_asked_for(told):
    batch = attention.example(12, 50, seed=1).tokens[:, :-1]
    place = attention.asked(batch) + 1
    for of in told["models"]:
        looks = attention.patterns(stored(of["name"]), batch)[:, 0, torch.arange(50), :, -1, place].mean(0)
        assert of["layer"] == 1 and looks[1, of["head"]] >= 0.8 * looks[1].max(), of["name"]


def test_missing_weights_are_said_in_a_line(tmp_path):
    (tmp_path / EXPERIMENT.name).mkdir()
    for kept in (RESULTS / EXPERIMENT.name).glob("*.*"):
        (tmp_path / EXPERIMENT.name / kept.name).symlink_to(kept)
    with pytest.raises(UserError, match=r"cannot read weights from .*; remove the file and train again"):
        ask.asked(tmp_path)


@pytest.fixture(scope="module")
def page(told, tmp_path_factory) -> Path:
    head = f'<meta charset="utf-8"><link rel="stylesheet" href="{(STATIC / "ask.css").as_uri()}">'
    head += "".join(f'<script src="{(STATIC / name).as_uri()}"></script>' for name in ("ask.js", "gpt2.js"))
    path = tmp_path_factory.mktemp("ask") / "page.html"
    path.write_text(f"<!doctype html>{head}<body>{ask.page(told)}</body>")
    return path


def torchs(name: str, tokens: list[int]) -> int:
    with torch.no_grad():
        return stored(name)(torch.tensor([[tokens]]))[0, 0, -1].argmax().item()


def check(browser, tokens: list[int]) -> None:
    """What the page says of this haystack is what the models say."""
    key = tokens[-1] - QUERY + KEY
    right = tokens[tokens.index(key) + 1]
    said = browser.find_element(By.CSS_SELECTOR, "[role=status]").text
    assert said.startswith(f"{in_haystack(key)} stands with {right}: ")
    for name in REPLICAS:
        answer = torchs(name, tokens)
        assert f"{name} answers {in_haystack(answer)} ({'right' if answer == right else 'wrong'})" in said
        bars = browser.find_elements(By.CSS_SELECTOR, f"[aria-label='{name}'] li")
        assert bars[0].text.split()[0] == in_haystack(answer) and len(bars) in (5, 6)
        assert [bar.text.split()[0] for bar in bars if "✓" in bar.text] == [str(right)]


def shown(browser) -> list[int]:
    """The haystack that the page shows."""
    letters = browser.find_elements(By.CSS_SELECTOR, ".sf-ask-key")
    values = browser.find_elements(By.CSS_SELECTOR, ".sf-ask-value")
    token = {in_haystack(token): token for token in range(KEY, KEY + 60)}
    both = [(token[a.text], int(b.get_property("value"))) for a, b in zip(letters, values, strict=True)]
    return [*chain.from_iterable(both), token[browser.find_element(By.CSS_SELECTOR, "output").text]]


def test_a_reader_asks(told, page, browser):
    browser.get(page.as_uri())
    tokens = told["tokens"]
    assert shown(browser) == tokens
    check(browser, tokens)

    browser.find_elements(By.CSS_SELECTOR, ".sf-ask-key")[4].click()
    tokens = [*tokens[:-1], tokens[8] - KEY + QUERY]
    assert shown(browser) == tokens
    check(browser, tokens)

    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    tokens = [*tokens[:-1], tokens[10] - KEY + QUERY]
    assert shown(browser) == tokens
    check(browser, tokens)

    browser.switch_to.active_element.send_keys(in_haystack(tokens[0]))
    said = browser.find_element(By.CSS_SELECTOR, "[role=status]").text
    assert said == f"{in_haystack(tokens[0])} is a key here already, and each is there once; type another."
    assert shown(browser) == tokens
    unused = [key for key in told["keys"] if key not in tokens]
    for key in (unused[0], unused[-1]):  # a capital, typed as a small letter, and a small letter
        browser.switch_to.active_element.send_keys(in_haystack(key).lower())
        tokens = [*tokens[:10], key, tokens[11], key - KEY + QUERY]
        assert shown(browser) == tokens
        check(browser, tokens)

    field = browser.find_elements(By.CSS_SELECTOR, ".sf-ask-value")[5]
    field.send_keys(Keys.CONTROL + "a")
    field.send_keys("128")
    said = browser.find_element(By.CSS_SELECTOR, "[role=status]")
    assert said.text == "A value is a whole number from 1 to 127; type one."
    field.send_keys(Keys.TAB)
    check(browser, shown(browser))
    field.send_keys(Keys.CONTROL + "a")
    field.send_keys("77")
    tokens[11] = 77
    assert shown(browser) == tokens
    check(browser, tokens)

    browser.find_element(By.CSS_SELECTOR, "button").click()
    drawn = shown(browser)
    assert drawn != tokens and len(set(drawn[:-1:2])) == 6 and drawn[-1] - QUERY + KEY in drawn[:-1:2]
    assert set(drawn[:-1:2]) <= set(told["keys"]) and set(drawn[1::2]) <= set(told["values"])
    check(browser, drawn)
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_the_chosen_head_is_drawn(told, page, browser):
    browser.get(page.as_uri())
    for of in told["models"]:
        section = browser.find_element(By.CSS_SELECTOR, f"[role=group][aria-label='{of['name']}']")
        patterns = attention.patterns(stored(of["name"]), torch.tensor([told["tokens"]]))[:, 0, 0]
        choice = Select(section.find_element(By.TAG_NAME, "select"))
        assert choice.first_selected_option.text == f"layer {of['layer']}, head {of['head']}"
        for layer, head in ((of["layer"], of["head"]), (0, 3)):
            choice.select_by_visible_text(f"layer {layer}, head {head}")
            share, place = patterns[layer, head, -1].max(0)
            query, most = in_haystack(told["tokens"][-1]), in_haystack(told["tokens"][place])
            percent = re.search(rf"from {re.escape(query)} most at {re.escape(most)}: (\d+)%", section.text)[1]
            assert int(percent) == pytest.approx(100 * share.item(), abs=0.6)
        arcs = len(section.find_elements(By.TAG_NAME, "path"))
        pattern = patterns[0, 3].tril(-1)
        assert arcs == pytest.approx((pattern >= 0.02).sum().item(), abs=1), "of an early layer every place's"


def test_without_a_script_a_sentence_says_so(told):
    text = re.sub(r"<script.*?</script>|<[^>]+>", " ", ask.page(told), flags=re.DOTALL)
    assert "with JavaScript on" in text and len(ask.page(told)) < 400_000

"""The tables of the reference: sources, what may become of weights, and the verbs with their help."""

import re
import subprocess
import sys
from html import escape


def sources() -> str:
    """A line for each source: its rule, what it teaches, its settings and their defaults."""
    from structure_first.data.registry import CHANGES, RULES, describe, first_paragraph

    lines = ["| source | a sequence | teaches | settings |", "|---|---|---|---|"]
    for name, rule in RULES.items():
        given = ", ".join(f"`{key}={value}`" for key, value in rule.defaults.items())
        lines.append(f"| `{name}` | {words(describe(name))} | {words(rule.teaches)} | {given} |")
    for name, change in CHANGES.items():
        lines.append(f"| `{name}:NAME` | {words(first_paragraph(change))} | | those of NAME |")
    lines.append("| `NAME+NAME` | Each sequence is of one of these. | | those of its members |")
    return "\n".join(lines)


def rules() -> str:
    """A line for each rule of a transfer, and to which groups of weights it may apply."""
    from structure_first.model.transfer import ONLY, RULES

    lines = ["| rule | what stage two begins with | groups |", "|---|---|---|"]
    for name, meaning in RULES.items():
        allowed = ", ".join(f"`{part}`" for part in ONLY.get(name, ())) or "any"
        meaning = re.sub(r" \((embeddings|positions)[^)]*\)$", "", meaning)  # the last column says so
        lines.append(f"| `{name}` | {words(meaning)} | {allowed} |")
    return "\n".join(lines)


def verbs() -> str:
    """Every verb with its arguments and options, as typer tells of an application that the book stands below."""
    told = [sys.executable, "-P", "-m", "typer", "structure_first.verbs", "utils", "docs", "--name", "structure-first"]
    said = subprocess.run(told, capture_output=True, text=True, check=True).stdout
    _, *each = re.split(r"^## (?=`)", said, flags=re.MULTILINE)
    return "".join(f"### {one.replace('```console', '```text')}" for one in each)


def words(text: str) -> str:
    """Words of a docstring's as a table's cell holds them."""
    return escape(text, quote=False).replace("|", "\\|")

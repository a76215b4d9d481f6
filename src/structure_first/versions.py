"""The version of every rule that makes data or arithmetic: what a stored row was made by.

A rule is a source, a tokeniser, a transfer rule, or one of `ALWAYS`. Whoever changes what one of them makes raises its
number here; the keys of all recipes that use it change, and rows made before no longer answer for them. What is not
here is at 1, and a recipe whose rules are all at 1 has nothing of this in its key.
"""

ALWAYS = ("init", "stream", "training")  # fresh weights; which batch comes when; the loop, its optimizer and its rates

VERSIONS = {
    "bpe": 2,  # version 1: learnt from as much whatever the limit
    "dropout": 2,  # version 1: torch's own
    "code": 2,  # version 1: every Python file that was installed, whatever that was
    "language": 2,  # their docstrings
    "nca": 2,  # version 1: in a training, another state where no unit of a rule answers
}

# What made the folders of `train` and `warm` while their keys had no versions: a rule that is as it was then is not in
# them. Nobody raises these.
FOLDERS = {"bpe": 2, "dropout": 2, "code": 2, "language": 2, "nca": 2}


def versions(rules: set[str]) -> dict[str, int]:
    """Those of the rules, and of `ALWAYS`, that are not at 1."""
    return {rule: version for rule, version in sorted(VERSIONS.items()) if rule in rules.union(ALWAYS)}


def raised(rules: set[str]) -> dict[str, int]:
    """Those of `versions` that are not as in `FOLDERS`."""
    return {rule: version for rule, version in versions(rules).items() if version != FOLDERS.get(rule)}

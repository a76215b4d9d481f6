"""Brings a results folder of format 1 to format 2: `python -m structure_first.runs.migrate FOLDER ...`

Format 1 spoke of `first`, `second` and `rate`, and its keys held every field of a recipe, so that a new field made them
others. Rows, seeds and runs stay; recipes, keys, the names of stage ones and the folders of weights become today's.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from structure_first.evidence.store import FORMAT, Store
from structure_first.files import replacing, write_text
from structure_first.runs.recipe import Recipe, digest, plain

NAMES = {"first": "stage_one", "second": "stage_two", "rate": "lr"}
BODY = ("layers", "heads", "width", "init", "init_embedding")


def renamed(value: Any) -> Any:
    """The same with today's names; a corpus that was whatever was installed says so."""
    if not isinstance(value, Mapping):
        return value
    today = {NAMES.get(name, name): renamed(inner) for name, inner in value.items()}
    if "stage_two" in today:  # a recipe
        today["body"] = {name: today.pop(name) for name in BODY if name in today}
        if inits := today.pop("init_first", None):
            today["body_stage_one"] = today["body"] | dict(zip(("init", "init_embedding"), inits, strict=True))
    if isinstance(today.get("source"), str):
        today["source"] = re.sub(r"^(code|language)/", r"\1@1/", today["source"])
    return today


def migrate(folder: Path) -> int:
    """Migrate one experiment's folder, and say how many of its runs had to be."""
    store = Store(folder)
    manifest = json.loads((store.folder / "manifest.json").read_text())
    if manifest["format"] == FORMAT:
        return 0
    rows = pd.read_parquet(store.folder / "rows.parquet")
    names, weights = {}, {}
    for key, run in manifest["runs"].items():
        if "recipe" not in run:  # of `pretraining`, whose settings were its configuration, seed and machine with them
            settings = run["configuration"]
            run |= {"settings": settings, "configuration": digest(settings | {"seed": None, "compute": None})}
            continue
        recipe = Recipe.read(renamed(run["recipe"]))
        if run["stage"] == 1:
            names[key] = recipe.title
        weights[run["configuration"]] = recipe.key
        run |= {"recipe": plain(recipe), "configuration": recipe.key}
    rows["cell"] = [names.get(run, cell) for run, cell in zip(rows["run"], rows["cell"], strict=True)]
    for old, new in weights.items():
        if (old_folder := store.folder / "weights" / old).exists():
            old_folder.rename(old_folder.with_name(new))
    with replacing(store.folder / "rows.parquet") as temporary:
        rows.to_parquet(temporary, index=False, compression="zstd")
    write_text(store.folder / "manifest.json", json.dumps(manifest | {"format": FORMAT}, indent=1) + "\n")
    return len(manifest["runs"])


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        print(f"{folder}: {migrate(Path(folder))} runs migrated")

"""Imports run one way, from what people call down to data and models; and the training core asks for little."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import structure_first

ROOT = Path(structure_first.__file__).parent
# Each may import those below it, and none beside it. At the foot, what everything may use.
LAYERS = (
    ("cli",),
    ("verbs",),
    ("bench", "book"),
    ("analysis",),
    ("experiments", "pretraining"),
    ("runs",),
    ("cost",),
    ("training", "evidence"),
    ("model", "data"),
    ("files", "machine", "scales", "schema", "seeding", "versions"),
    ("errors", ""),
)
LONGEST = 300  # lines of a module
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
SHARED = {"as_published", "starts", "text"}  # of the experiments: what several have in common, and no cell
TRAINING_CORE = [
    "data.batch data.controls data.diagnostics data.mixtures data.registry data.corpora.packed",
    *("data.procedural." + name for name in ("automata", "languages", "memory", "transforms")),
    "model.transformer model.transfer model.weights",
    "training.loop training.processes evidence.store",
    "runs.runner experiments.registry",  # what a bare GPU machine is for
]
ALLOWED = {"torch", "numpy", "einops", "jaxtyping", "safetensors", "pandas", "pyarrow", "tqdm"}


def part(module: str) -> str:
    return module.partition(".")[0]


def imports() -> Iterator[tuple[str, str]]:
    """Each module of the package with each one that it imports, wherever in it."""
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            found = []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} imports relatively"
                found = [f"{node.module}.{each.name}" for each in node.names]
            elif isinstance(node, ast.Import):
                found = [each.name for each in node.names]
            for each in found:
                if each.split(".")[0] == "structure_first":
                    yield name, module_of(each)


def module_of(imported: str) -> str:
    """`structure_first.runs.jobs.Job` is of `runs.jobs`."""
    words = imported.split(".")[1:]
    while words and not (ROOT.joinpath(*words).with_suffix(".py").exists() or ROOT.joinpath(*words).is_dir()):
        words.pop()
    return ".".join(words)


IMPORTS = sorted(set(imports()))


def allowed(importer: str, imported: str) -> bool:
    a, b = part(importer), part(imported)
    return a == b or RANK[a] < RANK[b]


def test_every_part_has_its_layer():
    assert {part(module) for each in IMPORTS for module in each} <= set(RANK)


def test_no_module_is_longer_than_can_be_read_at_one_sitting():
    lengths = {path.relative_to(ROOT): path.read_text().count("\n") for path in ROOT.rglob("*.py")}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST} == {}


def test_imports_run_one_way():
    assert not [each for each in IMPORTS if not allowed(*each)]


def test_no_experiment_imports_another():
    for importer, imported in IMPORTS:
        if importer != "experiments.registry" and part(importer) == part(imported) == "experiments":
            assert imported.removeprefix("experiments.") in SHARED, f"{importer} imports {imported}"


REFUSING = """
import builtins, importlib, sys
whole, allowed = builtins.__import__, set(sys.argv[1].split())
def asked(name, globals=None, *rest, **more):
    who, top = (globals or {}).get("__name__", ""), name.partition(".")[0]
    if who.startswith("structure_first") and top not in {"structure_first", *allowed, *sys.stdlib_module_names}:
        raise ImportError(f"{who} imports {name}")
    return whole(name, globals, *rest, **more)
builtins.__import__ = asked
for module in sys.argv[2].split():
    importlib.import_module(f"structure_first.{module}")
"""


def test_the_training_core_imports_little():
    command = [sys.executable, "-c", REFUSING, " ".join(ALLOWED), " ".join(TRAINING_CORE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]

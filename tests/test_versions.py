"""One source of versions: pyproject.toml names what is needed, constraints.txt pins it, environment.yml uses both."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import structure_first

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTED = [*PROJECT["dependencies"], *(it for extra in PROJECT["optional-dependencies"].values() for it in extra)]
DIRECT = [Requirement(it) for it in dict.fromkeys(LISTED)]
GPU_ONLY = re.compile(r"nvidia|^cuda|^cu\d|^triton")


def pins() -> list[tuple[str, str]]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    split = [line.partition("==") for line in lines if line]
    assert all(equals for _, equals, _ in split), "constraints.txt holds exact pins only"
    return [(canonicalize_name(name), version) for name, _, version in split]


def test_each_package_is_pinned_once():
    names = [name for name, _ in pins()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda it: it.name)
def test_each_direct_dependency_is_pinned_to_a_version_it_allows(requirement: Requirement):
    version = dict(pins()).get(canonicalize_name(requirement.name))
    assert version, f"constraints.txt does not pin {requirement.name}"
    assert requirement.specifier.contains(version)


def test_what_they_depend_on_is_pinned_too():
    pinned, waiting, seen = dict(pins()), list(DIRECT), set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if GPU_ONLY.search(name) or (name, *sorted(requirement.extras)) in seen:
            continue
        seen.add((name, *sorted(requirement.extras)))
        assert name in pinned, f"constraints.txt does not pin {name}"
        try:
            below = map(Requirement, requires(name) or ())
        except PackageNotFoundError:
            continue  # an environment of another kind; .ci/run checks a complete one
        extras = requirement.extras or {""}
        waiting += [it for it in below if not it.marker or any(it.marker.evaluate({"extra": e}) for e in extras)]


def test_torch_is_the_one_release_and_no_gpu_package_is_pinned():
    pinned = dict(pins())
    assert pinned["torch"] == "2.13.0"
    assert not [name for name in pinned if GPU_ONLY.search(name)]


def test_conda_builds_the_same_environment():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    python = next(it for it in conda if isinstance(it, str) and it.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(Version(python.partition("=")[2]))
    assert "pip" in conda
    assert [it["pip"] for it in conda if isinstance(it, dict)] == [["-c constraints.txt", "-e .[test]"]]
    assert len(conda) == 3, "every other package belongs in pyproject.toml and constraints.txt"


def test_the_citation_names_this_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == structure_first.__version__

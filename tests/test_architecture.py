"""The shape of the package: arrows between its rooms go down, and a file is what its name says."""

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.util import resolve_name
from inspect import isfunction
from pathlib import Path

import pytest
from speed import mostly_slow

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("jaxattr", "weights_conversion")
LEVELS = (
    {"citations", "data", "deprecated", "portable", "types", "weights_conversion"},
    {"facts", "frameworks", "image", "lowering", "models", "scores", "viz"},
    {"programs"},
    {"structures"},
    {"tracing"},
    {"independence"},
    {"contract"},
    {"loops", "rules"},
    {"methods", "metrics"},
    {"jaxattr"},
    {"catalogue"},
    {"runner"},
    {"cli"},
    {"__main__"},
)
"""Rooms, and files beside them, from the ground up: each imports itself and what is below."""

SAME_NAME = {
    "lrp.py": "the rules of LRP in `rules`, the method in `methods`",
}
"""Names of more than one file, each with the reason."""


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(f): f for package in PACKAGES for f in sorted((ROOT / package).rglob("*.py"))}


def imports(name: str) -> set[str]:
    """Return the modules of ours that a module imports, inside its functions too."""
    found, package = set(), name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            submodules = {f"{module}.{alias.name}" for alias in node.names} & set(FILES)
            found |= submodules or {module}
    return found & set(FILES)


def room(name: str) -> str:
    package, *rest = name.split(".")
    if rest[-1:] == ["__main__"]:
        return "__main__"
    return rest[0] if rest and package == "jaxattr" else package


def level(name: str) -> int:
    for height, rooms in enumerate(LEVELS):
        if room(name) in rooms:
            return height
    pytest.fail(f"{FILES[name]} is in no room of LEVELS")


def test_arrows_go_down():
    arrows = [(a, b) for a in FILES for b in imports(a) if room(a) != room(b)]
    assert not [(a, b) for a, b in arrows if level(a) <= level(b)]


@pytest.mark.parametrize(
    ("name", "known"),
    [("data", set()), ("image", {"types"}), ("models", {"data", "types", "weights_conversion"})],
)
def test_who_knows_nothing_of_attribution(name, known):
    found = {room(n) for file in FILES if room(file) == name for n in imports(file)}
    assert found <= {name} | known


def test_no_module_imports_itself_in_a_circle():
    tuple(TopologicalSorter({name: imports(name) for name in FILES}).static_order())


def test_file_names_are_unique():
    counts = Counter(f.name for f in FILES.values() if not f.name.startswith("__"))
    assert {name for name, count in counts.items() if count > 1} <= set(SAME_NAME)


def test_no_function_hides_a_module():
    modules = {name: import_module(name) for name in FILES if room(name) != "__main__"}
    names = [name.rpartition(".") for name in modules if "." in name]
    hidden = {f"{p}.{last}" for p, _, last in names if isfunction(getattr(modules[p], last))}
    assert not hidden


IMPORTS = [
    (
        "jaxattr",
        "PIL click flax grain jaxattr.cli jaxattr.models matplotlib scipy skimage "
        "tensorflow_datasets weights_conversion",
    ),
    ("jaxattr.data", "PIL grain h5py jaxattr.cli jaxattr.models pyarrow tensorflow_datasets"),
    ("jaxattr.cli", "flax jaxattr.models matplotlib skimage weights_conversion"),
    ("jaxattr.models", "matplotlib scipy skimage tensorflow torch torchvision"),
    ("weights_conversion", "jaxattr matplotlib tensorflow torch"),
]


@pytest.mark.parametrize(("package", "absent"), mostly_slow(IMPORTS, IMPORTS[:1]))
def test_an_import_brings_no_more_than_it_needs(package, absent):
    code = f"import sys, {package}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not set(absent.split()) & set(done.stdout.split())

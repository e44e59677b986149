"""Imports run one way, from what a user starts down to what everything needs, and in no circle of modules."""

import ast
from graphlib import TopologicalSorter

from helpers import ROOT

# A module imports from its own place and the tiers before it. Networks are handed to those that use them.
TIERS = (
    ("errors",),
    ("schedule", "opencv"),
    ("settings", "interface", "target"),
    ("options",),
    ("geometry", "arguments"),
    ("files",),
    ("memory",),
    ("threads", "machine", "compiling"),
    ("picture", "motion", "networks"),
    ("render", "video"),
    ("show", "api"),
    ("modes",),
    ("dreamer",),
)
TIER = {place: number for number, places in enumerate(TIERS) for place in places}
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path
         for path in [ROOT / "dreamer.py", *sorted((ROOT / "deepdream").rglob("*.py"))]}  # fmt: skip
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}


def place_of(module):
    """The folder or module of the package that a module belongs to."""
    return module.removeprefix("deepdream.").partition(".")[0]


def imports_of(path):
    """The project's own modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name for name in names if name in MODULES and name != "deepdream")


GRAPH = {module: set(imports_of(path)) for module, path in MODULES.items() if module != "deepdream"}


def may_import(place, other):
    """Whether a module of one place may import from another."""
    if other == "networks":
        return place in ("networks", "api", "modes")
    return place == other or TIER[other] < TIER[place]


def test_modules_import_from_their_own_place_and_the_tiers_before_it():
    pairs = [(module, imported) for module, found in GRAPH.items() for imported in found]
    assert not [pair for pair in pairs if not may_import(*map(place_of, pair))]
    assert may_import("render", "files") and not may_import("files", "render") and not may_import("show", "networks")


def test_no_modules_import_each_other_in_a_circle():
    assert len(list(TopologicalSorter(GRAPH).static_order())) == len(GRAPH) > 30  # raises CycleError

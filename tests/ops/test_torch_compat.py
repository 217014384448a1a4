"""Private names of torch are used in one file."""

from __future__ import annotations

import ast
from pathlib import Path

import torch
from torch import nn
from torch.autograd import forward_ad

import statemix

PACKAGE = Path(statemix.__file__).parent
COMPAT = PACKAGE / "ops" / "_torch_compat.py"
OTHERS = sorted(path for path in PACKAGE.rglob("*.py") if path != COMPAT)


def private(name):
    return name.startswith("_") and not name.startswith("__")


ATTRIBUTES = {
    name
    for thing in (nn.Linear(1, 1), torch.Tensor, forward_ad, torch)
    for name in dir(thing)
    if private(name)
}


def private_names(source):
    """Private names of torch that a source imports from it or takes from a module, a tensor or torch itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            yield from (n for n in [*node.module.split("."), *(a.name for a in node.names)] if private(n))
        elif isinstance(node, ast.Import):
            parts = [alias.name.split(".") for alias in node.names]
            yield from (n for names in parts if names[0] == "torch" for n in names if private(n))
        elif isinstance(node, ast.Attribute) and private(node.attr):
            owner = node.value.id if isinstance(node.value, ast.Name) else None
            if owner == "torch" or (node.attr in ATTRIBUTES and owner not in ("self", "cls", "ctx")):
                yield node.attr


def test_private_names_of_torch_are_used_in_one_file():
    found = {
        path.relative_to(PACKAGE).as_posix(): names
        for path in OTHERS
        if (names := set(private_names(path.read_text("utf-8"))))
    }
    assert found == {}


def test_what_is_looked_for_is_found():
    assert {"_C", "_dynamo", "_is_view", "_check", "_parameters", "_has_any_global_hook"} <= set(
        private_names(COMPAT.read_text("utf-8"))
    )

"""The documentation keeps up with the program."""

import re

import pytest
from helpers import ROOT

import deepdream
from deepdream.arguments import build_parser

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_options_names_every_option_and_no_other():
    table = README.partition("\n## Options\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `-")]
    documented = [name for row in rows for cell in re.findall(r"`([^`]+)`", row) for name in cell.split()]
    options = [name for action in build_parser()._actions for name in action.option_strings]
    assert sorted(documented) == sorted(set(options) - {"-h", "--help"})


def test_the_readme_is_a_page():
    words = [word for word in README.split() if re.search(r"\w", word)]  # and not the bars of its tables
    assert len(words) <= 1500


@pytest.mark.parametrize("name", ["README.md", ".github/CONTRIBUTING.md", ".github/CHANGELOG.md"])
def test_what_the_documents_refer_to_exists(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    assert all(((ROOT / name).parent / link).exists() for link in links)
    sources = set(re.findall(r"\b(?:scripts|tests|deepdream)/[\w/.-]*\w", text))
    assert [path for path in sources if not (ROOT / path).exists()] == []
    headings = {heading.lower() for heading in re.findall(r"^#+ (.+)$", text, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_the_changelog_knows_this_version():
    text = (ROOT / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## Unreleased" in text or f"## {deepdream.__version__}" in text

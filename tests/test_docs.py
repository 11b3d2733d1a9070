"""What documents point at exists: files behind links, sections that code cites."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "experiments/*.md", "experiments/*/*.md")
    for path in ROOT.glob(pattern)
)
CITED = re.compile(r"docs/theory\.md,\s+sections?\s+((?:\d+(?:\s*(?:,|to|and)\s*)?)+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [
        target
        for target in targets
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not missing


def test_sections_of_the_theory_are_numbered_from_one():
    headings = re.findall(r"^## (\d+)\.", theory(), re.M)
    assert headings == [str(k + 1) for k in range(len(headings))]


def test_formulas_are_numbered_within_their_section():
    for part in re.split(r"^## ", theory(), flags=re.M)[1:]:
        section = part.partition(".")[0]
        labels = re.findall(r" \((\d+)\.(\d+)\)$", part, re.M)
        assert labels == [(section, str(k + 1)) for k in range(len(labels))]


def test_code_cites_sections_that_exist():
    known = set(re.findall(r"^## (\d+)\.", theory(), re.M))
    for path in sorted((ROOT / "klip_jax").rglob("*.py")):
        for numbers in CITED.findall(path.read_text()):
            assert set(re.findall(r"\d+", numbers)) <= known, path


def theory():
    return (ROOT / "docs" / "theory.md").read_text()

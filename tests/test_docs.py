"""Documents say what is there: papers, names and links."""

import re
from pathlib import Path

import pytest

from rl3d.lesson import lesson_files, load_lesson
from rl3d.recipe import load_recipe, recipe_files

ROOT = Path(__file__).parent.parent
PAPERS = (ROOT / "docs" / "papers.md").read_text()
ARXIV = re.compile(r"(?:arxiv\.org/abs/|arXiv )(\d{4}\.\d{4,5})")
DOCUMENTS = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BOTH = [("Recipes", recipe_files, load_recipe), ("Lessons", lesson_files, load_lesson)]
CODE = [*(ROOT / "rl3d").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]


def table(section):
    """The rows of a section's table, without its head: cells as text."""
    lines = PAPERS.split(f"\n## {section}\n")[1].split("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]


@pytest.mark.parametrize(("section", "files", "load"), BOTH, ids=lambda x: x if isinstance(x, str) else "")
def test_each_recipe_and_lesson_stands_beside_its_paper(section, files, load):
    rows = {name: row for row in table(section) for name in re.findall(r"`(\w+)`", row[0])}
    values = {path.stem: load(path) for path in files()}
    followers = {name: value.paper for name, value in values.items() if value.paper is not None}
    assert set(rows) == set(followers)
    for name, paper in followers.items():
        assert f"({paper.url})" in rows[name][1]
        first, year = re.match(r"(\w+) .*?(\d{4})", paper.title).groups()
        assert rows[name][1].startswith(first)
        assert year in rows[name][1]
    for name in values.keys() - followers.keys():
        assert f"`{name}`" in PAPERS.split(f"\n## {section}\n")[1].split("\n|")[0]


def test_papers_that_the_code_cites_by_number_are_those_of_the_page():
    cited = {number for path in CODE for number in ARXIV.findall(path.read_text())}
    assert set(ARXIV.findall(PAPERS)) == cited
    assert all(shown == number for shown, number in re.findall(r"\[([\d.]+)\]\(https://arxiv\.org/abs/([\d.]+)\)", PAPERS))


@pytest.mark.parametrize("section", ["Terms", "Rewards", "Algorithms"])
def test_what_the_page_speaks_of_is_there(section):
    text = "\n".join(path.read_text() for path in (ROOT / "rl3d" / section.lower()).glob("*.py"))
    for row in table(section):
        name = re.findall(r"`(\w+)", row[0])[0]
        assert re.search(rf"^(?:class|def) {name}\b|^    {name}: ", text, re.MULTILINE), name


def test_files_that_the_page_speaks_of_are_there():
    for row in table("Elsewhere"):
        for name in re.findall(r"`([\w/]+\.py)`", row[0]):
            assert list((ROOT / "rl3d").rglob(name)), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_files_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target

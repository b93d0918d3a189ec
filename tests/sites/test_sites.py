"""The places that come with the package: complete as data, and unknown to the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import pytest

from hpc_prefect.block_files.document import read_document
from hpc_prefect.blocks.profiles import SCHEDULER_NAMES
from hpc_prefect.cli import main
from hpc_prefect.errors import ConfigurationError
from hpc_prefect.templates import template_files, template_names
from hpc_rehearsal.sites import rehearsed

from .profiles import FILLED, SITES, blanks, filled

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "hpc_prefect"

each_site = pytest.mark.parametrize("name", SITES)


def fields(text: str) -> dict[str, str]:
    """The comment of each field, by its line: what stands right above it."""
    text = re.sub(r'"""(.*?)"""', '""', text, flags=re.DOTALL)
    found, above = {}, ""
    for line in text.splitlines():
        if line.startswith("#"):
            above += line
        elif "=" in line:
            found[line], above = above, ""
        else:
            above = ""
    return found


def test_these_places_are_known_and_each_has_its_filled_form() -> None:
    assert list(SITES) == sorted(FILLED)


@each_site
def test_completed_it_is_one_profile_that_can_be_applied(name: str) -> None:
    assert blanks(SITES[name].text) == set(FILLED[name])

    (item,) = read_document(filled(name), here="/x", venv="/v", environ={}).items

    assert (item.kind, item.value.scheduler) == ("hpc-profile", SITES[name].scheduler)


@each_site
def test_as_it_is_it_is_refused_for_each_blank_with_what_its_comment_says(name: str) -> None:
    text = SITES[name].text

    with pytest.raises(ConfigurationError) as caught:
        read_document(text, here="/x", venv="/v", environ={}, source="my.toml")

    summary, *problems = str(caught.value).splitlines()
    assert summary.startswith("my.toml: ")
    assert len(problems) == sum(text.count(f'"{blank}"') for blank in blanks(text))
    for problem in problems:
        number = re.match(r"  - line (\d+), \[hpc-profile\.hpc-[a-z]+\] \w+", problem)
        assert number is not None
        (blank,) = blanks(text.splitlines()[int(number[1]) - 1])
        assert f"fill in {blank}, or remove the line; the file says: " in problem
        # A long comment is cut here, and read in the file.
        assert re.search(r"\((seen|read)\b| …$", problem)


@each_site
def test_each_field_says_whether_it_was_seen_or_read(name: str) -> None:
    found = fields(SITES[name].text)

    assert len(found) >= 4
    assert [
        line for line, comment in found.items() if not re.search(r"\((seen|read)\b", comment)
    ] == []


@each_site
def test_each_source_that_a_field_names_is_told_at_the_top(name: str) -> None:
    text = SITES[name].text
    named = re.findall(
        r"\b(guides?|manual|source|users)\b", " ".join(re.findall(r"\(read: .*?\)", text))
    )
    told = re.findall(r"^#   (\w+)  ", text, re.MULTILINE)

    assert set(named) == set(told)


@each_site
def test_the_first_line_is_a_description_that_fits(name: str) -> None:
    assert SITES[name].text.startswith("# ")
    assert 20 < len(SITES[name].description) <= 80


def test_no_place_is_named_in_the_code() -> None:
    """But for those that are named like a scheduler, for this machine, and where another package's
    blocks are read, which name their places."""
    here = {site.name for site in SITES.values() if site.scheduler == "local"}
    places = set(SITES) - set(SCHEDULER_NAMES) - here
    assert len(places) >= 2
    named = [
        (str(path.relative_to(SOURCE)), name)
        for path in SOURCE.rglob("*.py")
        for name in places
        if path.parent.name != "qcsc" and name in path.read_text(encoding="utf-8").lower()
    ]
    assert named == []


def test_the_wheel_has_the_files(tmp_path: Path) -> None:
    if os.environ.get("CI") != "true":
        pytest.importorskip("hatchling")
    code = (
        "import sys; from hatchling.builders.wheel import WheelBuilder; "
        "print(*WheelBuilder(sys.argv[1]).build(directory=sys.argv[2], versions=['standard']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, ROOT, tmp_path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr

    with zipfile.ZipFile(done.stdout.split()[-1]) as wheel:
        there = set(wheel.namelist())

    assert {f"hpc_prefect/sites/{name}.toml" for name in SITES} <= there
    for template in template_names():
        files = set(template_files(template, with_mpi=True)) - {".gitignore"}
        assert {f"hpc_prefect/templates/{template}/{name}" for name in files} <= there
    stands_in = [name for name in SITES if rehearsed(name)]
    assert {f"hpc_rehearsal/sites/{name}.toml" for name in stands_in} <= there


# --- the command


def test_the_list_has_name_scheduler_and_description(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[s.name, s.scheduler] for s in SITES.values()]
    assert all(s.description in line for s, line in zip(SITES.values(), lines, strict=True))


@each_site
def test_a_shown_place_is_its_file_byte_for_byte(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sites", "show", name]) == 0
    assert capsys.readouterr() == (SITES[name].text, "")


@pytest.mark.usefixtures("prefect_server")
@each_site
def test_shown_completed_and_applied_it_is_on_the_server(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = tmp_path / "mine.toml"
    # Other tests of this server's have profiles of such names.
    block = f"hpc-{uuid.uuid4().hex[:8]}"
    file.write_text(re.sub(r"hpc-profile\.hpc-\w+", f"hpc-profile.{block}", filled(name)))

    assert main(["blocks", "apply", str(file)]) == 0

    assert capsys.readouterr() == (f"created    hpc-profile  {block}\n", "")


def test_an_unknown_place_is_told_with_the_near_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", "show", "slrum"]) == 1
    assert capsys.readouterr() == (
        "",
        "hpc-prefect: there is no site 'slrum'; did you mean 'slurm'?\n",
    )


def test_places_are_listed_and_shown_without_importing_prefect() -> None:
    code = (
        "import sys; from hpc_prefect.cli import main; "
        "status = main(['sites']) or main(['sites', 'show', 'slurm']); "
        "sys.exit(status or 'prefect' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120)

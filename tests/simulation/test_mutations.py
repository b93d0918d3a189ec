"""The simulation can fail: the product with one promise taken out is found, each time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simulation.mutations import (
    ALLOCATIONS,
    ARRAYS,
    BRANCHES,
    HELD_ARRAYS,
    MUTATIONS,
    QUANTUM,
    Mutation,
    lives_until_found,
    run_on,
)
from simulation.story import Story, stories

ON_CI = os.environ.get("CI") == "true"
#: Found within so many lives, nearly all of them within a few hundred. A seed has 1 life or 2.
LIVES = 20_000
_STORIES = {Story.read(path).mutation for path in stories()}
#: In `make test` those that are found soon; those that have a story are found by that.
QUICK = (
    [m for m in MUTATIONS if m.name not in _STORIES]
    if ON_CI
    else (*MUTATIONS[:3], QUANTUM[1], ARRAYS[2], ALLOCATIONS[1], BRANCHES[0], HELD_ARRAYS[0])
)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mutation", QUICK, ids=lambda mutation: mutation.name)
def test_a_promise_that_is_taken_out_is_found(mutation: Mutation, tmp_path: Path) -> None:
    lives = lives_until_found(mutation, tmp_path, first=mutation.first, seeds=LIVES)
    assert lives is not None
    assert lives <= LIVES


@pytest.mark.parametrize("path", stories(), ids=lambda path: path.stem)
def test_a_story_is_still_one_without_what_mended_it(path: Path, tmp_path: Path) -> None:
    story = Story.read(path)
    mutation = next(each for each in MUTATIONS if each.name == story.mutation)
    done = run_on(mutation, tmp_path, "--story", path.stem)
    assert done.returncode == 1, done.stderr
    assert "WRONG" in done.stdout

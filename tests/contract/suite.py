"""The contract that every scheduler keeps. A test module names a place and gets all of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from prefect import flow

from hpc_prefect import JobFailed, JobResult, Reason, run_job_from_blocks
from hpc_prefect.errors import JobTimedOut

from . import docs
from .endings import ENDINGS, GIVE_UP, Ended, Ending, possible
from .places import Place

ON_CI = os.environ.get("CI") == "true"

#: Arguments, each of which a shell would make something else of.
HOSTILE = [
    *("", " ", "a b", "it's", '"double"', "$(touch hit)", "`touch hit`", "$HOME", "a\\b", "*"),
    *(
        "new\nline",
        "tab\there",
        ";touch hit",
        "&",
        "|",
        "#no",
        "-n",
        "--",
        "é☃",
        "%j %x",
        "!!",
        "~",
    ),
]


class Contract:
    """What holds at every place; `place` is a fixture of the module.

    Attributes:
        kind: the class of the place.
    """

    kind: type[Place]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "ending" in metafunc.fixturenames:
            there = [each for each in ENDINGS if self.kind.has(each.needs)]
            metafunc.parametrize("ending", there, ids=[each.name for each in there])

    @pytest.mark.timeout(900)
    def test_an_end_is_told_as_what_it_is(self, place: Place, ending: Ending, ended: Ended) -> None:
        _skip_what_it_lacks(place, ending)
        verdict = ended.results[ending.name].verdict
        assert verdict.reason is ending.reason, verdict
        assert verdict.signal == ending.signal or not ending.signal
        assert verdict.exit_code == ending.code or ending.code is None

    @pytest.mark.timeout(900)
    def test_only_a_success_is_a_completed_run(
        self, place: Place, ending: Ending, ended: Ended
    ) -> None:
        _skip_what_it_lacks(place, ending)
        success = ending.reason is Reason.SUCCEEDED
        assert (ended.states[ending.name] == "COMPLETED") is success
        error = ended.errors.get(ending.name)
        if success:
            assert error is None
        elif ending.act.endswith(GIVE_UP):
            assert isinstance(error, asyncio.CancelledError)
        else:
            assert isinstance(error, JobFailed), error
            assert isinstance(error, JobTimedOut) is (ending.reason is Reason.TIMED_OUT)
            assert str(ending.reason) in str(error)
            assert error.result.verdict.remedy in str(error)

    @pytest.mark.timeout(900)
    def test_a_program_starts_as_often_as_its_scheduler_says(
        self, place: Place, ended: Ended
    ) -> None:
        expected = {e.name: e.runs for e in possible(place) if e.runs is not None}
        found = {name: ended.runs.count(name) for name in expected}
        wrong = {name: n for name, n in found.items() if n != expected[name]}
        assert not wrong, wrong

    @pytest.mark.timeout(900)
    def test_nothing_is_left_in_the_queue(self, place: Place, ended: Ended) -> None:
        ours = {result.job_id for result in ended.results.values()}
        end = asyncio.run(_gone(place, ours))
        assert end == set()

    @pytest.mark.timeout(900)
    def test_the_error_of_a_failed_program_has_the_end_of_its_stderr(self, ended: Ended) -> None:
        assert "why" in str(ended.errors["code-3"]).splitlines()[-2]

    @pytest.mark.timeout(900)
    def test_what_a_user_sees_is_in_the_docs(self, place: Place, ended: Ended) -> None:
        """Written anew by HPC_PREFECT_WRITE_DOCS=1."""
        docs.check(place, ended)

    @pytest.mark.timeout(900)
    def test_arguments_and_environment_arrive_byte_for_byte(
        self, entered: Place, ended: Ended, tmp_path: Path
    ) -> None:
        work_dir = tmp_path / entered.work_dir
        program = 'printf \'%s\\0\' "$@" > arguments; printf %s "$HOSTILE" > variable; pwd > folder'
        asyncio.run(
            run_program(
                entered,
                work_dir,
                "hostile",
                program,
                *HOSTILE,
                execution_profile_overrides={"environment": {"HOSTILE": "\n".join(HOSTILE)}},
            )
        )
        assert (work_dir / "arguments").read_text().split("\0")[:-1] == HOSTILE
        assert (work_dir / "variable").read_text() == "\n".join(HOSTILE)
        assert not (work_dir / "hit").exists()

    @pytest.mark.timeout(900)
    def test_many_jobs_at_once_each_run_once(
        self, entered: Place, ended: Ended, tmp_path: Path
    ) -> None:
        count = 200 if ON_CI else 40
        labels = [f"job-{n}" for n in range(count)]

        @flow(name="many")
        async def many() -> list[JobResult]:
            program = 'echo "$1" >> runs; echo "$1"'
            return list(
                await asyncio.gather(
                    *(run_program(entered, tmp_path, label, program, label) for label in labels)
                )
            )

        results = asyncio.run(many())
        assert [Path(result.stdout_path).read_text() for result in results] == [
            f"{label}\n" for label in labels
        ]
        assert sorted((tmp_path / "runs").read_text().split()) == sorted(labels)
        assert len({result.job_id for result in results}) == count


async def run_program(
    place: Place, work_dir: Path, name: str, program: str, *arguments: str, **more: object
) -> JobResult:
    """Run a shell text with arguments as a job of that name."""
    return await run_job_from_blocks(
        command_block_name="cmd-contract",
        execution_profile_block_name="exec-contract",
        hpc_profile_block_name=place.block(),
        work_dir=work_dir,
        script_filename=name,
        user_args=[program, "sh", *arguments],
        **more,  # type: ignore[arg-type]
    )


def _skip_what_it_lacks(place: Place, ending: Ending) -> None:
    if ending.needs in place.lacks:
        pytest.skip(place.lacks[ending.needs])


async def _gone(place: Place, ours: set[str]) -> set[str]:
    """Wait until none of these jobs is active any more; those that stay."""
    left = ours
    for _ in range(900):
        left = ours & place.active()
        if not left:
            break
        await asyncio.sleep(0.2)
    return left

"""What would be submitted, without submitting it."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from hpc_prefect.batch.prepare import file_problems
from hpc_prefect.blocks import Call, GivenBlocks, load_blocks, resolve
from hpc_prefect.errors import InvalidJob
from hpc_prefect.job import folder as names
from hpc_prefect.job.dialogue import Command
from hpc_prefect.job.identity import digest, job_key, job_tag, spread
from hpc_prefect.job.script import NO_WORD, render
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.transports.local import LocalTransport

#: Stands in for the campaign's name.
CAMPAIGN = "preview"


@dataclass(frozen=True)
class Preview:
    """A job as it would be submitted.

    Attributes:
        script: the whole script, and then the one that it runs.
        command: the command that submits it, quoted for a shell.
        folder: the job's folder; in a run `preview` and the key are those of its campaign.
    """

    script: str
    command: str
    folder: str


async def preview(call: Call, given: GivenBlocks) -> Preview:
    """The exact script and submit command of a job. Nothing is written and nothing submitted.

    Raises:
        InvalidJob: with all problems of the input, as `run_job_from_blocks` would raise it.
    """
    problems: list[str] = []
    spec = None
    try:
        blocks = await load_blocks(given, subject=call.subject)
        spec, _ = resolve(*blocks, call, machine_cores=os.cpu_count() or 1)
    except InvalidJob as invalid:
        problems = list(invalid.problems)
    problems += file_problems(call, spec)
    if problems or spec is None:
        raise InvalidJob(call.subject, problems)
    return render_preview(spec)


def render_preview(spec: JobSpec) -> Preview:
    """The script and the submit command of a valid job. Pure."""
    scheduler = scheduler_for(spec.site.scheduler)
    key = job_key(CAMPAIGN, (), digest(spec.identity()), 0)
    folder = JobFolder(
        LocalTransport(), f"{spec.work_dir}/{names.ROOT}/{CAMPAIGN}/{spread(key)}/{key}-1"
    )
    ticket = folder.ticket(job_tag(key, 1))
    script = render(spec, folder.path, scheduler.preamble(spec, ticket), NO_WORD)
    text = f"{script.outer}\n# ===== {folder.file(names.PROGRAM)}\n{script.inner}"
    dialogue = scheduler.submit(spec, ticket)
    command = next(dialogue)
    dialogue.close()
    return Preview(text, _shell_line(command), folder.path)


def _shell_line(command: Command) -> str:
    line = shlex.join(command.argv)
    return f"cd {shlex.quote(command.cwd)} && {line}" if command.cwd else line

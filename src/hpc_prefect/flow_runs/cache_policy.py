"""A cache policy for users' own tasks: a task that finished in a campaign is not run again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger

from hpc_prefect.flow_runs.campaigns import campaign_id
from hpc_prefect.flow_runs.parameters import unknown_values, values_digest
from hpc_prefect.flow_runs.scopes import current_run, number_task_run
from hpc_prefect.job.identity import digest

#: Every key begins with this, so that `resume` can tell which results it will find.
PREFIX = "hpc-prefect-once-"


@dataclass
class Once(CachePolicy):
    """A finished task of a campaign gives its stored result when the campaign is continued.

        @task(cache_policy=ONCE)
        def prepare(work_dir: str) -> Hamiltonian: ...

    A result belongs to the campaign, the scope (an iteration, a walker, the tasks around), the
    task's name, its inputs, and the number among identical calls. Prefect's own policies differ in
    two ways: they run a task again when a comment in it has changed, and of two identical calls
    they run only one.

    The task's source is not looked at: after a change of what it computes, give it another name,
    or begin a new campaign.

    Attributes:
        work_dir: the name of the task's input, or else of the flow's parameter, that is the
            `work_dir` of the campaign. Without such a one, results are found by retries and
            `resume` of the same flow run, but not when a script is started again, and outside of a
            flow never.
    """

    work_dir: str = "work_dir"

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The key under which Prefect stores this call's result; None to store none."""
        try:
            what = values_digest(inputs)
        except TypeError:
            which = ", ".join(unknown_values(inputs))
            self._say_not_kept(task_ctx, f"its input {which} has no stable identity")
            return None
        folder = inputs.get(self.work_dir) or flow_parameters.get(self.work_dir)
        where = campaign_id(folder) if folder else current_run()
        if not where:
            self._say_not_kept(
                task_ctx,
                f"it is in no flow run and has no input {self.work_dir!r}, the folder of its"
                " campaign, and so belongs to no experiment",
            )
            return None
        # Prefect calls this for every run of the task, so each run can be numbered here.
        path, number = number_task_run("once")
        return PREFIX + digest([where, path, what, number])[:40]

    def _say_not_kept(self, task_ctx: TaskRunContext, why: str) -> None:
        get_run_logger(task_ctx).warning(
            "task %s will run again when its run is continued, since its result cannot be found:"
            " %s",
            task_ctx.task.name,
            why,
        )


ONCE = Once()

"""A cache policy for users' own tasks: what finished in a campaign is not done again."""

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

#: With this every key begins, so that `resume` can tell which results it will find.
PREFIX = "hpc-prefect-once-"


@dataclass
class Once(CachePolicy):
    """A finished task of a campaign gives its stored result when the campaign is continued.

        @task(cache_policy=ONCE)
        def prepare(work_dir: str) -> Hamiltonian: ...

    A result is found again by the campaign, the scope (an iteration, a walker, the tasks around),
    the task's name, its inputs, and by which of several identical calls it is. Prefect's own
    policies differ in two things that matter here: a changed comment in the task makes them run
    it again, and of two identical calls they run one.

    The task's source is not looked at: after a change of what it computes, give it another name,
    or begin the campaign anew.

    Attributes:
        work_dir: which input of the task, or else which parameter of the flow, is the `work_dir`
            of the campaign. Where neither has it, results are found by retries and `resume` of
            the same flow run, not by a script that is started again; outside of a flow none is.
    """

    work_dir: str = "work_dir"

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The name under which Prefect stores this call's result; None when it has none."""
        try:
            what = values_digest(inputs)
        except TypeError:
            which = ", ".join(unknown_values(inputs))
            self._say_not_kept(task_ctx, f"its input {which} cannot be told from another one")
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
        # Prefect asks this for every run of the task, so that each can be told by itself.
        path, number = number_task_run("once")
        return PREFIX + digest([where, path, what, number])[:40]

    def _say_not_kept(self, task_ctx: TaskRunContext, why: str) -> None:
        get_run_logger(task_ctx).warning(
            "task %s will run again when its run is continued: %s, so that its result cannot be"
            " found",
            task_ctx.task.name,
            why,
        )


ONCE = Once()

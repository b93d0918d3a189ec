"""Checking an HPC profile against the place that it stands for, before an experiment does.

`profile` judges what can be told without asking anybody, `hpc_prefect.schedulers.probes` asks the
scheduler, `here` looks at this machine's files, and `trial` runs one small real job, if that is
wanted. What cannot be told is never called fine.
"""

from hpc_prefect.doctor.examine import Terms, examine
from hpc_prefect.doctor.table import failed, print_findings

__all__ = ["Terms", "examine", "failed", "print_findings"]

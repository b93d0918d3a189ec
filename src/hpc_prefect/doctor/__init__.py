"""Checks an HPC profile against its site before an experiment uses it.

`profile` checks what needs no question, `hpc_prefect.schedulers.probes` asks the scheduler, `here`
looks at this machine's files, and `trial` runs one small real job, if that is wanted. What cannot
be found out is never reported as ok.
"""

from hpc_prefect.doctor.examine import Terms, examine
from hpc_prefect.doctor.table import failed, print_findings

__all__ = ["Terms", "examine", "failed", "print_findings"]

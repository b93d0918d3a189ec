"""python -m hpc_rehearsal.ibm_quantum [OPTION ...] -- COMMAND [ARGUMENT ...]"""

import sys

from hpc_rehearsal.ibm_quantum.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Stand-ins for a site's MPI launchers and its `module` command, on a laptop.

A launcher accepts the options of the site's launcher, which are data. It runs the laptop's own MPI
with the number of ranks and ignores the rest: all nodes are this machine. `module` only knows names
and changes LOADEDMODULES: there is nothing to load.

A job gets both by BASH_ENV, which bash reads after a login shell's own files; these may set PATH
anew. `install.install` writes, into the folder of a rehearsal:

    site.json    the launchers' options, and the MPI of the laptop
    jobs-bin/    the launchers: first on a job's PATH
    jobs-bashrc  read by each bash of a job
    rank.sh      run by each rank whose output goes to files of its own
"""

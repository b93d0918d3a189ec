"""What a site has beside its scheduler, on a laptop: its MPI launchers and its `module`.

A launcher knows the options that the site's has, which are data, and runs the laptop's own MPI with
the number of ranks and nothing else of them: all nodes are this machine. `module` knows names and
changes LOADEDMODULES: what it would load is not there.

Both come to a job by BASH_ENV, which bash reads after a login shell's own files, which may set PATH
anew. `install.install` writes, into the folder of a rehearsal:

    site.json    the launchers' options, and the MPI of the laptop
    jobs-bin/    the launchers: first on a job's PATH
    jobs-bashrc  read by each bash of a job
    rank.sh      run by each rank whose output goes to files of its own
"""

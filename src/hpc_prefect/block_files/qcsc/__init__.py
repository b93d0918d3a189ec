"""Converts block documents of qcsc-prefect to our blocks, and reports on each field.

    documents   their documents, read from files or from a Prefect server, without their package
    fates       what became of each field, collected while the fields are read
    programs    commands and execution profiles
    places      HPC profiles
    runtime     `QiskitRuntimeConfig`
    checking    checks of the result
    conversion  from documents to tables of a TOML file and one or more `Fate`s for each field
    launching   their launcher and options as one launcher line, and how many ranks they start
    toml_text   the tables as the text of a file that `hpc-prefect blocks apply` takes

This is for qcsc-prefect 0.3.0: the fields of its blocks, and the job scripts that it makes of them.
If its script ignores a field (as `mpiprocs` on Fugaku), what the job really had is taken, not the
field.
"""

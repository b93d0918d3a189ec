"""From the block documents of qcsc-prefect to blocks of ours, and what became of each field.

    documents   their documents, read from files or from a Prefect server, without their package
    fates       what became of each field, told while the fields are read
    programs    commands and execution profiles
    places      HPC profiles
    runtime     `QiskitRuntimeConfig`
    checking    whether what was made can be used
    conversion  documents in, tables of a TOML file and one `Fate` or more for each field out
    launching   their launcher and options as one launcher line, and how many ranks they start
    toml_text   the tables as the text of a file that `hpc-prefect blocks apply` takes

What is known of qcsc-prefect is its release 0.3.0: the fields of its blocks, and the job scripts
that it makes of them. Where a script of theirs took no notice of a field (as on Fugaku of
`mpiprocs`), the job that came out of it counts, not the field.
"""

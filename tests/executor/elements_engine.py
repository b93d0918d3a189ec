"""One command that submits an array: each element a job of the laptop's engine.

    python elements_engine.py ENGINE submit FOLDER TAG SIZE SCRIPT ENGINE-ARGUMENT …

It prints the array's id. As a real `sbatch` it goes on when whoever called it dies, keeps a copy of
the script, and makes all of the elements. Standard library only.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

_ELEMENT = """#!/bin/bash
export ELEMENT_ID='{array}[{index}]' ELEMENT={index}
exec /bin/bash -p {script}
"""


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        try:
            (folder / f"A{number}").mkdir()
        except FileExistsError:
            continue
        return folder / f"A{number}"
    raise AssertionError


def main(engine: str, folder: str, tag: str, size: str, script: str, *arguments: str) -> None:
    array = _new(Path(folder))
    shutil.copy(script, array / "script.sh")
    ids = []
    for index in range(int(size)):
        element = array / f"{index}.sh"
        element.write_text(
            _ELEMENT.format(array=array.name, index=index, script=array / "script.sh")
        )
        said = subprocess.run(
            [sys.executable, "-I", "-S", engine, "submit", *arguments, str(element)],
            capture_output=True,
            text=True,
        )
        if said.returncode:
            sys.stderr.write(said.stderr)
            raise SystemExit(said.returncode)
        ids.append(said.stdout.strip())
    known = array / "known.new"
    known.write_text(json.dumps({"tag": tag, "ids": ids}))
    os.replace(known, array / "known")
    print(array.name)


if __name__ == "__main__":
    main(sys.argv[1], *sys.argv[3:])

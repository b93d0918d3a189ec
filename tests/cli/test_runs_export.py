"""`hpc-prefect runs export`, as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_prefect.cli import main

from ..records import given
from ..records.crates import entities


@pytest.mark.parametrize("name", ["crate", "crate.zip"])
def test_a_crate_is_written_with_its_licence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = given.run(tmp_path / "work", jobs=[given.job("a", given.BEGAN)])
    assert main(["runs", "scan", str(tmp_path / "work")]) == 0
    crate = tmp_path / name
    assert main(["runs", "export", str(folder), "--crate", str(crate), "--license", "MIT"]) == 0
    assert str(crate) in capsys.readouterr().err
    assert entities(crate)["./"]["license"]["@id"] == "https://spdx.org/licenses/MIT"
    assert main(["runs", "export", str(folder), "--crate", str(crate)]) == 1
    assert "exists and is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "one of the arguments --crate --format is required"),
        (["--crate", "x", "--to", "y"], "--to does not go with --crate"),
        (["--format", "mlflow", "--license", "MIT"], "--license does not go with --format mlflow"),
        (["--crate", "x", "--whole-up-to", "much"], "'much' is no size"),
    ],
)
def test_what_does_not_go_together_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["runs", "export", "latest", *words])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_without_mlflow_it_is_said_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        import mlflow  # noqa: F401
    except ImportError:
        assert main(["runs", "export", "latest", "--format", "mlflow", "--to", "x"]) == 1
        assert "pip install 'hpc-prefect[mlflow]'" in capsys.readouterr().err
    else:
        pytest.skip("mlflow is installed here")

"""What is shown to people in a terminal.

texts.py      texts of others, and times
line.py       the line at its end that says what goes on
watched.py    streams that make way for that line
"""

from hpc_prefect.terminal.texts import moment, printable

__all__ = ["moment", "printable"]

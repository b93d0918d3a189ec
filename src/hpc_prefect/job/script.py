"""Rendering a job's two scripts: the only shell text of this package, and all of its quoting.

The outer one is given to the scheduler. It provides the evidence: it holds the start guard, writes
both records and notes signals. Nothing that a user writes runs in its shell, which is started
without profile, BASH_ENV and functions. It uses bash's builtins, and a few commands by `command
-p`, which ignores PATH. The scheduler runs its own copy of it, so it trusts no path: it enters the
job folder once, checks that nobody else can have put it there, and then uses relative names.

The inner one, `program.sh`, is run by the outer: see `program_script`. Data is quoted by `quote`
and arrives byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_prefect.job import folder as names
from hpc_prefect.job import members
from hpc_prefect.job.program_script import FD, HERE, members_text, program_text, quote
from hpc_prefect.job.spec import JobSpec

#: The exit code of a second job of one attempt, which does not start the program. The `duplicates`
#: file tells it from a program's own 117.
GUARD_CODE = 117
#: The exit code of a job that cannot use its folder on its node. The program was not started.
FOLDER_CODE = 118
#: The exit code of a job whose program ended with 0, and that could not write its exit record.
RECORD_CODE = 119
#: What a preview shows in place of the secret word, which is drawn when a job is submitted.
NO_WORD = "drawn-when-the-job-is-handed-over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preamble:
    """What a scheduler's dialect adds to the script.

    Attributes:
        directives: lines such as `#PBS -q debug`, right after the first line.
        id_expression: shell text that gives the job's id inside the job, such as `$PBS_JOBID`.
        restarts: shell text that gives how often the scheduler has started this job anew, by its
            own count; empty when it has none. A further start that it has not counted does not
            start the program.
        index: in an array, shell text that gives the element's number, the first being 0.
        unset: variables of the scheduler that the program must not have, whoever set them.
    """

    directives: tuple[str, ...] = ()
    id_expression: str
    restarts: str = ""
    index: str = ""
    unset: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Files:
    """Shell words for the files of one job, or of the member `$_hp_at` of an array.

    `clear_up`: the command that is run at its end.
    """

    guard: str = names.GUARD
    duplicates: str = names.DUPLICATES
    phase: str = names.PHASE
    start: str = names.START
    exit: str = names.EXIT
    stdout: str = names.STDOUT
    stderr: str = names.STDERR
    clear_up: str = f"[ ! -e {names.SECRETS} ] || command -p rm -f -- {names.SECRETS}"


_FILES = _Files()
_MEMBERS_FILES = _Files(
    guard=f'"$_hp_at"{names.GUARD}',
    duplicates=f'"$_hp_at"{names.DUPLICATES}',
    phase=f'"$_hp_at"{names.PHASE}',
    start=f'"$_hp_at"{members.RECORD}',
    exit=f'"$_hp_at"{members.RECORD}',
    stdout=f'"$_hp_at"{names.STDOUT}',
    stderr=f'"$_hp_at"{names.STDERR}',
    clear_up=":",  # later members need the secrets; whoever judges the last one removes them
)


@dataclass(frozen=True, slots=True)
class _Array:
    """How many members an array has, and how many an element runs."""

    count: int
    per_element: int


@dataclass(frozen=True, slots=True)
class JobScript:
    """The two texts: `outer` is given to the scheduler, `inner` lies in the job folder."""

    outer: str
    inner: str


@dataclass(frozen=True, slots=True)
class ArrayScript(JobScript):
    """The texts of an array; `shards` are those of the members, `members.SHARD` members in each."""

    shards: tuple[str, ...]


def render(spec: JobSpec, folder: str, preamble: Preamble, word: str) -> JobScript:
    """The scripts of a job whose folder is `folder` (absolute).

    Args:
        word: secret letters and digits. Only the outer script knows them; an exit record without
            them does not count.
    """
    return JobScript(_outer(spec, folder, preamble, word), program_text(spec, preamble.unset))


def render_array(
    spec: JobSpec,
    folder: str,
    preamble: Preamble,
    word: str,
    asked: Sequence[members.MemberSpec],
    per_element: int = 1,
) -> ArrayScript:
    """The scripts of an array's submission, or of a single job that runs several members.

    Args:
        spec: what the members share.
        asked: its members, element by element.
        per_element: how many members an element runs, one after another.
    """
    outer = _outer(spec, folder, preamble, word, _Array(len(asked), per_element))
    texts = tuple(
        members_text(spec, asked[first : first + members.SHARD], first)
        for first in range(0, len(asked), members.SHARD)
    )
    return ArrayScript(outer, program_text(spec, preamble.unset, member=True), texts)


# --- the outer script


def _outer(
    spec: JobSpec, folder: str, preamble: Preamble, word: str, array: _Array | None = None
) -> str:
    files = _FILES if array is None else _MEMBERS_FILES
    again = _again(spec, preamble, word, files)
    run = _run(spec, word, again=bool(again), member=array is not None)
    parts = [
        "#!/bin/bash -p",
        *preamble.directives,
        "# hpc-prefect job script, format 2. Written by hpc-prefect; a run's evidence, not to be"
        f" edited.\n# What the job does is in {names.PROGRAM} beside it.",
        _clean_shell(folder),
        f"_hp_dir={quote(folder)}",
        f"_hp_id={preamble.id_expression}",
        _guard_functions(files) + _record_functions(files),
        again,
        f'cd -P -- "$_hp_dir" || _hp_refuse {FOLDER_CODE} "cannot be entered on this node"',
        f"{_is_own(folder)} ||",
        f'  _hp_refuse {FOLDER_CODE} "or a folder above it can be changed by another user"',
        f"exec {FD}< .",
        run if array is None else _each_member(run, preamble, array),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _run(spec: JobSpec, word: str, *, again: bool, member: bool) -> str:
    """From the start guard to the exit record."""
    login = " -l" if spec.site.login_shell else ""
    which = ' "$1"' if member else ""
    return "\n".join(
        (
            "_hp_guard || _hp_again" if again else "_hp_guard || :",
            "_hp_begin",
            # Its status is passed on unchanged. In POSIX mode bash would exit at once if the
            # environment has a function named `exec`.
            f"( unset POSIXLY_CORRECT; cd -- {quote(spec.work_dir)} &&",
            f"  exec /bin/bash{login} {HERE}/{names.PROGRAM}{which} < /dev/null )",
            f"_hp_end $? {word}",
        )
    )


def _each_member(run: str, preamble: Preamble, array: _Array) -> str:
    """What an element does: its members one after another, each in a shell of its own.

    A signal reaches this shell too: it lets the running member end, and begins no other. A member
    without a record was not begun. A member that the start guard turns away may run in an earlier
    start of the element, and only the element's exit code tells of that: so no other member's code
    takes its place.
    """
    return f"""\
_hp_member() {{
_hp_at=m/$(($1 / {members.SHARD}))/$1.
{run}
}}
_hp_worst=0 _hp_stop=
trap _hp_stop=yes TERM INT HUP XCPU USR1 USR2
_hp_element={preamble.index or 0}
_hp_first=$((_hp_element * {array.per_element}))
_hp_after=$((_hp_first + {array.per_element}))
for ((_hp_i = _hp_first; _hp_i < _hp_after && _hp_i < {array.count}; _hp_i++)); do
  [ -z "$_hp_stop" ] || break
  ( _hp_member "$_hp_i" )
  _hp_code=$?
  [ "$_hp_worst" != {GUARD_CODE} ] || continue
  [ "$_hp_code" != {GUARD_CODE} ] && [ "$_hp_code" -le "$_hp_worst" ] || _hp_worst=$_hp_code
done
exit "$_hp_worst\""""


def _is_own(folder: str) -> str:
    """Whether only the user can write in the entered folder and in each above it, up to the root.

    Whoever may write in the work_dir can put another root in its place at any moment; below a root
    of the user's own nobody else can. `[` cannot test a mode, so `find` does.
    """
    root = names.root_at(folder)
    above = 0 if root is None else len(folder.split("/")) - 1 - root
    chain = ["/".join([".."] * up) or "." for up in range(above + 1)]
    owner = " && ".join(f"[ -O {path} ]" for path in chain)
    return f"""{owner} &&
  [ -z "$(command -p find {" ".join(chain)} -maxdepth 0 -perm /022 2>&1)" ]"""


def _clean_shell(folder: str) -> str:
    """Begin again in a clean bash, if the shell that reads these lines is another one.

    Some schedulers have the user's login shell run its profile and then read the script as input.
    So bash reads it again from the job folder, if that is still the user's. The first line is for
    csh, in which `$shell` is always set; the argument `again` prevents a loop. In a bash that is
    not clean, POSIXLY_CORRECT makes `exec` the builtin and not a function of that name.
    """
    check = _is_own(folder).replace("\n ", "")
    anew = (
        f'cd -P -- "$1" && {check} && exec /bin/bash -p ./{names.SCRIPT} again; exit {FOLDER_CODE}'
    )
    anew = f"exec /bin/bash -p -c '{anew}' hpc-prefect {quote(folder)}"
    return f"""\
test -n "$shell" -a -z "$1" && {anew}
case ${{BASH_VERSION:+$-}} in *p*) ;; *)
  POSIXLY_CORRECT=y
  {anew}
  exit {FOLDER_CODE} ;;
esac"""


#: A symbolic link is made in one step, exclusively, and its target holds the id: an atomic claim
#: without a lock. A job that finds another id there is a second job of the attempt. When NFS
#: repeats a request whose answer was lost, `ln` fails although the link is ours: so only the
#: link's target counts. A requeued job has the same id and passes.
def _guard_functions(files: _Files) -> str:
    return f"""\
unset FUNCNEST
_hp_refuse() {{
  echo "hpc-prefect: the job folder $_hp_dir $2; the program was not started" >&2
  exit "$1"
}}
_hp_plain() {{
  [ -f "$1" ] && [ ! -L "$1" ] && [ -O "$1" ]
}}
_hp_plain_or_none() {{
  _hp_plain "$1" || {{ [ ! -e "$1" ] && [ ! -L "$1" ]; }}
}}
_hp_guard() {{
  local said holder
  [ -n "$_hp_id" ] || _hp_refuse {FOLDER_CODE} "is of a job to which the scheduler gave no id"
  _hp_plain {names.PROGRAM} || _hp_refuse {FOLDER_CODE} "has no file {names.PROGRAM} that is yours"
  # In a folder of that name `ln` would make its link.
  [ -L {files.guard} ] || [ ! -d {files.guard} ] ||
    _hp_refuse {FOLDER_CODE} "has a folder in place of its link {names.GUARD}"
  said=$(command -p ln -s -n -- "$_hp_id" {files.guard} 2>&1) && return
  [ -L {files.guard} ] || _hp_refuse {FOLDER_CODE} "cannot be written on this node ($said)"
  holder=$(command -p readlink -- {files.guard}) ||
    _hp_refuse {FOLDER_CODE} "has a link {names.GUARD} that cannot be read on this node"
  [ "$holder" != "$_hp_id" ] || return
  ! _hp_plain_or_none {files.duplicates} ||
    printf '%s\\n' "$_hp_id" >> {files.duplicates}
  _hp_refuse {GUARD_CODE} "is another job's, or closed (its link {names.GUARD} leads to $holder)"
}}
"""


#: The program runs in the foreground: bash runs the traps after its end, and loses no exit code.
#: With the program in the background, `wait` is interrupted by a signal, and bash 5.2 answers the
#: next `wait` with -1 when the program ended in that moment; SIGINT would be ignored as well.
#: Signals are noted, not passed on: schedulers signal every process of a job themselves, and a
#: second SIGTERM makes many launchers give up at once.
#:
#: A program may have put anything in the place of a record: only a plain file is opened, because a
#: FIFO would block. A line is preceded by a newline if the file is not empty: it may end in half a
#: line.
def _record_functions(files: _Files) -> str:
    return f"""\
_hp_time() {{
  _hp_now=${{EPOCHREALTIME:-$(command -p date +%s)}}
  _hp_now=${{_hp_now/,/.}}  # bash writes the locale's decimal point
}}
_hp_oom() {{
  local line path= word value
  _hp_ooms=0
  while IFS= read -r line; do
    case $line in
      0::*) path=/sys/fs/cgroup${{line#0::}}/memory.events ;;
      *:memory:*) path=/sys/fs/cgroup/memory${{line#*:memory:}}/memory.oom_control; break ;;
    esac
  done < /proc/self/cgroup
  if [ -r "$path" ]; then
    while read -r word value; do [ "$word" != oom_kill ] || _hp_ooms=$value; done < "$path"
  fi
}} 2>/dev/null
_hp_restart=
_hp_begin() {{
  local signal begin= record restart=
  # Not $HOSTNAME alone: some schedulers bring that of the login node along.
  local host=$HOSTNAME boot=
  read -r host 2>/dev/null < /proc/sys/kernel/hostname
  read -r boot 2>/dev/null < /proc/sys/kernel/random/boot_id
  _hp_oom
  _hp_oom_before=$_hp_ooms _hp_signals=
  for signal in TERM INT HUP XCPU USR1 USR2; do
    trap "_hp_signals=\\"\\$_hp_signals\\${{_hp_signals:+ }}$signal\\"" "$signal"
  done
  _hp_time
  _hp_token=$_hp_now.$$
  # A start that nobody knows of could be repeated, and its end belong to none.
  # That of an earlier start may be cut off: its node may have died, or its disk been full.
  [ ! -s {files.start} ] || begin='\\n'
  [ -z "$_hp_restart" ] || restart=',"restart":'$_hp_restart
  record='{{"token":"%s","id":"%s","host":"%s","boot":"%s","time":%s}}\\n'
  _hp_plain_or_none {files.stdout} && _hp_plain_or_none {files.stderr} &&
    _hp_plain_or_none {files.phase} && printf 'setup\\n' > {files.phase} &&
    _hp_plain {files.start} && printf "$begin$record" \\
    "$_hp_token" "$_hp_id" "$host" "$boot" "$_hp_now$restart" >> {files.start} ||
    _hp_refuse {FOLDER_CODE} "cannot take the record of this start"
}}
_hp_end() {{
  local code=$1 said= phase=untold told= usage= begin= record nl=$'\\n' set_up program
  # Whole lines of these words in this order, or nothing: the program may have written as well.
  ! _hp_plain {files.phase} || IFS= read -r -N 200000 said < {files.phase}
  set_up=setup$nl program=setup${{nl}}program$nl
  case $said in
    "$set_up") phase=setup ;;
    "${{set_up}}missing "*"$nl") phase=missing told=${{said#"$set_up"missing }} ;;
    # What its shell ended with is no success of the program's.
    "$program") [ "$code" = 0 ] || phase=program ;;
    # A success is told twice, by its shell's status too; a failure is one however that ended.
    "${{program}}code 0$nl") [ "$code" != 0 ] || phase=program ;;
    "${{program}}code "[1-9]"$nl" | "${{program}}code "[1-9][0-9]"$nl" | \\
      "${{program}}code "[12][0-9][0-9]"$nl")
      phase=program code=${{said#"$program"code }} code=${{code%"$nl"}} ;;
  esac
  # CPU ticks (1/100 s) of the shell's ended children: fields 16 and 17 of its stat, see proc(5).
  read -r usage < "/proc/$BASHPID/stat" 2>/dev/null
  usage=(${{usage##*) }})
  _hp_oom
  _hp_time
  [ ! -s {files.exit} ] || begin='\\n'
  record='{{"token":"%s","word":"%s","phase":"%s","signals":"%s","detail":"%s",'
  record+='"code":%d,"oom":%d,"cpu":%d,"time":%s}}\\n'
  # Not sooner: who ends a job signals one process after another, and this one maybe last.
  trap '' TERM INT HUP XCPU USR1 USR2
  _hp_plain {files.exit} && printf "$begin$record" "$_hp_token" "$2" "$phase" "$_hp_signals" \\
    "${{told//[!A-Za-z0-9.:_\\/+-]/}}" "$code" "$((_hp_ooms - _hp_oom_before))" \\
    "$((${{usage[13]:-0}} + ${{usage[14]:-0}}))" "$_hp_now" >> {files.exit} ||
    exit $((code ? code : {RECORD_CODE}))
  {files.clear_up}
  # Whoever looks at the scheduler alone must not take it for a success either.
  [ "$phase" = program ] || exit $((code ? code : 1))
  exit "$code"
}}"""


def _again(spec: JobSpec, preamble: Preamble, word: str, files: _Files) -> str:
    """The check of a job that has started before: whether it may run the program again.

    A scheduler that was killed and lost its state may start a job a second time under the same id
    without knowing it, or requeue a job whose end it has forgotten (Slurm's controller does both).
    A start that the scheduler does not count as a further restart is refused. The restart at which
    one began is in its record; the start guard alone stands for the first one, since its record may
    be about to be written, or have been lost with its node. A program that has succeeded is not run
    again, because its caller may know of the success. Only a job that may be requeued runs again
    then, at a restart that the scheduler counts: its caller does not know yet.
    """
    counted = '[ "$_hp_restart" -gt "$last" ]' if preamble.restarts else ""
    if spec.may_requeue and not counted:
        return ""
    success = f"""'"word":"{word}","phase":"program","signals":"",'*'"code":0,"oom":0,'"""
    lines = [
        f"_hp_restart={preamble.restarts}" if counted else "",
        "_hp_again() {",
        "  local line ended= at last=0",
        _last_restart(files) if counted else "",
        f"  ! _hp_plain {files.exit} || while IFS= read -r line; do",
        f"    case $line in *{success}*) ended=yes ;; esac",
        f"  done < {files.exit}",
        f"  ! {counted} || return" if spec.may_requeue else "",
        '  if [ -n "$ended" ]; then',
        '    echo "hpc-prefect: the program succeeded in an earlier start of this job" >&2',
        "    exit 0",
        "  fi",
        f"  {counted} || _hp_refuse {GUARD_CODE} \\\n"
        '    "was used by an earlier start of this job, which the scheduler does not know of"'
        if counted
        else "",
        "}",
    ]
    return "\n".join(line for line in lines if line)


def _last_restart(files: _Files) -> str:
    """Sets `last` to the newest restart of this job that has a record."""
    return f"""\
  ! _hp_plain {files.start} || while IFS= read -r line; do
    case $line in *"\\"id\\":\\"$_hp_id\\""*'"restart":'*) ;; *) continue ;; esac
    at=${{line##*'"restart":'}}
    at=${{at%%[!0-9]*}}
    [ "${{at:-0}}" -le "$last" ] || last=$at
  done < {files.start}"""

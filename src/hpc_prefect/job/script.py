"""Rendering the job's script: the only shell text of this package, and all of its quoting.

What is data (arguments, paths, environment values) is quoted by `quote` and arrives byte for byte;
what is the site owner's shell text (set-up lines, module names, the launcher line, tear-down) is
written as it stands. The order in which environments win is that of the lines below: later wins.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpc_prefect.job import folder as names
from hpc_prefect.job.spec import JobSpec, launch_line

#: The exit code of a second job of one attempt that did not start the program. Told apart from a
#: program's own 117 by the `duplicates` file.
GUARD_CODE = 117
#: The exit code of a job that cannot write in its folder, where it runs.
FOLDER_CODE = 118
#: The shell's own code for a command that is not there.
MISSING_CODE = 127


#: A shell pattern for a clean exit record, as `_hp_end` writes it.
_CLEAN = """'"phase":"program","signals":""'*'"code":0,"oom":0,'"""


def quote(text: str) -> str:
    """One shell word that is exactly `text`, in any POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preamble:
    """What a scheduler's dialect adds to the script.

    Attributes:
        directives: lines such as `#PBS -q debug`, right after the first line.
        id_expression: shell text that gives the job's id inside the job, such as `$PBS_JOBID`.
        restarts: shell text that gives how often the scheduler has started this job anew, by its
            own count; empty when it does not tell. A further start that it has not counted does
            not start the program.
        unset: variables of the scheduler that the program must not have, whoever set them.
    """

    directives: tuple[str, ...] = ()
    id_expression: str
    restarts: str = ""
    unset: tuple[str, ...] = ()


def render(spec: JobSpec, folder: str, preamble: Preamble) -> str:
    """The whole script of a job whose folder is `folder` (absolute)."""
    shebang = "#!/bin/bash -l" if spec.site.login_shell else "#!/bin/bash"
    parts = [
        shebang,
        *preamble.directives,
        _guard(folder, preamble),
        f"cd -- {quote(spec.work_dir)} || exit",
        _setup(spec),
        _environment(spec, folder, preamble.unset),
        _program(spec),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _guard(folder: str, preamble: Preamble) -> str:
    """The start guard and the records.

    A symbolic link is made in one step, exclusively, and holds the id as its target: an atomic
    claim that needs no lock. Whoever finds another id there is a second job of the attempt. When
    NFS repeats a request whose answer was lost, `ln` fails although the link is ours: so only what
    the link says counts. A requeued job has the same id and passes.

    A scheduler that was killed and has lost what it knew may start a job a second time under the
    same id without knowing it, or requeue one whose end it has forgotten (Slurm's controller does
    both). The first is no requeue; and what has succeeded, as `ExitRecord.clean` says, is not run
    again, because its caller has been told so.
    """
    return f"""\
# hpc-prefect job script, format 1. Written by hpc-prefect; a run's evidence, not to be edited.
_hp_dir={quote(folder)}
_hp_id={preamble.id_expression}
ln -s -n -- "$_hp_id" "$_hp_dir/{names.GUARD}" 2>/dev/null
if [ -n "$_hp_id" ] && [ ! -L "$_hp_dir/{names.GUARD}" ]; then
  echo "hpc-prefect: $_hp_dir cannot be written here; the program was not started" >&2
  exit {FOLDER_CODE}
fi
if [ -z "$_hp_id" ] || [ "$(readlink -- "$_hp_dir/{names.GUARD}")" != "$_hp_id" ]; then
  printf '%s\\n' "$_hp_id" >> "$_hp_dir/{names.DUPLICATES}"
  echo "hpc-prefect: another job of this attempt holds $_hp_dir; the program was not started" >&2
  exit {GUARD_CODE}
fi
{_after_success()}{_uncounted_start(preamble.restarts)}_hp_now() {{
  local now=${{EPOCHREALTIME:-$(date +%s)}}
  printf '%s' "${{now/,/.}}"  # bash writes the locale's decimal point
}}
_hp_oom() {{
  local line path= count=0 word value
  while IFS= read -r line; do
    case $line in
      0::*) path=/sys/fs/cgroup${{line#0::}}/memory.events ;;
      *:memory:*) path=/sys/fs/cgroup/memory${{line#*:memory:}}/memory.oom_control; break ;;
    esac
  done < /proc/self/cgroup
  if [ -r "$path" ]; then
    while read -r word value; do [ "$word" = oom_kill ] && count=$value; done < "$path"
  fi
  printf '%s' "$count"
}} 2>/dev/null
_hp_token=$(_hp_now).$$
_hp_phase=setup _hp_signals= _hp_detail= _hp_code= _hp_oom_before=$(_hp_oom)
# Not $HOSTNAME alone: some schedulers bring that of the login node along.
_hp_host=$HOSTNAME _hp_boot=
read -r _hp_host 2>/dev/null < /proc/sys/kernel/hostname
read -r _hp_boot 2>/dev/null < /proc/sys/kernel/random/boot_id
if ! printf '{{"token":"%s","id":"%s","host":"%s","boot":"%s","time":%s}}\\n' \\
  "$_hp_token" "$_hp_id" "$_hp_host" "$_hp_boot" "$(_hp_now)" >> "$_hp_dir/{names.START}"; then
  # A start that nobody knows of could be repeated, and its end belong to none.
  echo "hpc-prefect: $_hp_dir has no room for a record; the program was not started" >&2
  exit {FOLDER_CODE}
fi
_hp_note() {{
  _hp_signals="$_hp_signals${{_hp_signals:+ }}$1"
}}
_hp_end() {{
  local code=$? usage IFS=$' \\t\\n'
  code=${{_hp_code:-$code}}  # the program's own, however the tear-down ends
  set +eu  # a set-up line may have set them
  trap '' EXIT TERM INT HUP XCPU USR1 USR2
  # CPU ticks (1/100 s) of the shell's ended children: fields 16 and 17 of its stat, see proc(5).
  read -r usage < "/proc/$$/stat" 2>/dev/null
  read -r -a usage <<< "${{usage##*) }}"
  local ticks=$((${{usage[13]:-0}} + ${{usage[14]:-0}})) oom=$(($(_hp_oom) - _hp_oom_before))
  local who='"token":"%s","phase":"%s","signals":"%s","detail":"%s"'
  printf "{{$who,\\"code\\":%d,\\"oom\\":%d,\\"cpu\\":%d,\\"time\\":%s}}\\n" \\
    "$_hp_token" "$_hp_phase" "$_hp_signals" "$_hp_detail" \\
    "$code" "$oom" "$ticks" "$(_hp_now)" >> "$_hp_dir/{names.EXIT}"
  exit "$code"
}}
trap _hp_end EXIT
for _hp_signal in TERM INT HUP XCPU USR1 USR2; do
  trap "_hp_note $_hp_signal" "$_hp_signal"
done"""


def _after_success() -> str:
    return f"""\
_hp_done=
while IFS= read -r _hp_line; do
  case $_hp_line in *{_CLEAN}*) _hp_done=yes ;; esac
done 2>/dev/null < "$_hp_dir/{names.EXIT}"
if [ -n "$_hp_done" ]; then
  echo "hpc-prefect: the program has run to its end; it was not started again" >&2
  exit 0
fi
"""


def _uncounted_start(restarts: str) -> str:
    if not restarts:
        return ""
    return f"""\
_hp_starts=0
while IFS= read -r _hp_line; do
  case $_hp_line in *"\\"id\\":\\"$_hp_id\\""*) _hp_starts=$((_hp_starts + 1)) ;; esac
done 2>/dev/null < "$_hp_dir/{names.START}"
if [ "$_hp_starts" -gt {restarts} ]; then
  echo "hpc-prefect: the scheduler has started this job before and does not know it;" \\
    "the program was not started again" >&2
  exit {GUARD_CODE}
fi
"""


def _setup(spec: JobSpec) -> str:
    """The site's modules and set-up, then the program's; a module that fails ends the job here."""
    lines = ["", "# --- set-up, as the HPC profile gives it"]
    for modules, setup in (
        (spec.site.modules, spec.site.setup),
        (spec.executable.modules, spec.executable.setup),
    ):
        for module in modules:
            lines.append(f"module load {quote(module)} || exit")
        lines.extend(setup)
    return "\n".join(lines) if len(lines) > 2 else ""


def _environment(spec: JobSpec, folder: str, unset: tuple[str, ...]) -> str:
    exports = {"OMP_NUM_THREADS": str(spec.resources.threads_per_rank)}
    exports |= spec.site.environment | spec.executable.environment | spec.environment
    lines = [
        "",
        "# --- environment: profile, then executable, then execution profile, then secrets",
    ]
    lines += [f"unset {' '.join(unset)}"] if unset else []
    lines += [f"export {name}={quote(value)}" for name, value in exports.items()]
    for variable, folders in spec.executable.path_prefixes.items():
        joined = quote(":".join(folders))
        lines.append(f'export {variable}={joined}"${{{variable}:+:${variable}}}"')
    if spec.secret_names:
        path = quote(f"{folder}/{names.SECRETS}")
        lines.append(f". {path} || exit")
        # -p: the job's own PATH may not lead to it.
        lines.append(f"command -p rm -f -- {path}")
    return "\n".join(lines)


def _program(spec: JobSpec) -> str:
    """The program in the foreground: bash runs the traps after its end, and loses no exit code.

    With the program in the background, `wait` is interrupted by a signal, and bash 5.2 answers the
    next `wait` with -1 when the program ended in that moment; SIGINT would be ignored as well.
    Signals are noted, not passed on: schedulers signal every process of a job themselves, and a
    second SIGTERM makes many launchers give up at once. A single program is exec'd, so that a name
    such as `test` is the program on PATH and not the shell's own.
    """
    program = spec.executable.path
    words = " ".join(quote(word) for word in (program, *spec.arguments))
    line = f"( exec -- {words} )"
    if spec.resources.launch == "mpi":
        line = launch_line(spec.site.launcher, spec.resources, words)
    teardown = "".join(f"{text}\n" for text in spec.site.teardown)
    return f"""
# --- the program
cd -- {quote(spec.work_dir)} || exit
if ! type -P -- {quote(program)} >/dev/null; then
  _hp_phase=missing _hp_detail=${{LOADEDMODULES:-}}
  _hp_detail=${{_hp_detail//[!A-Za-z0-9.:_\\/+-]/}}
  exit {MISSING_CODE}
fi
_hp_phase=program
{line} >> "$_hp_dir/{names.STDOUT}" 2>> "$_hp_dir/{names.STDERR}" < /dev/null \\
  && _hp_code=0 || _hp_code=$?
{teardown}exit "$_hp_code\""""


def secrets_text(secrets: dict[str, str]) -> str:
    """The content of the secrets file that the script reads and removes."""
    return "".join(f"export {name}={quote(value)}\n" for name, value in secrets.items())

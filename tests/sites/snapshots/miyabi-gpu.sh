#!/bin/bash -p
#PBS -q regular-g
#PBS -W group_list=gz00
#PBS -l select=2:mpiprocs=1:ompthreads=1
#PBS -l walltime=00:10:00
#PBS -r n
# hpc-prefect job script, format 2. Written by hpc-prefect; a run's evidence, not to be edited.
# What the job does is in program.sh beside it.
test -n "$shell" -a -z "$1" && exec /bin/bash -p -c 'cd -P -- "$1" && [ -O . ] && [ -O .. ] && [ -O ../.. ] && [ -O ../../.. ] && [ -z "$(command -p find . .. ../.. ../../.. -maxdepth 0 -perm /022 2>&1)" ] && exec /bin/bash -p ./script.sh again; exit 118' hpc-prefect '/data/me/run/.hpc-prefect/preview/5f/KEY-1'
case ${BASH_VERSION:+$-} in *p*) ;; *)
  POSIXLY_CORRECT=y
  exec /bin/bash -p -c 'cd -P -- "$1" && [ -O . ] && [ -O .. ] && [ -O ../.. ] && [ -O ../../.. ] && [ -z "$(command -p find . .. ../.. ../../.. -maxdepth 0 -perm /022 2>&1)" ] && exec /bin/bash -p ./script.sh again; exit 118' hpc-prefect '/data/me/run/.hpc-prefect/preview/5f/KEY-1'
  exit 118 ;;
esac
_hp_dir='/data/me/run/.hpc-prefect/preview/5f/KEY-1'
_hp_id="$PBS_JOBID"
unset FUNCNEST
_hp_refuse() {
  echo "hpc-prefect: the job folder $_hp_dir $2; the program was not started" >&2
  exit "$1"
}
_hp_plain() {
  [ -f "$1" ] && [ ! -L "$1" ] && [ -O "$1" ]
}
_hp_plain_or_none() {
  _hp_plain "$1" || { [ ! -e "$1" ] && [ ! -L "$1" ]; }
}
_hp_guard() {
  local said holder
  [ -n "$_hp_id" ] || _hp_refuse 118 "is of a job to which the scheduler gave no id"
  _hp_plain program.sh || _hp_refuse 118 "has no file program.sh that is yours"
  # In a folder of that name `ln` would make its link.
  [ -L guard ] || [ ! -d guard ] ||
    _hp_refuse 118 "has a folder in place of its link guard"
  said=$(command -p ln -s -n -- "$_hp_id" guard 2>&1) && return
  [ -L guard ] || _hp_refuse 118 "cannot be written on this node ($said)"
  holder=$(command -p readlink -- guard) ||
    _hp_refuse 118 "has a link guard that cannot be read on this node"
  [ "$holder" != "$_hp_id" ] || return
  ! _hp_plain_or_none duplicates ||
    printf '%s\n' "$_hp_id" >> duplicates
  _hp_refuse 117 "is another job's, or closed (its link guard leads to $holder)"
}
_hp_time() {
  _hp_now=${EPOCHREALTIME:-$(command -p date +%s)}
  _hp_now=${_hp_now/,/.}  # bash writes the locale's decimal point
}
_hp_oom() {
  local line path= word value
  _hp_ooms=0
  while IFS= read -r line; do
    case $line in
      0::*) path=/sys/fs/cgroup${line#0::}/memory.events ;;
      *:memory:*) path=/sys/fs/cgroup/memory${line#*:memory:}/memory.oom_control; break ;;
    esac
  done < /proc/self/cgroup
  if [ -r "$path" ]; then
    while read -r word value; do [ "$word" != oom_kill ] || _hp_ooms=$value; done < "$path"
  fi
} 2>/dev/null
_hp_restart=
_hp_begin() {
  local signal begin= record restart=
  # Not $HOSTNAME alone: some schedulers bring that of the login node along.
  local host=$HOSTNAME boot=
  read -r host 2>/dev/null < /proc/sys/kernel/hostname
  read -r boot 2>/dev/null < /proc/sys/kernel/random/boot_id
  _hp_oom
  _hp_oom_before=$_hp_ooms _hp_signals=
  for signal in TERM INT HUP XCPU USR1 USR2; do
    trap "_hp_signals=\"\$_hp_signals\${_hp_signals:+ }$signal\"" "$signal"
  done
  _hp_time
  _hp_token=$_hp_now.$$
  # A start that nobody knows of could be repeated, and its end belong to none.
  # That of an earlier start may be cut off: its node may have died, or its disk been full.
  [ ! -s start ] || begin='\n'
  [ -z "$_hp_restart" ] || restart=',"restart":'$_hp_restart
  record='{"token":"%s","id":"%s","host":"%s","boot":"%s","time":%s}\n'
  _hp_plain_or_none stdout && _hp_plain_or_none stderr &&
    _hp_plain_or_none phase && printf 'setup\n' > phase &&
    _hp_plain start && printf "$begin$record" \
    "$_hp_token" "$_hp_id" "$host" "$boot" "$_hp_now$restart" >> start ||
    _hp_refuse 118 "cannot take the record of this start"
}
_hp_end() {
  local code=$1 said= phase=untold told= usage= begin= record nl=$'\n' set_up program
  # Whole lines of these words in this order, or nothing: the program may have written as well.
  ! _hp_plain phase || IFS= read -r -N 200000 said < phase
  set_up=setup$nl program=setup${nl}program$nl
  case $said in
    "$set_up") phase=setup ;;
    "${set_up}missing "*"$nl") phase=missing told=${said#"$set_up"missing } ;;
    # What its shell ended with is no success of the program's.
    "$program") [ "$code" = 0 ] || phase=program ;;
    # A success is told twice, by its shell's status too; a failure is one however that ended.
    "${program}code 0$nl") [ "$code" != 0 ] || phase=program ;;
    "${program}code "[1-9]"$nl" | "${program}code "[1-9][0-9]"$nl" | \
      "${program}code "[12][0-9][0-9]"$nl")
      phase=program code=${said#"$program"code } code=${code%"$nl"} ;;
  esac
  # CPU ticks (1/100 s) of the shell's ended children: fields 16 and 17 of its stat, see proc(5).
  read -r usage < "/proc/$BASHPID/stat" 2>/dev/null
  usage=(${usage##*) })
  _hp_oom
  _hp_time
  [ ! -s exit ] || begin='\n'
  record='{"token":"%s","word":"%s","phase":"%s","signals":"%s","detail":"%s",'
  record+='"code":%d,"oom":%d,"cpu":%d,"time":%s}\n'
  # Not sooner: who ends a job signals one process after another, and this one maybe last.
  trap '' TERM INT HUP XCPU USR1 USR2
  _hp_plain exit && printf "$begin$record" "$_hp_token" "$2" "$phase" "$_hp_signals" \
    "${told//[!A-Za-z0-9.:_\/+-]/}" "$code" "$((_hp_ooms - _hp_oom_before))" \
    "$((${usage[13]:-0} + ${usage[14]:-0}))" "$_hp_now" >> exit ||
    exit $((code ? code : 119))
  [ ! -e secrets ] || command -p rm -f -- secrets
  # Whoever looks at the scheduler alone must not take it for a success either.
  [ "$phase" = program ] || exit $((code ? code : 1))
  exit "$code"
}
_hp_again() {
  local line ended= at last=0
  ! _hp_plain exit || while IFS= read -r line; do
    case $line in *'"word":"drawn-when-the-job-is-handed-over","phase":"program","signals":"",'*'"code":0,"oom":0,'*) ended=yes ;; esac
  done < exit
  if [ -n "$ended" ]; then
    echo "hpc-prefect: the program succeeded in an earlier start of this job" >&2
    exit 0
  fi
}
cd -P -- "$_hp_dir" || _hp_refuse 118 "cannot be entered on this node"
[ -O . ] && [ -O .. ] && [ -O ../.. ] && [ -O ../../.. ] &&
  [ -z "$(command -p find . .. ../.. ../../.. -maxdepth 0 -perm /022 2>&1)" ] ||
  _hp_refuse 118 "or a folder above it can be changed by another user"
exec 240< .
_hp_guard || _hp_again
_hp_begin
( unset POSIXLY_CORRECT; cd -- '/data/me/run' &&
  exec /bin/bash -l /proc/self/fd/240/program.sh < /dev/null )
_hp_end $? drawn-when-the-job-is-handed-over

# ===== /data/me/run/.hpc-prefect/preview/5f/KEY-1/program.sh
# What the job does; script.sh runs it with bash and notes how it ends.
POSIXLY_CORRECT=${POSIXLY_CORRECT-hp}
\unset -f builtin || \exit
\trap : TERM INT HUP XCPU USR1 USR2
\builtin cd -- '/data/me/run' || \exit
case $POSIXLY_CORRECT in hp) \unset POSIXLY_CORRECT ;; esac

# --- set-up, as the HPC profile gives it
module load 'nvidia' || \builtin exit
module load 'nv-hpcx' || \builtin exit
unset OMPI_MCA_mca_base_env_list

# --- environment: profile, then executable, then execution profile, then secrets
POSIXLY_CORRECT=${POSIXLY_CORRECT-hp}
\unset -f builtin || \exit
\trap - DEBUG ERR RETURN && \builtin shopt -u extdebug || \exit
\export OMP_NUM_THREADS='1'
\builtin cd -- '/data/me/run' || \exit
if ! \builtin type -P -- '/work/gz00/me/gpu/diag' >/dev/null; then
  \builtin test -f /proc/self/fd/240/phase && \builtin printf 'missing %s\n' "${LOADEDMODULES:-}" >> /proc/self/fd/240/phase
  \exit 127
fi
case ${LOADEDMODULES-} in '') ;; *)
  { \builtin test ! -L /proc/self/fd/240/modules && { \builtin test -f /proc/self/fd/240/modules ||
    \builtin test ! -e /proc/self/fd/240/modules; } &&
    \builtin printf '%s' "$LOADEDMODULES" >| /proc/self/fd/240/modules; } 2>/dev/null ||
    \builtin : ;;
esac
\builtin test -f /proc/self/fd/240/phase && \builtin printf 'program\n' >> /proc/self/fd/240/phase || \exit
case $POSIXLY_CORRECT in hp) \unset POSIXLY_CORRECT ;; esac

# --- the program
{ \builtin set -o pipefail || \builtin exit
mpirun -n 2 --map-by ppr:1:node --bind-to none -x PATH -x LD_LIBRARY_PATH -x OMP_NUM_THREADS '/work/gz00/me/gpu/diag' '--tolerance' '0.0001'
} >> /proc/self/fd/240/stdout 2>> /proc/self/fd/240/stderr < /dev/null 240<&- \
  && \builtin set -- 0 || \builtin set -- "$?" || \builtin exit
! \builtin test -f /proc/self/fd/240/phase || \builtin printf 'code %d\n' "$1" >> /proc/self/fd/240/phase

\builtin set +e
\builtin exit "$1"

# Submitted by: qsub -N TAG -o /data/me/run/.hpc-prefect/preview/5f/KEY-1/scheduler.out -e /data/me/run/.hpc-prefect/preview/5f/KEY-1/scheduler.err /data/me/run/.hpc-prefect/preview/5f/KEY-1/script.sh

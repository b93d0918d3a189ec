#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=0-00:10:00
#SBATCH --gpus-per-node=1
#SBATCH --partition=gpu
#SBATCH --account=chem
# hpc-prefect job script, format 1. Written by hpc-prefect; a run's evidence, not to be edited.
_hp_dir='/data/me/run/.hpc-prefect/preview/KEY-1'
_hp_id="$SLURM_JOB_ID"
ln -s -n -- "$_hp_id" "$_hp_dir/guard" 2>/dev/null
if [ -n "$_hp_id" ] && [ ! -L "$_hp_dir/guard" ]; then
  echo "hpc-prefect: $_hp_dir cannot be written here; the program was not started" >&2
  exit 118
fi
if [ -z "$_hp_id" ] || [ "$(readlink -- "$_hp_dir/guard")" != "$_hp_id" ]; then
  printf '%s\n' "$_hp_id" >> "$_hp_dir/duplicates"
  echo "hpc-prefect: another job of this attempt holds $_hp_dir; the program was not started" >&2
  exit 117
fi
_hp_done=
while IFS= read -r _hp_line; do
  case $_hp_line in *'"phase":"program","signals":""'*'"code":0,"oom":0,'*) _hp_done=yes ;; esac
done 2>/dev/null < "$_hp_dir/exit"
if [ -n "$_hp_done" ]; then
  echo "hpc-prefect: the program has run to its end; it was not started again" >&2
  exit 0
fi
_hp_starts=0
while IFS= read -r _hp_line; do
  case $_hp_line in *"\"id\":\"$_hp_id\""*) _hp_starts=$((_hp_starts + 1)) ;; esac
done 2>/dev/null < "$_hp_dir/start"
if [ "$_hp_starts" -gt "${SLURM_RESTART_COUNT:-0}" ]; then
  echo "hpc-prefect: the scheduler has started this job before and does not know it;" \
    "the program was not started again" >&2
  exit 117
fi
_hp_now() {
  local now=${EPOCHREALTIME:-$(date +%s)}
  printf '%s' "${now/,/.}"  # bash writes the locale's decimal point
}
_hp_oom() {
  local line path= count=0 word value
  while IFS= read -r line; do
    case $line in
      0::*) path=/sys/fs/cgroup${line#0::}/memory.events ;;
      *:memory:*) path=/sys/fs/cgroup/memory${line#*:memory:}/memory.oom_control; break ;;
    esac
  done < /proc/self/cgroup
  if [ -r "$path" ]; then
    while read -r word value; do [ "$word" = oom_kill ] && count=$value; done < "$path"
  fi
  printf '%s' "$count"
} 2>/dev/null
_hp_token=$(_hp_now).$$
_hp_phase=setup _hp_signals= _hp_detail= _hp_code= _hp_oom_before=$(_hp_oom)
# Not $HOSTNAME alone: some schedulers bring that of the login node along.
_hp_host=$HOSTNAME _hp_boot=
read -r _hp_host 2>/dev/null < /proc/sys/kernel/hostname
read -r _hp_boot 2>/dev/null < /proc/sys/kernel/random/boot_id
if ! printf '{"token":"%s","id":"%s","host":"%s","boot":"%s","time":%s}\n' \
  "$_hp_token" "$_hp_id" "$_hp_host" "$_hp_boot" "$(_hp_now)" >> "$_hp_dir/start"; then
  # A start that nobody knows of could be repeated, and its end belong to none.
  echo "hpc-prefect: $_hp_dir has no room for a record; the program was not started" >&2
  exit 118
fi
_hp_note() {
  _hp_signals="$_hp_signals${_hp_signals:+ }$1"
}
_hp_end() {
  local code=$? usage IFS=$' \t\n'
  code=${_hp_code:-$code}  # the program's own, however the tear-down ends
  set +eu  # a set-up line may have set them
  trap '' EXIT TERM INT HUP XCPU USR1 USR2
  # CPU ticks (1/100 s) of the shell's ended children: fields 16 and 17 of its stat, see proc(5).
  read -r usage < "/proc/$$/stat" 2>/dev/null
  read -r -a usage <<< "${usage##*) }"
  local ticks=$((${usage[13]:-0} + ${usage[14]:-0})) oom=$(($(_hp_oom) - _hp_oom_before))
  local who='"token":"%s","phase":"%s","signals":"%s","detail":"%s"'
  printf "{$who,\"code\":%d,\"oom\":%d,\"cpu\":%d,\"time\":%s}\n" \
    "$_hp_token" "$_hp_phase" "$_hp_signals" "$_hp_detail" \
    "$code" "$oom" "$ticks" "$(_hp_now)" >> "$_hp_dir/exit"
  exit "$code"
}
trap _hp_end EXIT
for _hp_signal in TERM INT HUP XCPU USR1 USR2; do
  trap "_hp_note $_hp_signal" "$_hp_signal"
done
cd -- '/data/me/run' || exit

# --- environment: profile, then executable, then execution profile, then secrets
unset SLURM_JWT SLURM_EXPORT_ENV SRUN_EXPORT_ENV
export OMP_NUM_THREADS='1'

# --- the program
cd -- '/data/me/run' || exit
if ! type -P -- '/shared/me/diag' >/dev/null; then
  _hp_phase=missing _hp_detail=${LOADEDMODULES:-}
  _hp_detail=${_hp_detail//[!A-Za-z0-9.:_\/+-]/}
  exit 127
fi
_hp_phase=program
srun --mpi=pmix -n 2 -c 1 '/shared/me/diag' '--tolerance' '0.0001' >> "$_hp_dir/stdout" 2>> "$_hp_dir/stderr" < /dev/null \
  && _hp_code=0 || _hp_code=$?
exit "$_hp_code"

# Submitted by: sbatch --parsable --job-name=TAG --chdir=/data/me/run --output=/data/me/run/.hpc-prefect/preview/KEY-1/scheduler.out --error=/data/me/run/.hpc-prefect/preview/KEY-1/scheduler.err --open-mode=truncate /data/me/run/.hpc-prefect/preview/KEY-1/script.sh

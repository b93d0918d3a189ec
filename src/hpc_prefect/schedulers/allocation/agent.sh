#!/bin/bash
# The agent of a held allocation: the program of a batch job that holds nodes and runs the flow's jobs
# on them. It needs bash 4.2 and the core utilities, and uses `taskset` if it is there.
#
# Its folder, the spool, is on the shared file system (the flow's side is `spool.py` beside this file):
#
#   jobs/TAG      a submitted job: its fields, a NUL after each. Never changed or removed
#   turns/TAG     a symbolic link that can be made only once: to `started` by the agent before it
#                 starts the job, or to `cancelled` by whoever cancels the job first
#   inbox/        notes to the agent: TAG, cancel.TAG, CLOSE (take no more jobs), NOW (and end those
#                 that run). The agent removes what it has read
#   bell          written after each note: the agent opens only this file to see if there is one
#   log           what became of the jobs, a line each, ended by " ." to recognise a torn line
#   agent         a link to the id of the batch job whose agent this is: a spool has one agent
#   heartbeat     rewritten in place: the seconds that are left for jobs (0 once the agent takes no
#                 more), and node-time used and held, in hundredths of a second times nodes
#   renewed       touched by the process that holds the allocation
#
# A job is a child in a process group of its own. Its script (start guard, records, signals) is the
# same as without an allocation. The script's records say how the program ended; the log says only
# what the agent did.

spool=$1 kind=$2 node_count=$3 node_cores=$4 node_memory=$5 node_gpus=$6
walltime=$7 margin=$8 idle_timeout=$9 orphan_timeout=${10} grace=${11}

set -m
shopt -s nullglob
# A job gets the user's umask and locale; the agent's own commands run with these.
users_umask=$(umask) users_locale=${LC_ALL-} has_locale=${LC_ALL+yes}
umask 077
export LC_ALL=C
cd -- "$spool" || exit 1

# --- time: since this node's boot, which nobody can set, in hundredths of a second

clock() {
  local up rest
  read -r up rest < /proc/uptime
  now=$((10#${up/./}))
}

note() { # what happened to which job, and how
  local line
  printf -v line '%s %s %(%s)T %s .\n' "$1" "$2" -1 "$3"
  unwritten+=$line
  write_notes
}

write_notes() { # what did not fit on a full disk is written again later, some of it twice
  [ -n "$unwritten" ] || return
  if printf '%s' "$torn$unwritten" 2>/dev/null >> log; then
    unwritten= torn=
  else
    torn=$'\n' # ends a line of which only a part was written
  fi
}

# --- who and where

case $kind in
  slurm) id=${SLURM_JOB_ID-} here=${SLURMD_NODENAME-} ;;
  pbs) id=${PBS_JOBID-} here= ;;
  pjm) id=${PJM_JOBID-} here= ;;
  *) id=${HPC_LOCAL_JOBID-} here= ;;
esac
read -r machine < /proc/sys/kernel/hostname
here=${here:-$machine}

ln -s -n -- "$id" agent 2>/dev/null || {
  echo "hpc-prefect: this allocation had an agent already, job $(readlink agent); not started again" >&2
  exit 1
}

hosts=()
add_hosts() { # each once, in their order
  local host
  while read -r host _; do
    case " ${hosts[*]-} " in *" $host "*) ;; *) hosts+=("$host") ;; esac
  done
}
case $kind in
  slurm) add_hosts < <(scontrol show hostnames "${SLURM_JOB_NODELIST-}") ;;
  pbs) add_hosts < "${PBS_NODEFILE-/dev/null}" ;;
  pjm) [ -z "${PJM_O_NODEINF-}" ] || add_hosts < "$PJM_O_NODEINF" ;;
esac
[ ${#hosts[@]} -gt 0 ] || hosts=("$here")
# Where several nodes are one machine, as on a laptop, its name stands for each of them.
different=${#hosts[@]}
for ((i = different; i < node_count; i++)); do hosts+=("${hosts[i % different]}"); done
hosts=("${hosts[@]:0:node_count}")
mine=0
for ((i = node_count - 1; i >= 0; i--)); do
  case $here in "${hosts[i]}" | "${hosts[i]%%.*}") mine=$i ;; esac
done

free_cores=() free_memory=() free_gpus=() jobs_on=()
for ((i = 0; i < node_count; i++)); do
  free_cores[i]=$node_cores free_memory[i]=$node_memory free_gpus[i]=$node_gpus jobs_on[i]=0
done

# The processors of this machine that jobs share out among themselves, so that two launchers do not
# bind to the same ones. Not on Slurm, whose steps are placed by srun.
processors=()
find_processors() {
  local said part first last
  command -v taskset > /dev/null || return
  said=$(taskset -cp $$) || return
  said=${said##*: }
  for part in ${said//,/ }; do
    first=${part%%-*} last=${part##*-}
    for ((i = first; i <= last; i++)); do processors+=("$i"); done
  done
  local wanted=$node_cores
  [ "$different" -gt 1 ] || wanted=$((node_cores * node_count))
  [ ${#processors[@]} -ge "$wanted" ] || processors=()
}
[ "$kind" = slurm ] || find_processors

# A job must see its own shape, not that of the allocation, which srun would take for its own.
unset SLURM_NTASKS SLURM_NPROCS SLURM_NTASKS_PER_NODE SLURM_TASKS_PER_NODE SLURM_CPUS_PER_TASK \
  SLURM_TRES_PER_TASK SLURM_MEM_PER_NODE SLURM_MEM_PER_CPU SLURM_NNODES SLURM_JOB_NUM_NODES \
  SLURM_GPUS_PER_NODE SLURM_DISTRIBUTION OMP_NUM_THREADS

# --- the jobs

declare -A known=() asked=() share=() pid=() began=() ends_at=() kill_at=() cause=() held_back=() came=()
declare -A cores_of=() memory_of=() gpus_of=() taken=()
waiting=() # tags, in the order in which they came
over=()    # of jobs whose process is gone, which may have left others behind
# Jobs whose files could not be read: since when, and when they are tried again. A file server in
# trouble, or NFS with what it remembers of a folder, may hide a file for a while (hundredths).
declare -A unread=() again_at=()
hidden_for=12000
unwritten= torn= news= swept=0
used=0 counted=0 closing= ending= idle_since=0 why=

count_used() { # node-seconds (hundredths) in which a node had a job
  local i
  for ((i = 0; i < node_count; i++)); do
    [ "${jobs_on[i]}" -eq 0 ] || used=$((used + now - counted))
  done
  counted=$now
}

read_job() { # its fields; whether they are all there
  local field
  fields=()
  while IFS= read -r -d '' field; do fields+=("$field"); done < "jobs/$1"
  [ ${#fields[@]} -eq 12 ] && [ "${fields[0]}" = 1 ]
}

take_in() {
  local tag=$1
  [ -z "${known[$tag]-}" ] || return
  if [ -n "$closing$ending" ]; then
    refuse "$tag" closed
  elif ! read_job "$tag"; then
    try_later "$tag"
  elif [ "${fields[1]}" -gt "$node_count" ] || [ "${fields[2]}" -gt "$node_cores" ] ||
    [ "${fields[3]}" -gt "$node_memory" ] || [ "${fields[4]}" -gt "$node_gpus" ]; then
    refuse "$tag" size
  else
    is_known "$tag"
    asked[$tag]="${fields[*]:1:6}" # numbers and a word
    came[$tag]=${came[$tag]:-$now} news=yes
    waiting+=("$tag")
  fi
}

is_known() { # what becomes of it is decided
  known[$1]=yes
  unset "unread[$1]" "again_at[$1]"
}

refuse() {
  is_known "$1"
  note R "$1" "$2"
}

try_later() { # a job whose file cannot be read; after ever longer pauses, and not for ever
  local tag=$1 tried
  unread[$tag]=${unread[$tag]:-$now}
  tried=$((now - unread[$tag]))
  if [ "$tried" -ge "$hidden_for" ]; then
    refuse "$tag" unreadable
  else
    again_at[$tag]=$((now + 10 + tried / 4))
  fi
}

read_again() {
  local tag due=()
  for tag in "${!unread[@]}"; do
    [ -z "$closing$ending" ] && [ "$now" -lt "${again_at[$tag]}" ] || due+=("$tag")
  done
  [ ${#due[@]} -gt 0 ] || return
  look_anew jobs
  for tag in "${due[@]}"; do take_in "$tag"; done
}

seconds_left() { left=$(((began_at + (walltime - margin) * 100 - now) / 100)); }

# First fit: sets `chosen` to the nodes that a job gets. It may want all of them (`alone`), only the
# machine on which the agent is (`here`), or any.
choose_nodes() {
  local wanted=$1 cores=$2 memory=$3 gpus=$4 how=$5 i
  chosen=()
  for ((i = 0; i < node_count && ${#chosen[@]} < wanted; i++)); do
    [ "$how" != here ] || [ "${hosts[i]}" = "${hosts[mine]}" ] || continue
    [ "$how" != alone ] || [ "${jobs_on[i]}" -eq 0 ] || return 1
    [ "${free_cores[i]}" -ge "$cores" ] && [ "${free_memory[i]}" -ge "$memory" ] &&
      [ "${free_gpus[i]}" -ge "$gpus" ] && chosen+=("$i")
  done
  [ ${#chosen[@]} -eq "$wanted" ]
}

give() { # take (1) or give back (-1) a job's share
  local tag=$1 sign=$2 i
  for i in ${share[$tag]}; do
    free_cores[i]=$((free_cores[i] - sign * cores_of[$tag]))
    free_memory[i]=$((free_memory[i] - sign * memory_of[$tag]))
    free_gpus[i]=$((free_gpus[i] - sign * gpus_of[$tag]))
    jobs_on[i]=$((jobs_on[i] + sign))
  done
}

choose_processors() { # sets `on` to those for a job whose nodes are all this machine
  local count=$1 i
  shift
  on=
  for i; do [ "${hosts[i]}" = "${hosts[mine]}" ] || return; done
  [ ${#processors[@]} -ge "$count" ] || return
  on=$(IFS=,; echo "${processors[*]:0:count}")
  processors=("${processors[@]:count}")
}

start_job() {
  local tag=$1 nodes cores ranks i r hostlist= on=
  if ! read_job "$tag"; then
    unset "known[$tag]"
    try_later "$tag"
    return
  fi
  nodes=${fields[1]} cores=${fields[2]} ranks=${fields[7]}
  if ! ln -s -n -- started "turns/$tag" 2>/dev/null && [ "$(readlink "turns/$tag")" != started ]; then
    return # it was cancelled; the link says so
  fi
  cores_of[$tag]=$cores memory_of[$tag]=${fields[3]} gpus_of[$tag]=${fields[4]}
  share[$tag]="${chosen[*]}"
  count_used
  give "$tag" 1
  for i in "${chosen[@]}"; do
    hostlist+=${hostlist:+,}${hosts[i]}
    for ((r = 0; r < ranks; r++)); do printf '%s\n' "${hosts[i]}"; done
  done > "turns/$tag.hosts"
  [ ${#processors[@]} -eq 0 ] || choose_processors $((nodes * cores)) "${chosen[@]}"
  taken[$tag]=$on
  note S "$tag" "$hostlist"
  (
    trap : TERM INT HUP XCPU USR1 USR2
    (
      trap - TERM INT HUP XCPU USR1 USR2
      exec {ends}>&- < /dev/null >> "${fields[9]}" 2>> "${fields[10]}"
      cd -- "${fields[11]}" || exit
      export HPC_ALLOCATION_JOB_ID=$prefix.$tag HPC_ALLOCATION_HOSTS=$hostlist
      export HPC_ALLOCATION_HOSTFILE=$PWD_OF_SPOOL/turns/$tag.hosts
      unset LC_ALL OLDPWD
      [ -z "$has_locale" ] || export LC_ALL=$users_locale
      umask "$users_umask"
      exec ${on:+taskset -c "$on"} /bin/bash -p "${fields[8]}"
    )
    code=$?
    printf '%s\n' "$tag" >&"$ends"
    exit "$code"
  ) 2>/dev/null &
  pid[$tag]=$! began[$tag]=$now ends_at[$tag]=$((now + fields[5] * 100))
}

start_what_fits() {
  local tag want still=()
  local -A full=() # what there is no room for
  seconds_left
  for tag in ${waiting[@]+"${waiting[@]}"}; do
    want=(${asked[$tag]})
    if [ -n "$ending" ]; then
      note R "$tag" closed
    elif [ "${want[4]}" -gt "$left" ]; then
      note R "$tag" walltime
    # One that has waited for a minute is not overtaken any more.
    elif [ ${#still[@]} -gt 0 ] && [ $((now - came[${still[0]}])) -gt 6000 ]; then
      still+=("$tag")
    elif [ -n "${full["${want[*]}"]-}" ]; then
      still+=("$tag")
    elif choose_nodes "${want[0]}" "${want[1]}" "${want[2]}" "${want[3]}" "${want[5]}"; then
      start_job "$tag"
      active=$now
    else
      full["${want[*]}"]=yes
      still+=("$tag")
    fi
  done
  waiting=(${still[@]+"${still[@]}"})
  news=
}

drop() { # a job that waits and was cancelled
  local tag still=()
  [ "$(readlink "turns/$1")" = cancelled ] || return
  is_known "$1"
  for tag in ${waiting[@]+"${waiting[@]}"}; do [ "$tag" = "$1" ] || still+=("$tag"); done
  waiting=(${still[@]+"${still[@]}"})
  news=yes
}

end_job() { # ask for its end: why; killed when it goes on
  local tag=$1
  [ -z "${cause[$tag]-}" ] || return
  cause[$tag]=$2 kill_at[$tag]=$((now + grace * 100))
  kill -TERM -- "-${pid[$tag]}" 2>/dev/null
  kill -CONT -- "-${pid[$tag]}" 2>/dev/null
}

kill_job() { # its group, and what has left the group but not the job
  local tag=$1
  kill_steps "$tag"
  kill -KILL -- "-${pid[$tag]}" 2>/dev/null
  kill_marked "$tag"
  kill_at[$tag]=$((now + 500))
}

kill_marked() { # all processes of these jobs, and what they start meanwhile
  local tag each found tries
  for ((tries = 0; tries < 5; tries++)); do
    found=$(for tag; do printf 'HPC_ALLOCATION_JOB_ID=%s.%s\n' "$prefix" "$tag"; done |
      grep -l -z -x -F -f - /proc/[0-9]*/environ 2>/dev/null)
    [ -n "$found" ] || return
    for each in $found; do
      each=${each#/proc/}
      kill -KILL "${each%/environ}" 2>/dev/null
    done
  done
}

kill_steps() { # a step of Slurm's runs on, on any node, when its srun is killed; named in share.py
  local step name
  [ "$kind" = slurm ] || return
  while read -r step name; do
    [ "$name" != "$prefix.$1" ] || scancel --signal=KILL "$step" 2>/dev/null
  done < <(squeue --steps --noheader --jobs="$id" --format='%i %j' 2>/dev/null)
}

sweep() { # what jobs that are over have left behind, many at once
  [ ${#over[@]} -gt 0 ] || return
  kill_marked "${over[@]}"
  over=() swept=$now
}

reap() { # a job whose process is gone
  local tag=$1 code
  wait "${pid[$tag]}" 2>/dev/null
  code=$?
  kill -KILL -- "-${pid[$tag]}" 2>/dev/null # what it has left behind
  [ "$code" -ne 137 ] || kill_steps "$tag"
  if [ -n "${cause[$tag]-}" ]; then kill_marked "$tag"; else over+=("$tag"); fi
  count_used
  give "$tag" -1
  [ -z "${taken[$tag]}" ] || processors+=(${taken[$tag]//,/ })
  unset "pid[$tag]" "ends_at[$tag]" "kill_at[$tag]"
  command rm -f -- "turns/$tag.hosts"
  active=$now news=yes
  # What made it fail may have been meant for the whole allocation: then we are told in this moment
  # too. A launcher whose ranks were killed ends with any code.
  if [ "$code" -eq 0 ] || [ -n "${cause[$tag]-}" ]; then
    note E "$tag" "${cause[$tag]-exit} $code"
  else
    held_back[$tag]="$((now + 100)) $code"
    tell_held_back
  fi
}

tell_held_back() {
  local tag at code
  for tag in "${!held_back[@]}"; do
    read -r at code <<< "${held_back[$tag]}"
    [ "$now" -ge "$at" ] || [ -n "$ending" ] || continue
    if [ -n "$ending" ]; then note E "$tag" "allocation $code"; else note E "$tag" "exit $code"; fi
    unset "held_back[$tag]"
  done
}

look_after_jobs() {
  local tag
  for tag in "${!pid[@]}"; do
    if ! kill -0 "${pid[$tag]}" 2>/dev/null; then
      reap "$tag"
    elif [ -n "${kill_at[$tag]-}" ]; then
      [ "$now" -lt "${kill_at[$tag]}" ] || kill_job "$tag"
    elif [ "$now" -ge "${ends_at[$tag]}" ]; then
      end_job "$tag" walltime
    fi
  done
  [ ${#held_back[@]} -eq 0 ] || tell_held_back
}

# --- the inbox

network=
case $(stat -f -c %T . 2>/dev/null) in
  nfs | smb* | cifs | fuse* | autofs) network=nfs ;;
  lustre | gpfs | beegfs | ceph | panfs | UNKNOWN*) network=yes ;;
esac
# Seconds (hundredths) between two looks when nothing happens.
longest=50
[ -z "$network" ] || longest=300

look_anew() { # an NFS client believes for half a minute that a folder is as it was, unless it changes it
  [ "$network" = nfs ] || return
  : > "$1/.look"
  command rm -f -- "$1/.look"
}

look_into_inbox() {
  local each name seen=()
  look_anew inbox
  local there=(inbox/*)
  # In the order in which they came. All of these names are letters, digits and dots.
  [ ${#there[@]} -lt 2 ] || there=($(ls -tr inbox))
  for each in "${there[@]}"; do
    name=${each#inbox/}
    case $name in
      CLOSE) closing=closed; beat ;;
      NOW) closing=closed ending=${ending:-closed}; beat ;;
      cancel.*)
        name=${name#cancel.}
        if [ -n "${pid[$name]-}" ]; then end_job "$name" cancelled; else drop "$name"; fi
        ;;
      *) take_in "$name" ;;
    esac
    seen+=("inbox/${each#inbox/}")
  done
  [ ${#seen[@]} -eq 0 ] || { command rm -f -- "${seen[@]}"; active=$now; }
}

beat() {
  seconds_left
  count_used
  [ -z "$closing$ending" ] || left=0 # so nobody hands over what would not be taken
  printf '%010d %012d %012d\n' "$((left > 0 ? left : 0))" "$used" \
    $(((now - began_at) * node_count)) 1<> heartbeat
}

is_orphan() { # nobody has renewed our holder's claim; both times are the file server's
  local ours theirs
  [ -e renewed ] || return 1
  : < renewed # an NFS client asks the server when a file is opened
  ours=$(stat -c %Y heartbeat) theirs=$(stat -c %Y renewed) || return 1
  [ $((ours - theirs)) -gt "$orphan_timeout" ]
}

pause() { # until a job ends, or for ever longer while nothing happens
  local length=$(((now - active) / 20)) line
  [ "$length" -ge 10 ] || length=10
  [ "$length" -le "$longest" ] || length=$longest
  printf -v length '%d.%02d' $((length / 100)) $((length % 100))
  if read -r -t "$length" -u "$ends" line; then
    clock
    [ -z "${pid[$line]-}" ] || reap "$line"
  fi
}

end_all() { # of all jobs, because the allocation ends
  local tag
  for tag in "${!pid[@]}"; do end_job "$tag" allocation; done
}

# --- from here on it runs

exec {ends}<> <(:)
prefix=${spool##*/}
prefix=${prefix:0:8}
PWD_OF_SPOOL=$PWD
trap 'ending=${ending:-signalled}' TERM INT HUP XCPU USR1 USR2
trap : XFSZ # a file that may not grow is like a full disk
clock
began_at=$now counted=$now active=$now looked=0 beaten=$((-1000000)) checked=$now rung=
echo "hpc-prefect: the allocation $id holds ${hosts[*]}"

while :; do
  clock
  [ -z "$ending" ] || end_all
  look_after_jobs
  if [ $((now - beaten)) -ge 500 ]; then
    beat
    beaten=$now news=yes # the time may have become too short for one that waits
  fi
  write_notes
  { read -r ring < bell; } 2>/dev/null || ring=
  if [ "$ring" != "$rung" ] || [ $((now - looked)) -ge 3000 ]; then
    rung=$ring looked=$now
    look_into_inbox
  fi
  [ ${#unread[@]} -eq 0 ] || read_again
  [ -z "$news$ending" ] || [ ${#waiting[@]} -eq 0 ] || start_what_fits
  [ $((now - swept)) -lt 100 ] || sweep
  if [ ${#pid[@]} -gt 0 ] || [ ${#held_back[@]} -gt 0 ]; then
    idle_since=$now
  elif [ -n "$closing" ] && [ ${#waiting[@]} -gt 0 ]; then
    : # these were taken before it was told
  elif [ -n "$ending$closing" ]; then
    why=${ending:-$closing}
    break
  elif [ $((now - idle_since)) -ge $((idle_timeout * 100)) ] && [ "$idle_since" -gt 0 ]; then
    why=idle
    break
  fi
  [ "$idle_since" -gt 0 ] || idle_since=$now
  if [ -z "$ending" ] && [ $((now - checked)) -ge 1000 ]; then
    checked=$now
    ! is_orphan || ending=orphan
    seconds_left
    [ "$left" -gt 0 ] || [ ${#pid[@]} -gt 0 ] || ending=walltime
  fi
  pause
done

# What came in this moment is not taken any more.
ending=${ending:-$why}
look_into_inbox
read_again
[ ${#waiting[@]} -eq 0 ] || start_what_fits
sweep
clock
count_used
beat
note X - "$why $(((now - began_at) * node_count)) $used"
for ((i = 0; i < 10; i++)); do
  [ -n "$unwritten" ] || break
  sleep 1
  write_notes
done
echo "hpc-prefect: the allocation $id ends: $why"

#!/bin/bash
#SBATCH --job-name=sweep.glue
#SBATCH --comment=recipe:one/glue/0123abcd/0
#SBATCH --partition=gpu
#SBATCH --account=nlp
#SBATCH --qos=long
#SBATCH --constraint=nvlink
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --gres=gpu:a100:8
#SBATCH --time=1-00:00:00
#SBATCH --signal=USR2@120
#SBATCH --output=/runs/sweep/one/stages/glue/0123abcd/logs/%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --exclusive
#
# Recipe sweep, stage glue: 1 trial.
# Rendered by `recipe`; the settings of each trial are its line in trials.jsonl beside this script.

set -uo pipefail

run=/runs/sweep/one
manifest=/runs/sweep/one/stages/glue/0123abcd/trials.jsonl
offset=0   # of this array's first task in the stage: an array's index is capped by MaxArraySize
pack=1
trials=1
procs=1     # started by this script itself (srun starts the others)
node=${SLURMD_NODENAME:-$HOSTNAME}
task=0
job=${SLURM_JOB_ID:?is not set: this script runs under sbatch}

die() { printf 'recipe: %s\n' "$*" >&2; exit 1; }

# What the submitting shell may have left behind, if it was in a job or a distributed run itself.
unset RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
unset "${!TORCHELASTIC_@}" "${!PMI_@}" "${!PMIX_@}" "${!OMPI_COMM_WORLD_@}"
# srun and scontrol take options from variables. Only those stay that tell about this very job.
for name in "${!SLURM_@}" "${!SRUN_@}" "${!SINFO_@}" SLURMD_DEBUG; do
  case $name in
    SLURM_JOB_*|SLURM_JOBID|SLURM_NODELIST|SLURM_NNODES|SLURM_TASKS_PER_NODE|SLURM_SUBMIT_*|SLURM_TOPOLOGY_*) ;;
    SLURM_NODEID|SLURM_PROCID|SLURM_LOCALID|SLURM_GTIDS|SLURM_TASK_PID|SLURM_NODE_ALIASES|SLURM_*_ON_NODE) ;;
    SLURM_CLUSTER_NAME|SLURM_WORKING_CLUSTER|SLURM_CONF|SLURM_CONF_*|SLURM_JWT|SLURM_SACK_*|SLURM_SPANK_*) ;;
    SLURM_EXCLUSIVE) ;;
    *) unset "$name" ;;
  esac
done
cd -- /home/me || die "cannot enter the directory of the submission on $node"
# load_modules NAME...: returns 1 and sets `trouble` at the first that cannot be loaded.
load_modules() {
  local name file text status
  for name in "$@"; do
    trouble="cannot load the module $name: there is no command 'module' (a job has that of the shell that submitted it)"
    command -v module >/dev/null || return 1
    file=$(mktemp 2>/dev/null || TMPDIR=/tmp mktemp) || file=/dev/null
    set +u   # the functions of some module systems use variables that are not set
    module load "$name" >"$file" 2>&1
    status=$?
    set -u
    text=$(<"$file")
    [[ $file == /dev/null ]] || rm -f -- "$file"
    [[ -z $text ]] || printf '%s\n' "$text" >&2
    # Its own words: from the line with "error" on, or the last one.
    read -r trouble < <(sed -n '/error/I,/^[[:space:]]*$/p' <<<"$text" | head -n 3 | tr -s '[:space:]' ' ')
    [[ -n $trouble ]] || read -r trouble < <(grep -v '^[[:space:]]*$' <<<"$text" | tail -n 1)
    trouble="cannot load the module $name: ${trouble:-exit status $status}"
    ((status == 0)) || return 1
  done
}
load_modules cuda/12.4 || die "$node: $trouble"
export RECIPE_MODULES=loaded
# The code is that of the submission: neither the current directory nor packages in the user's home go before it.
export PYTHONPATH=/runs/sweep/one/code/f00d.zip PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export PYTHONUTF8=1 PYTHONIOENCODING=utf-8:backslashreplace   # whatever the locale of the shell that submitted
export OMP_NUM_THREADS=8
export RECIPE_GPUS_PER_NODE=8 RECIPE_PREFLIGHT_SECONDS=45
RECIPE_NODES=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | paste -s -d ' ') || die "scontrol does not name the nodes"
export RECIPE_NODES

command=(
  env
  NCCL_DEBUG=WARN
  srun
  --nodes=4
  --ntasks=32
  --ntasks-per-node=8
  --cpus-per-task=8
  --kill-on-bad-exit=1
  --mpi=none
  bash
  /runs/sweep/one/stages/glue/0123abcd/enter.sh
  python3
  -m
  neobert
  trial
)

# The rendezvous of all ranks: the first node, and a port from job and task, outside of the ephemeral range (32768 on).
rendezvous() {
  local number=${job//[!0-9]/} port tries
  MASTER_ADDR=${RECIPE_NODES%% *}
  ((${#number} <= 9)) || number=${number: -9}
  port=$((10000 + 10#$number * 17 % 20000))
  for ((tries = 0; tries < 50; tries++)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break   # nobody listens: it is free here
    port=$((port + 1))
  done
  MASTER_PORT=$port
  export MASTER_ADDR MASTER_PORT
}

children=()
stopping=
moved=   # whether this job brought anything forward
# Only notes the signal; Slurm itself sends it to the steps. The trial saves a checkpoint and ends with 85.
# shellcheck disable=SC2317  # called by the traps
on_signal() {
  stopping=$1
}
trap 'on_signal TERM' TERM
trap 'on_signal USR2' USR2

# Runs its arguments in $procs processes. The status is that of the first that failed (the others are then ended), else
# 85 if one asks to be run again, else 0.
launch() {
  local rank status=0 code pid left
  children=()
  for ((rank = 0; rank < procs; rank++)); do
    "$@" &
    children+=($!)
  done
  while ((${#children[@]} > 0)); do
    wait -n   # until a child ends or a signal comes: which of them it was, the loop finds out
    left=()
    for pid in "${children[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then left+=("$pid"); continue; fi
      wait "$pid"
      code=$?
      if ((code != 0 && (status == 0 || status == 85))); then
        status=$code
      fi
    done
    children=(${left[@]+"${left[@]}"})
    if ((status != 0 && status != 85 && ${#children[@]} > 0)); then kill -s TERM "${children[@]}" 2>/dev/null; fi
  done
  return "$status"
}

record() { printf '%s\n' "$1" >>"$trial/attempts.jsonl"; }   # a line that a crash cut short is passed over by readers

# fail CODE KIND REASON: what `recipe status` tells of an attempt that ended badly; KIND is failed, timeout, node
fail() {
  local signal=null name text
  ! taken_over || return
  if (($1 > 128)) && name=$(kill -l $(($1 - 128)) 2>/dev/null); then signal="\"$name\""; fi
  text="{\"schema\": 1, \"attempt\": $attempt, \"exit_code\": $1, \"signal\": $signal, \"kind\": \"$2\", \"reason\": \"$3\", \"job\": \"$job\", \"node\": \"$node\", \"time\": $(date +%s)}"
  rm -f "$trial/.reserve"   # room for the record, if the disk is full
  printf '%s\n' "$text" >"$trial/.failure.$$" && mv -f "$trial/.failure.$$" "$trial/failure.json"
}

# claim: takes the trial for this attempt, under a number of its own. An earlier attempt on a node that was only cut off
# from the network may still run: it stops as soon as it sees that it no longer holds the lease.
claim() {
  mkdir -p "$trial/logs" || die "cannot write to the run's directory on $node"
  attempt=1
  until (set -o noclobber && : >"$trial/logs/attempt-$attempt.log") 2>/dev/null; do
    [[ -e $trial/logs/attempt-$attempt.log ]] || die "cannot write to $trial on $node"
    attempt=$((attempt + 1))
  done
  log=$trial/logs/attempt-$attempt.log
  { printf '%s\n' "$attempt" >"$trial/.lease.$$" && mv -f "$trial/.lease.$$" "$trial/lease"; } || die "cannot write to $trial on $node"
  RECIPE_LEASE_WAIT=0
  if ((attempt > 1)) && ! grep -q "\"attempt\": $((attempt - 1)), \"exit_code\"" "$trial/attempts.jsonl" 2>/dev/null; then
    RECIPE_LEASE_WAIT=15   # nobody saw the end of the last attempt
  fi
  export RECIPE_TRIAL=$trial RECIPE_ATTEMPT=$attempt RECIPE_LEASE_WAIT
  printf '== attempt %s, job %s on %s, %s\n' "$attempt" "$job" "$RECIPE_NODES" "$(date '+%F %T %z')" >"$log"
  rm -f "$trial/failure.json" "$trial/preflight.json"
  head -c 4096 /dev/zero >"$trial/.reserve"
  record "{\"attempt\": $attempt, \"job\": \"$job\", \"node\": \"$node\", \"start\": $(date +%s.%3N)}"
}

# Whether a later attempt holds the lease.
taken_over() {
  local holder
  holder=$(cat "$trial/lease" 2>/dev/null) && [[ $holder =~ ^[0-9]+ ]] && ((BASH_REMATCH[0] > attempt))
}

# The step that a text speaks of, as in progress.json and attempts.jsonl; 0 if none.
step_in() { if [[ $1 =~ \"step\":\ ([0-9]+) ]]; then echo "${BASH_REMATCH[1]}"; else echo 0; fi; }

# srun's status is the highest of all processes. That of the first to end counts: srun ends the others when one has failed.
first_end() {
  local line
  line=$(grep -m 1 -E '^srun: error: [^ ]+: tasks? [^ ]+: ' "$log") || return
  case $line in
    *": Exited with exit code "*) code=${line##* } ;;
    *": Killed" | *": Out Of Memory") code=137 ;;
    *": Terminated") ;;   # as where Slurm takes the job away
    *) ((code != 85 && code != 143)) || code=1 ;;
  esac
}

# Whether it was for all of the job that a process got SIGTERM: srun sends it, too, to the others when one has failed.
taken_away() {
  [[ $stopping == TERM ]] || [[ $(about_job) != *" PreemptTime=None "* ]]
}

# run_trial N: runs the trial on line N (from 0) of the manifest; its status: 0 done, 85 to be run again, else failed
run_trial() {
  local line code kind reason step before
  line=$(sed -n "$(($1 + 1)){p;q;}" "$manifest") || die "cannot read the manifest on $node"
  [[ $line =~ ^\{\"id\":\ \"([0-9a-f]+)\" ]] || die "line $(($1 + 1)) of the manifest is no trial"
  trial=$run/trials/${BASH_REMATCH[1]}
  [[ ! -e $trial/result.json ]] || { printf '%s: done already\n' "${trial##*/}"; return 0; }
  claim
  rendezvous
  launch "${command[@]}" --manifest "$manifest" --index "$1" --output-dir "$trial" </dev/null >>"$log" 2>&1
  code=$?
  first_end
  # A signal that came before the trial could catch it: nothing is lost, it starts again.
  if ((code == 140)) || { ((code == 143)) && taken_away; }; then code=85; fi
  step=$(step_in "$(cat "$trial/progress.json" 2>/dev/null)")
  before=$(step_in "$(grep '"exit_code": 85' "$trial/attempts.jsonl" | tail -n 1)")
  record "{\"attempt\": $attempt, \"exit_code\": $code, \"step\": $step, \"end\": $(date +%s.%3N)}"
  if ((code != 85 || step > before)); then moved=yes; fi
  if taken_over; then
    die "${trial##*/}: attempt $(<"$trial/lease") has taken it over"
  elif ((code == 0)) && [[ ! -e $trial/result.json ]]; then
    fail 0 failed "ended without an error and without a result"
    code=1
  elif ((code != 0 && code != 85)); then
    kind=failed reason=failed   # more of it, the log tells to who asks
    if [[ -e $trial/preflight.json ]]; then
      kind=node reason="bad start"
      elsewhere
    elif [[ -n $stopping ]]; then
      reason="ended after SIG$stopping"
    fi
    fail "$code" "$kind" "$reason"
  fi
  rm -f "$trial/.reserve"
  return "$code"
}

# What Slurm says of this job. Asked until there is an answer: its controller may be away for a moment.
about_job() {
  local text
  until text=$(scontrol show job --oneliner "$job" 2>/dev/null) && [[ $text == *" JobState="* ]]; do sleep 1; done
  printf '%s\n' "$text"
}

# How often Slurm has started the job again. SLURM_RESTART_COUNT may be that of a job which this one was submitted from.
restarts() { if [[ $1 =~ \ Restarts=([0-9]+) ]]; then echo "${BASH_REMATCH[1]}"; else echo 0; fi; }

# Ends the script unless Slurm says that the job runs: one that is being cancelled or preempted is no longer RUNNING, and
# it is Slurm who decides, and not we, what follows.
still_ours() { [[ $1 == *" JobState=RUNNING "* ]] || exit 85; }

# The whole job again, from where its trials stopped; Slurm does it by itself when it was Slurm that took the nodes.
# again INTERRUPTED: whether the last trial was stopped in the middle (its failure, if it cannot go on), or had ended.
again() {
  local text reason='' tries
  text=$(about_job)
  still_ours "$text"
  if (($(restarts "$text") >= 20)); then
    reason="interrupted 20 times: no more restarts"
  # Where preemption leaves a grace time the job is RUNNING and yet about to go; otherwise it was its time limit, which
  # leads nowhere if it is over before a single step.
  elif [[ -z $moved && $text == *" PreemptTime=None "* ]]; then
    reason="stopped before it made a step: it would never get further"
  fi
  for ((tries = 0; tries < 10 && ${#reason} == 0; tries++)); do
    if scontrol requeue "$job"; then exit 85; fi
    still_ours "$(about_job)"
    sleep 1
  done
  reason=${reason:-checkpointed, but scontrol refused to requeue it}
  [[ $1 == no ]] || fail 85 timeout "$reason"
  die "$reason"
}

# Whether another node has complained of the same in this job: then the fault is the trial's, or the image's.
complained_before() {
  local nodes words pattern='"reason": "([^"\\]|\\.)+"'
  [[ $1 =~ $pattern ]] || return
  words=${BASH_REMATCH[0]}
  [[ $1 =~ \"nodes\":\ \[[^]]*\] ]] && nodes=${BASH_REMATCH[0]}
  grep -F "\"job\": \"$job\", \"excluded\": " "$trial/attempts.jsonl" | grep -F -- "$words" | grep -qvF -- "$nodes"
}

# nodes_left JOB NODES: how many nodes of the job's partitions are none of those; as many as it needs if sinfo is silent.
nodes_left() {
  local all=
  [[ ! $1 =~ \ Partition=([^ ]+) ]] || all=$(sinfo --noheader --Node --format=%N --partition="${BASH_REMATCH[1]}" | sort -u)
  if [[ -z $all ]]; then echo 4; else grep -cvxF -f <(scontrol show hostnames "$2") <<<"$all"; fi
}

# The whole job again, without the nodes that were found unfit. Returns where that would be no help, with a reason.
elsewhere() {
  local complaint text bad tries
  complaint=$(<"$trial/preflight.json")
  [[ $complaint =~ \"nodes\":\ \[\"([^]]+)\"\] ]] || return   # no node's fault
  bad=${BASH_REMATCH[1]//\", \"/,}
  if complained_before "$complaint"; then
    reason="bad start, as on another node before"
    return
  fi
  text=$(about_job)
  still_ours "$text"
  if (($(restarts "$text") >= 5)); then
    reason="bad start, after 5 restarts"
    return
  fi
  [[ ! $text =~ \ ExcNodeList=([^ ]+) || ${BASH_REMATCH[1]} == "(null)" ]] || bad=$bad,${BASH_REMATCH[1]}
  if (($(nodes_left "$text" "$bad") < 4)); then
    reason="bad start, and no other node is left"
    return
  fi
  record "{\"attempt\": $attempt, \"job\": \"$job\", \"excluded\": $complaint}"
  scontrol requeue "$job" || return
  for ((tries = 0; tries < 50; tries++)); do   # Slurm takes it only of a job that waits
    if scontrol update jobid="$job" excnodelist="$bad" 2>/dev/null; then exit 85; fi
    sleep 0.1
  done
  die "Slurm did not exclude $bad from $job"
}

# A function, so that an error of bash itself anywhere in it is the script's status too.
main() {
  local failed=0 first=$(((task + offset) * pack)) index
  ((first < trials)) || die "there is no array task $task in a job of $trials trials"
  for ((index = first; index < first + pack && index < trials; index++)); do
    run_trial "$index"
    case $? in
      0) ;;
      85) again yes ;;
      *) failed=1 ;;
    esac
    if [[ -n $stopping ]] && ((index + 1 < first + pack && index + 1 < trials)); then again no; fi
  done
  return "$failed"
}
main

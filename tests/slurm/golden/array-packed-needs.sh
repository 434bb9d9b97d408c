#!/bin/bash
#SBATCH --job-name=two.second
#SBATCH --comment=recipe:one/second/0123abcd/0
#SBATCH --partition=gpu
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=100M
#SBATCH --time=00:30:00
#SBATCH --signal=USR2@120
#SBATCH --array=0-1
#SBATCH --output=/runs/sweep/one/stages/glue/0123abcd/logs/%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --kill-on-invalid-dep=yes
#
# Recipe two, stage second: 4 trials, 3 in each array task.
# Rendered by `recipe`; the settings of each trial are its line in trials.jsonl beside this script.

set -uo pipefail

run=/runs/sweep/one
manifest=/runs/sweep/one/stages/glue/0123abcd/trials.jsonl
offset=0   # of this array's first task in the stage: an array's index is capped by MaxArraySize
pack=3
trials=4
procs=1     # started by this script itself (srun starts the others)
node=${SLURMD_NODENAME:-$HOSTNAME}
needs=/runs/sweep/one/needs/d7e2d16e72bb.txt   # the trials that these need, one a line: id and stage
list=$(basename "$needs" .txt)
patience=$((SECONDS + 90))   # until when a result may take to be seen here: NFS remembers for 60 s what was not there
task=${SLURM_ARRAY_TASK_ID:?is not set: this script runs under sbatch}
job=${SLURM_ARRAY_JOB_ID}_$task

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
    SLURM_ARRAY_*) ;;
    *) unset "$name" ;;
  esac
done
cd -- /home/me || die "cannot enter the directory of the submission on $node"
# The code is that of the submission: neither the current directory nor packages in the user's home go before it.
export PYTHONPATH=/runs/sweep/one/code/f00d.zip PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export PYTHONUTF8=1 PYTHONIOENCODING=utf-8:backslashreplace   # whatever the locale of the shell that submitted
export OMP_NUM_THREADS=1
export RECIPE_GPUS_PER_NODE=0 RECIPE_PREFLIGHT_SECONDS=45
RECIPE_NODES=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | paste -s -d ' ') || die "scontrol does not name the nodes"
export RECIPE_NODES

command=(
  srun
  --nodes=1
  --ntasks=1
  --ntasks-per-node=1
  --cpus-per-task=1
  --kill-on-bad-exit=1
  /usr/bin/python3
  -m
  neobert
  trial
)

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

# fail CODE KIND REASON: what `recipe status` tells of an attempt that ended badly; KIND is failed, timeout, node, needs
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
  [[ -z $outdated ]] || begin_anew
  head -c 4096 /dev/zero >"$trial/.reserve"
  record "{\"attempt\": $attempt, \"job\": \"$job\", \"node\": \"$node\", \"start\": $(date +%s.%3N), \"needs\": \"$list\", \"inputs\": \"$inputs\"}"
}

# The first trial of the list that has no result: its id and its stage; nothing where all have one.
missing() {
  local id stage
  while read -r id stage; do
    if [[ ! -s $run/trials/$id/result.json ]]; then
      printf '%s %s\n' "$id" "$stage"
      return
    fi
  done <"$needs"
}

# results LIST COMMAND...: gives the results of a list's trials to a command, as its last arguments.
results() {
  local trials=$1
  shift
  sed 's| .*|/result.json|' "$trials" | (cd -- "$run/trials" && xargs "$@")
}

# digest LIST: what tells the results of a list's trials from others.
digest() { results "$1" cat | sha256sum | cut -c -16; }

# Whether the trials that this one needs have their results; sets `inputs`. Else it is not started, and a record says so:
# this is no attempt. Results decide, and not how jobs ended; only one that has just ended well is waited for.
ready() {
  local id stage
  while read -r id stage < <(missing); do
    if [[ $(tail -n 1 "$run/trials/$id/attempts.jsonl" 2>/dev/null) == *'"exit_code": 0,'* ]] && ((SECONDS < patience)) && [[ -z $stopping ]]; then
      ls "$run/trials/$id" >/dev/null   # makes NFS look again
      sleep 1
      continue
    fi
    mkdir -p "$trial" || die "cannot write to the run's directory on $node"
    attempt=0
    if [[ $(cat "$trial/lease" 2>/dev/null) =~ ^[0-9]+ ]]; then attempt=${BASH_REMATCH[0]}; fi
    fail 1 needs "needs $stage, whose trial $id has no result"
    printf 'recipe: %s: not started: it needs %s, whose trial %s has no result\n' "${trial##*/}" "$stage" "$id" >&2
    return 1
  done
  inputs=$(digest "$needs") || die "cannot read the results of the trials that ${trial##*/} needs"
}

# Whether what lies in the trial's directory was made from other results than those that are there now.
is_outdated() {
  local last now newest
  last=$(grep '"start": ' "$trial/attempts.jsonl" 2>/dev/null | tail -n 1) || return
  if [[ $last =~ \"needs\":\ \"([0-9a-f]+)\",\ \"inputs\":\ \"([0-9a-f]+)\" && -e $run/needs/${BASH_REMATCH[1]}.txt ]]; then
    now=$inputs
    [[ ${BASH_REMATCH[1]} == "$list" ]] || now=$(digest "$run/needs/${BASH_REMATCH[1]}.txt" 2>/dev/null)
    [[ $now != "${BASH_REMATCH[2]}" ]]
  elif [[ $last =~ \"start\":\ ([0-9]+) ]]; then   # of a version that noted no inputs: by time, as far as clocks agree
    newest=$(results "$needs" stat -c %Y | sort -n | tail -n 1)
    ((newest > BASH_REMATCH[1] + 60))
  else
    return 1
  fi
}

# Puts aside what the attempts before have made, so that nothing of other inputs is gone on from. The record of attempts
# is the last to go: while it is there, the next start sees the same and does the rest.
begin_anew() {
  local path place=$trial/stale/attempt-$((attempt - 1))
  sleep "$RECIPE_LEASE_WAIT"   # for one that may still write
  RECIPE_LEASE_WAIT=0
  { rm -rf "$trial/checkpoints" && mkdir -p "$place"; } || die "cannot write to $trial on $node"
  for path in "$trial"/*; do
    case ${path##*/} in
      logs | lease | stale | attempts.jsonl) ;;
      *) mv -f -- "$path" "$place" || [[ ! -e $path ]] || die "cannot put $path aside on $node" ;;
    esac
  done
  mv -f -- "$trial/attempts.jsonl" "$place" || die "cannot put aside what $trial holds on $node"
  printf 'recipe: what this trial needs was made again: it begins anew; what it made before is in %s\n' "$place" >>"$log"
}

# Whether a later attempt holds the lease.
taken_over() {
  local holder
  holder=$(cat "$trial/lease" 2>/dev/null) && [[ $holder =~ ^[0-9]+ ]] && ((BASH_REMATCH[0] > attempt))
}

# The step that a text speaks of, as in progress.json and attempts.jsonl; 0 if none.
step_in() { if [[ $1 =~ \"step\":\ ([0-9]+) ]]; then echo "${BASH_REMATCH[1]}"; else echo 0; fi; }

# Whether a trial has failed by itself in this very job: when the job goes on for others of its pack, it stays failed.
failed_here() {
  local text
  [[ -e $trial/failure.json ]] || return 1
  text=$(<"$trial/failure.json")
  [[ $text != *"\"kind\": \"needs\","* ]] || return 1   # it did not start at all
  [[ $text == *"\"signal\": null,"* && $text == *"\"job\": \"$job\","* ]]
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
  ready || return 1
  outdated=
  if is_outdated; then outdated=yes; fi
  [[ -n $outdated || ! -e $trial/result.json ]] || { printf '%s: done already\n' "${trial##*/}"; return 0; }
  if failed_here; then return 1; fi
  claim
  launch "${command[@]}" --manifest "$manifest" --index "$1" --output-dir "$trial" </dev/null >>"$log" 2>&1
  code=$?
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

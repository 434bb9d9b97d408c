#!/bin/bash
#
# Recipe sweep, stage glue: 4 trials.
# Rendered by `recipe`; the settings of each trial are its line in trials.jsonl beside this script.

set -uo pipefail

run=/runs/sweep/one
manifest=/runs/sweep/one/stages/glue/0123abcd/trials.jsonl
offset=0   # of this array's first task in the stage: an array's index is capped by MaxArraySize
pack=1
trials=4
procs=1     # started by this script itself
node=${SLURMD_NODENAME:-$HOSTNAME}
task=${SLURM_ARRAY_TASK_ID:-0}
job=${RECIPE_JOB_ID:?is not set: this script is started by the local queue}_$task

die() { printf 'recipe: %s\n' "$*" >&2; exit 1; }

# What the submitting shell may have left behind, if it was in a job or a distributed run itself.
unset RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
unset "${!TORCHELASTIC_@}" "${!PMI_@}" "${!PMIX_@}" "${!OMPI_COMM_WORLD_@}"
unset SLURM_STEP_ID SLURM_PROCID SLURM_LOCALID SLURM_NTASKS SLURM_STEP_NUM_TASKS
cd -- /home/me || die "cannot enter the directory of the submission on $node"
# The code is that of the submission: neither the current directory nor packages in the user's home go before it.
export PYTHONPATH=/runs/sweep/one/code/f00d.zip PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export PYTHONUTF8=1 PYTHONIOENCODING=utf-8:backslashreplace   # whatever the locale of the shell that submitted
export OMP_NUM_THREADS=1
export RECIPE_GPUS_PER_NODE=0 RECIPE_PREFLIGHT_SECONDS=45

command=(
  /usr/bin/python3
  -m
  neobert
  trial
)

children=()
stopping=
# Only notes the signal and passes it on. The trial saves a checkpoint and ends with 85.
# shellcheck disable=SC2317  # called by the traps
on_signal() {
  stopping=$1
  ((${#children[@]} == 0)) || kill -s "$1" "${children[@]}" 2>/dev/null
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
  printf '== attempt %s, job %s on %s, %s\n' "$attempt" "$job" "$node" "$(date '+%F %T %z')" >"$log"
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

# Whether it was for all of the job that a process got SIGTERM: srun sends it, too, to the others when one has failed.
taken_away() {
  [[ $stopping == TERM ]]
}

# run_trial N: runs the trial on line N (from 0) of the manifest; its status: 0 done, 85 to be run again, else failed
run_trial() {
  local line code kind reason step
  line=$(sed -n "$(($1 + 1)){p;q;}" "$manifest") || die "cannot read the manifest on $node"
  [[ $line =~ ^\{\"id\":\ \"([0-9a-f]+)\" ]] || die "line $(($1 + 1)) of the manifest is no trial"
  trial=$run/trials/${BASH_REMATCH[1]}
  [[ ! -e $trial/result.json ]] || { printf '%s: done already\n' "${trial##*/}"; return 0; }
  claim
  launch "${command[@]}" --manifest "$manifest" --index "$1" --output-dir "$trial" </dev/null >>"$log" 2>&1
  code=$?
  # A signal that came before the trial could catch it: nothing is lost, it starts again.
  if ((code == 140)) || { ((code == 143)) && taken_away; }; then code=85; fi
  step=$(step_in "$(cat "$trial/progress.json" 2>/dev/null)")
  record "{\"attempt\": $attempt, \"exit_code\": $code, \"step\": $step, \"end\": $(date +%s.%3N)}"
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

# The whole job again, from where its trials stopped; Slurm does it by itself when it was Slurm that took the nodes.
# again INTERRUPTED: whether the last trial was stopped in the middle (its failure, if it cannot go on), or had ended.
again() {
  exit 85
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

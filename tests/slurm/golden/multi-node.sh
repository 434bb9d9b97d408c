#!/bin/bash
#SBATCH --job-name=sweep.glue
#SBATCH --comment=recipe:one/glue/0123abcd/0
#SBATCH --partition=gpu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=4
#SBATCH --mem=100M
#SBATCH --time=00:10:00
#SBATCH --signal=USR2@120
#SBATCH --output=/runs/sweep/one/stages/glue/0123abcd/logs/%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --kill-on-invalid-dep=yes
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
unset SLURM_MEM_PER_CPU SLURM_MEM_PER_GPU
cd -- /home/me || die "cannot enter the directory of the submission on $node"
# The code is that of the submission: neither the current directory nor packages in the user's home go before it.
export PYTHONPATH=/runs/sweep/one/code/f00d.zip PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=4

command=(
  srun
  --nodes=2
  --ntasks=4
  --ntasks-per-node=2
  --cpus-per-task=4
  --kill-on-bad-exit=1
  /usr/bin/python3
  -m
  neobert
  trial
)

# The rendezvous of all ranks: the first node, and a port from job and task, outside of the ephemeral range (32768 on).
rendezvous() {
  local number=${job//[!0-9]/} port tries
  MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
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
      if ((code != 0 && (status == 0 || status == 85))); then status=$code; fi
    done
    children=(${left[@]+"${left[@]}"})
    if ((status != 0 && status != 85 && ${#children[@]} > 0)); then kill -s TERM "${children[@]}" 2>/dev/null; fi
  done
  return "$status"
}

record() { printf '%s\n' "$1" >>"$trial/attempts.jsonl"; }   # a line that a crash cut short is passed over by readers

# fail CODE REASON: what `recipe status` tells of an attempt that ended badly
fail() {
  local signal=null text
  (($1 <= 128)) || signal="\"$(kill -l $(($1 - 128)) 2>/dev/null)\""
  text="{\"schema\": 1, \"attempt\": $attempt, \"exit_code\": $1, \"signal\": $signal, \"reason\": \"$2\", \"job\": \"$job\", \"node\": \"$node\", \"time\": $(date +%s)}"
  printf '%s\n' "$text" >"$trial/.failure.$$" && mv -f "$trial/.failure.$$" "$trial/failure.json"
}

# run_trial N: runs the trial on line N (from 0) of the manifest; its status: 0 done, 85 to be run again, else failed
run_trial() {
  local line code log
  line=$(sed -n "$(($1 + 1)){p;q;}" "$manifest") || die "cannot read the manifest on $node"
  [[ $line =~ ^\{\"id\":\ \"([0-9a-f]+)\" ]] || die "line $(($1 + 1)) of the manifest is no trial"
  trial=$run/trials/${BASH_REMATCH[1]}
  [[ ! -e $trial/result.json ]] || { printf '%s: done already\n' "${trial##*/}"; return 0; }
  mkdir -p "$trial/logs" || die "cannot write to the run's directory on $node"
  attempt=1
  while [[ -e $trial/logs/attempt-$attempt.log ]]; do attempt=$((attempt + 1)); done
  log=$trial/logs/attempt-$attempt.log
  printf '== attempt %s, job %s on %s, %s\n' "$attempt" "$job" "$node" "$(date '+%F %T %z')" >"$log" || die "cannot write $log"
  rm -f "$trial/failure.json"
  record "{\"attempt\": $attempt, \"job\": \"$job\", \"node\": \"$node\", \"start\": $(date +%s)}"
  rendezvous
  launch "${command[@]}" --manifest "$manifest" --index "$1" --output-dir "$trial" </dev/null >>"$log" 2>&1
  code=$?
  ((code != 140)) || code=85   # USR2 came before the trial could catch it: nothing is lost, it starts again
  record "{\"attempt\": $attempt, \"exit_code\": $code, \"end\": $(date +%s)}"
  if ((code == 0)) && [[ ! -e $trial/result.json ]]; then
    fail 0 "ended without an error and without a result"
    code=1
  elif ((code != 0 && code != 85)); then
    fail "$code" "${stopping:+ended after SIG}${stopping:-failed}"
  fi
  return "$code"
}

# The whole job again, from where its trials stopped; Slurm does it by itself when it was Slurm that took the nodes.
again() {
  if ((${SLURM_RESTART_COUNT:-0} >= 20)); then
    fail 85 "interrupted 20 times: no more restarts"
    exit 1
  fi
  # A job that is being cancelled or preempted is no longer RUNNING, and must not be brought back by us.
  if [[ $(squeue --noheader --jobs="$job" --format=%T 2>/dev/null) == RUNNING ]]; then
    scontrol requeue "$job" || { fail 85 "checkpointed, but scontrol refused to requeue it"; exit 1; }
  fi
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
      85) again ;;
      *) failed=1 ;;
    esac
    if [[ -n $stopping ]] && ((index + 1 < first + pack && index + 1 < trials)); then again; fi
  done
  return "$failed"
}
main

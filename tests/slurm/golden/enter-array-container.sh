#!/bin/bash
# Recipe sweep, stage glue: starts its arguments in the container, on the node where it is called.
# Rendered by `recipe`. With RECIPE_VERB=shell it opens a shell there, with RECIPE_VERB=print it prints the command.

set -uo pipefail

program=apptainer
image=/images/n.sif
node=${SLURMD_NODENAME:-$HOSTNAME}
verb=${RECIPE_VERB:-exec}
unset RECIPE_VERB   # for this script alone, and not for another that the command may call

# A node on which no trial can start. The job script finds the record, and with it the node that is to blame.
bad_node() {
  printf 'recipe: %s: %s\n' "$node" "$*" >&2
  if [[ -n ${RECIPE_TRIAL-} ]]; then
    local text=${*//\\/\\\\} record=$RECIPE_TRIAL/preflight.json
    text=${text//\"/\\\"} text=${text//[[:cntrl:]]/ }
    printf '{"schema": 1, "attempt": %s, "nodes": ["%s"], "message": "%s: %s", "reason": "%s"}\n' \
      "$RECIPE_ATTEMPT" "$node" "$node" "$text" "$text" >"$record.$node.$$" && mv -f "$record.$node.$$" "$record"
  fi
  exit 87
}

# What would be the same on every node: a plain failure.
refuse() { printf 'recipe: %s: %s\n' "$node" "$*" >&2; exit 2; }

# Of variables for the container, only those that are listed below are to enter, and not those of a login shell.
unset "${!APPTAINERENV_@}" "${!SINGULARITYENV_@}"

# Which program it is, its version tells and not its name: `singularity` is a link to apptainer on many sites.
version=$("$program" --version 2>/dev/null) || bad_node "there is no working $program"
case $version in
  apptainer*) prefix=APPTAINERENV_ ;;
  singularity-ce*) prefix=SINGULARITYENV_ ;;
  *) refuse "$program is neither Apptainer nor SingularityCE: $version" ;;
esac
[[ -r $image ]] || bad_node "there is no image $image"

# Node-local room: caches of compiled kernels, which must not be shared by nodes.
# Whether somebody else could put another directory in the place of ours: all can write there, and no sticky bit forbids it.
is_open_to_all() { [[ -n $(find -L "$1" -maxdepth 0 -perm -0002 ! -perm -1000 2>/dev/null) ]]; }
scratch=${TMPDIR:-/tmp}
# That of the node which submitted may not be here.
{ [[ -d $scratch && -w $scratch ]] && ! is_open_to_all "$scratch"; } || scratch=/tmp
room=$scratch/recipe-$UID
(umask 077 && mkdir -p -- "$room") 2>/dev/null   # and no more if something is there already, which is looked at now
[[ ! -L $room ]] || bad_node "$room is a link, which somebody has put there: remove it"
[[ ! -e $room || -O $room ]] || bad_node "$room belongs to somebody else"
{ [[ -d $room && -w $room ]] && chmod go-w -- "$room"; } || bad_node "cannot write to $room"

options=(--cleanenv --no-eval --pwd /home/me --bind "$room")
options+=(--bind /home/me)
options+=(--bind /runs/sweep/one)
options+=(--bind /data:/data:ro)
for name in HF_HOME HF_HUB_CACHE HF_DATASETS_CACHE HF_ASSETS_CACHE TORCH_HOME NEOBERT_CACHE; do
  [[ ! -d ${!name-} ]] || options+=(--bind "${!name}")
done
options+=(--nv)

# pass NAME VALUE: a variable in the container. By this prefix it goes before what the image itself sets.
pass() { export "$prefix$1=$2"; }
while read -r name; do
  case $name in
    HF_HUB_OFFLINE) pass "$name" "${!name}" ;;
    *TOKEN|*_KEY|*SECRET*|*PASSWORD*|SLURM_JWT) ;;   # only by `secrets`
    SLURM_*|SLURMD_NODENAME|RECIPE_*|RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT|CUDA_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES|HIP_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|CUDA_DEVICE_*|CUDA_LAUNCH_BLOCKING|CUDA_MODULE_LOADING|CUDA_CACHE_*|CUDA_MPS_*|NCCL_*|RCCL_*|GLOO_*|UCX_*|FI_*|OMP_*|MKL_*|KMP_*|TORCH_*|TORCHINDUCTOR_*|PYTORCH_*|TRITON_*|DS_*|NEOBERT_CACHE|HF_*|TRANSFORMERS_*|TOKENIZERS_*|HTTP_PROXY|HTTPS_PROXY|NO_PROXY|http_proxy|https_proxy|no_proxy|TZ) pass "$name" "${!name}" ;;
  esac
done < <(compgen -e)
pass PYTHONPATH /runs/sweep/one/code/f00d.zip   # the submitted code, before the image's
pass PYTHONNOUSERSITE 1
pass PYTHONSAFEPATH 1
pass PYTHONUNBUFFERED 1
pass PYTHONUTF8 1
pass PYTHONIOENCODING utf-8:backslashreplace
[[ -v OMP_NUM_THREADS ]] || pass OMP_NUM_THREADS 1
# Kernels that are compiled in one image must not be loaded in another.
cache=$room/cache/$(stat -L -c %s-%Y -- "$image")
mkdir -p -- "$cache" || bad_node "cannot write to $cache"
[[ -v TRITON_CACHE_DIR ]] || pass TRITON_CACHE_DIR "$cache/triton"
[[ -v TORCHINDUCTOR_CACHE_DIR ]] || pass TORCHINDUCTOR_CACHE_DIR "$cache/inductor"
[[ -v TORCH_EXTENSIONS_DIR ]] || pass TORCH_EXTENSIONS_DIR "$cache/torch_extensions"

case $verb in
  exec) exec "$program" exec "${options[@]}" "$image" "$@" ;;
  shell) exec "$program" shell "${options[@]}" "$image" ;;
  print)
    # What secrets and the passwords in proxies are, the shell shall fill in where this is pasted.
    while read -r name; do
      case $name in
        "$prefix"*_PROXY | "$prefix"*_proxy) printf '%s="$%s" ' "$name" "${name#"$prefix"}" ;;
        "$prefix"*) printf '%s=%q ' "$name" "${!name}" ;;
      esac
    done < <(compgen -e)
    printf '%q ' "$program" exec "${options[@]}" "$image" "$@"
    printf '\n'
    ;;
  *) printf 'recipe: RECIPE_VERB=%s is none of exec, shell, print\n' "$verb" >&2; exit 2 ;;
esac

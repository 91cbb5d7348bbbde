#!/usr/bin/env bash
# One experiment on a Cloud TPU VM, or on all hosts of a slice.
#
#   export NAME=pdjax ZONE=us-west4-a TYPE=v5litepod-8 BUCKET=my-bucket
#   launch/tpu_vm.sh create                                      # the machines, spot by default
#   launch/tpu_vm.sh install                                     # this commit, on every host
#   launch/tpu_vm.sh run --config=configs/pcfg.py:paper --workdir=runs/pcfg
#   launch/tpu_vm.sh resume --config=configs/pcfg.py:paper --workdir=runs/pcfg   # after a preemption: all of the above
#   launch/tpu_vm.sh delete
#
# runs/ is the bucket, mounted with gcsfuse on every host, so that it outlives the machines. It has to have a hierarchical
# namespace, in which directories are renamed at once, as checkpoints are when they are whole:
#
#   gcloud storage buckets create gs://my-bucket --location=us-west4 --uniform-bucket-level-access --enable-hierarchical-namespace
#
# Needs the gcloud command with a project and a default service account that may write the bucket. The machines' own
# Python may be 3.10: uv brings another. DRY_RUN=1 prints the commands instead.
set -euo pipefail

usage() { sed -n '2,17s/^# \{0,1\}//p' "$0" >&2; exit 2; }
need() { [ -n "${!1:-}" ] || { echo "expected the environment variable $1; found none; see the head of $0" >&2; exit 2; }; }
for variable in NAME ZONE TYPE BUCKET; do need "$variable"; done

SPOT=(--spot)
[ -z "${ON_DEMAND:-}" ] || SPOT=()

gcloud_() { if [ -n "${DRY_RUN:-}" ]; then printf 'gcloud'; printf ' %q' "$@"; echo; else gcloud "$@"; fi; }
everywhere() { gcloud_ compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"; }

create() {
  gcloud_ compute tpus tpu-vm create "$NAME" --zone="$ZONE" --accelerator-type="$TYPE" \
    --version="${VERSION:-v2-alpha-tpuv5-lite}" "${SPOT[@]}"
}

install() {
  local archive
  archive=$(mktemp --suffix=.tar.gz)
  git archive --format=tar.gz --output="$archive" HEAD
  gcloud_ compute tpus tpu-vm scp "$archive" "$NAME:pdjax.tar.gz" --zone="$ZONE" --worker=all
  rm "$archive"
  # All hosts see at once what one has written. A bucket without the namespace renames file by file, if it is let.
  everywhere "mkdir -p pdjax && tar -xzf pdjax.tar.gz -C pdjax && cd pdjax &&
    python3 -m pip install --quiet --user uv && python3 -m uv venv --quiet --allow-existing --python 3.12 .venv &&
    python3 -m uv pip install --quiet --python .venv/bin/python -c requirements.lock -e '.[tpu]' && mkdir -p runs &&
    (mountpoint -q runs || gcsfuse --implicit-dirs --rename-dir-limit=100000 --metadata-cache-ttl-secs=0 $BUCKET runs)"
}

run() { # all hosts are one program; the same command continues a run
  local flags
  printf -v flags ' %q' "$@"
  everywhere "cd pdjax && .venv/bin/python -m pdjax.main --distributed=on$flags"
}

delete() { gcloud_ compute tpus tpu-vm delete "$NAME" --zone="$ZONE" --quiet; }

command=${1:-}
shift || usage
case "$command" in
  create | install | delete) "$command" ;;
  run) run "$@" ;;
  resume) delete || true; create; install; run "$@" ;;
  *) usage ;;
esac

#!/usr/bin/env bash
# Goes on with the run NAME if there is one, and starts it otherwise: what a scheduler that restarts jobs can start again and
# again. Usage, from the checkout:  VIBESERVE_RUNS_DIR=/shared/runs deploy/run-or-resume.sh NAME TARGET [options of `run`]
# TAKE_OVER=yes replaces a driver that seems to hold the run; only for a scheduler that knows that it is gone.
set -euo pipefail

name=${1:?expected a name for the run}
shift
runs=${VIBESERVE_RUNS_DIR:?expected the folder that holds the runs}

for run in "$runs"/*-"$name"; do
  # Without a ledger it came to nothing: its preparation was cut off.
  if [ -d "$run/ledger" ]; then
    exec python -m vibeserve resume "$run" ${TAKE_OVER:+--take-over}
  fi
done
exec python -m vibeserve run "$@" --name "$name" --runs-dir "$runs"

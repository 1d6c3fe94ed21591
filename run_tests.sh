#!/usr/bin/env bash
# Runs linter, type checker and tests. --with-replay installs the simulator first, so that its tests are not skipped;
# --slow adds the tests that take minutes; other arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install_environment
install_integrations
cd "$repository"

marker="not slow"
arguments=()
for argument in "$@"; do
  if [ "$argument" = "--slow" ]; then
    marker=""
  elif [ "$argument" = "--with-replay" ]; then
    install_simulator
  else
    arguments+=("$argument")
  fi
done

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # small matrices: more threads only wait for each other
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
# Of pytest's plugins only these, whatever else is installed.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
# A process for each core; the tests of a file stay together, because they share what takes long to make.
exec "$python" -m pytest -p xdist -p hypothesispytest --numprocesses auto --dist loadfile -m "$marker" ${arguments[@]+"${arguments[@]}"}

#!/usr/bin/env bash
# Runs the notebooks headless and writes the report. ./run_all.sh --help says what can be chosen.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

for argument in "$@"; do
  if [ "$argument" = "--help" ] || [ "$argument" = "-h" ]; then
    system_python="$(find_python)" # help needs nothing installed
    PYTHONPATH="$repository" exec "$system_python" -m workbook.run --help
  fi
done

install_environment
for argument in "$@"; do
  if [ "$argument" = "--with-replay" ] || [ "$argument" = "--with-simulator" ]; then
    install_simulator
  fi
done
exec "$python" -m workbook.run "$@"

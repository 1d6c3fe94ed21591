# Sourced by run_all.sh and run_tests.sh: makes .venv where there is none and sets $python to its interpreter.
# WORKBOOK_VENV names another place for it.

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="${WORKBOOK_VENV:-$repository/.venv}"
python="$venv/bin/python"

# What is set for other Python programs, as ROS sets its packages and plugins of pytest, reaches neither runs nor tests.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTEST_ADDOPTS PYTEST_PLUGINS

fail() {
  echo "error: $*" >&2
  exit 2
}

find_python() {
  local candidate
  for candidate in python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer was found; install one, with its venv module"
}

install_environment() {
  installed test && return
  echo "installing into $venv (once; a few minutes, about 1.5 GB without CUDA)" >&2
  if [ ! -x "$python" ]; then
    local found
    found="$(find_python)" || exit 2
    "$found" -m venv "$venv" ||
      fail "$venv: cannot make the environment there; set WORKBOOK_VENV to a folder that can be written"
  fi
  install_extra test || fail "the packages could not be installed (see above); try again with a network connection"
}

# Without a simulator everything else still runs, and the report says that no replay was.
install_simulator() {
  installed sim && return
  echo "installing the simulator into $venv (once; 0.8 GB to download, 2.1 GB on disk)" >&2
  install_extra sim || echo "warning: the simulator could not be installed (see above); going on without it" >&2
}

# The packages that the tokenizer, the exports and the cloud plug into; only tests need all of them.
install_integrations() {
  installed integrations && return
  echo "installing what the integrations are tested with into $venv (once; 0.4 GB on disk)" >&2
  install_extra integrations || fail "the packages could not be installed (see above); try again with a network connection"
}

installed() {
  [ -x "$python" ] && [ "$(cat "$venv/.installed-$1" 2>/dev/null)" = "$(wanted)" ]
}

# What was asked for, as a hash; written to a stamp after everything is installed.
wanted() {
  echo "$(cat "$repository/constraints.txt" "$repository/pyproject.toml" | cksum) $repository"
}

install_extra() {
  "$python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$repository/constraints.txt" --editable "$repository[$1]" &&
    wanted >"$venv/.installed-$1"
}

#!/usr/bin/env bash
# A SLURM of one node on loopback, with a munge of its own, all in one folder: for tests, and to try out --on slurm.
#
#   tests/slurm/one_node.sh start FOLDER    then: export SLURM_CONF=FOLDER/slurm.conf
#   tests/slurm/one_node.sh stop FOLDER
#
# Needs slurmctld, slurmd and munged (Debian: apt-get install slurmctld slurmd slurm-client munge).
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"

do="${1:-}"
folder="$(realpath "${2:?name a folder}")"
export SLURM_CONF="$folder/slurm.conf"

fail() {
  echo "error: $*" >&2
  exit 2
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start() {
  local host cores memory user
  for program in slurmctld slurmd sbatch munged; do
    command -v "$program" >/dev/null || fail "$program is not installed"
  done
  mkdir -p "$folder/state" "$folder/spool"
  chmod 755 "$folder" # munged and slurmd refuse a folder that others can write to
  host="$(hostname -s)"
  user="$(id -un)"
  cores="$(nproc --all)"
  memory="$(awk '/MemTotal/ {print int($2 / 2048)}' /proc/meminfo)"
  # KillWait and cred_expire are short, so that a test does not wait minutes for a job that is killed or queued again.
  cat >"$SLURM_CONF" <<EOF
ClusterName=here
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
SlurmUser=$user
SlurmdUser=$user
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF
  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" 2>>"$folder/munged.log" ||
    fail "munged does not start; see $folder/munged.log"
  slurmctld -f "$SLURM_CONF" || fail "slurmctld does not start; see $folder/slurmctld.log"
  slurmd -f "$SLURM_CONF" || fail "slurmd does not start; see $folder/slurmd.log"
  for _ in $(seq 60); do
    if [ "$(sinfo --noheader --format=%T)" = idle ]; then
      return
    fi
    sleep 0.5
  done
  fail "the node does not become idle; see $folder/slurmctld.log"
}

stop() {
  scancel --user="$(id -un)" || true
  local name
  for name in slurmd slurmctld munged; do
    if [ -f "$folder/$name.pid" ]; then
      kill "$(cat "$folder/$name.pid")" || true
    fi
  done
}

case "$do" in
  start) start ;;
  stop) stop ;;
  *) fail "say start or stop, and a folder" ;;
esac

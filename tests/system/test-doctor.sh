#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sparqctl doctor: with a daemon and without, as a caller who may not ask, in text and as JSON; what
# is wrong shows in the exit status; and the command that is printed for huge pages brings them.
#
#   test-doctor.sh BUILD-DIRECTORY
# shellcheck source=tests/system/functions.sh
source "$(dirname "$0")/functions.sh"
requires jq

# A service manager that says what a test wants it to say.
mkdir "$scratch/bin"
cat >"$scratch/bin/systemctl" <<'STUB'
#!/bin/sh
case "$*" in
"show -p Version") echo "Version=252.31-1" ;;
*FileDescriptorStoreMax*) printf 'LoadState=loaded\nFileDescriptorStoreMax=%s\n' "${STORE:-253}" ;;
*) exit 1 ;;
esac
STUB
cat >"$scratch/bin/sparqd" <<STUB
#!/bin/sh
exec "$build/daemon/sparqd" --config "$scratch/check.conf" "\$@"
STUB
chmod 755 "$scratch" "$scratch/bin" "$scratch/bin/"*
export PATH=$scratch/bin:$PATH SPARQD_PROGRAM=$scratch/bin/sparqd
echo 'pool_bytes = 16M
huge_pages = no' >"$scratch/check.conf"
chmod 644 "$scratch/check.conf"

# doctor STATUS [OPTION...]: its output in $said.
doctor() {
	local status=0
	said=$("$build/client/sparqctl" doctor --control "$scratch/control.sock" --socket "$socket" \
		"${@:2}" 2>&1) || status=$?
	[ "$status" = "$1" ] || fail "sparqctl doctor ended with $status, not $1: $said"
}
# verdict NAME: of the first check so called, from JSON.
verdict() { jq -r --arg n "$1" '[.checks[] | select(.name == $n)][0].verdict' <<<"$said"; }
remedy() { jq -r --arg n "$1" '[.checks[] | select(.name == $n)][0].remedy // empty' <<<"$said"; }

doctor 0
[[ $said == "checked by sparqd --check"* ]] || fail "nobody answers, and it says: $said"
grep -qE '^warning  daemon .*No such file' <<<"$said" || fail "no word of the daemon: $said"
grep -qE '^ok       systemd +version 252' <<<"$said" || fail "systemd: $said"
grep -qE '^0 wrong, [0-9]+ warnings, [0-9]+ unknown$' <<<"$said" || fail "no sum: $said"
if LC_ALL=C grep -q '[^[:print:]]' <<<"$said"; then fail "not plain text: $said"; fi
doctor 0 --json
[ "$(jq -r .checked_by <<<"$said")" = "sparqd --check" ] || fail "who: $said"
[ "$(verdict huge-pages) $(verdict kept)" = "ok ok" ] || fail "verdicts: $said"

# What would not start is wrong, and so is a unit that forgets.
echo 'pool_bytes = 1000000G' >"$scratch/check.conf"
doctor 1 --json
[ "$(verdict memory)" = wrong ] || fail "memory without end: $said"
echo 'pool_bytes = 16M' >"$scratch/check.conf"
STORE=0 doctor 1 --json
[ "$(verdict fd-store)" = wrong ] || fail "no descriptor store: $said"
[[ $(remedy fd-store) == *FileDescriptorStoreMax=253* ]] || fail "remedy: $(remedy fd-store)"
# Nobody to ask is not a machine without faults.
SPARQD_PROGRAM=$scratch/none doctor 1
[[ $said == *"/none cannot be run"* ]] || fail "no program: $said"
echo 'workers = many' >"$scratch/check.conf"
doctor 1
[[ $said == *"--check ended with status"* ]] || fail "a wrong file: $said"

start_daemon
doctor 0 --json
[ "$(jq -r .checked_by <<<"$said")" = "the daemon" ] || fail "who: $said"
[ "$(verdict memory) $(verdict huge-pages)" = "ok ok" ] || fail "verdicts of the daemon: $said"
jq -e '[.checks[] | select(.name == "memory")][0].text | endswith("taken")' <<<"$said" >/dev/null ||
	fail "the pool is there: $said"
[ "$(verdict kept)" = warning ] || fail "nobody keeps it: $said"
stop_daemon

if [ "$(id -u)" = 0 ]; then
	start_daemon
	chmod 600 "$scratch/control.sock" "$socket"
	echo 'pool_bytes = 16M' >"$scratch/check.conf"
	said=$(setpriv --reuid nobody --clear-groups "$build/client/sparqctl" doctor \
		--control "$scratch/control.sock" --socket "$socket") || fail "as nobody: $said"
	grep -A1 'daemon .*Permission denied' <<<"$said" | grep 'usermod -aG sparq-admin nobody' >/dev/null ||
		fail "no word of the group: $said"
	stop_daemon
fi

# The real command, in its own right: eight pages more on the first node, and back.
count=/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages
if [ ! -w $count ]; then
	echo "no root, or no nodes: the command for huge pages is not tried"
	exit 0
fi
exec 9</sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
flock 9
before=$(cat $count)
cleanup_fn "echo $before >$count"
free=$(cat ${count/nr_/free_})
cat >"$scratch/check.conf" <<CONF
pool_bytes = $(((free + 8) * 2 * $(find /sys/devices/system/node -maxdepth 1 -name 'node[0-9]*' | wc -l)))M
huge_pages = 2M
CONF
doctor 1 --json
[ "$(verdict huge-pages)" = wrong ] || fail "eight pages too few: $said"
[ "$(remedy huge-pages)" = "echo $((before + 8)) > $count" ] || fail "remedy: $(remedy huge-pages)"
jq -r '.checks[] | select(.name == "huge-pages") | .remedy // empty' <<<"$said" | sh
doctor 0 --json
[ "$(verdict huge-pages)" = ok ] || fail "the remedy does not mend it: $said"

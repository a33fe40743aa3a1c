#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A start that is stopped while the pool is filled: it tells the manager how far it is and asks for
# time, and a signal ends it there and then, with status 0 and without ever being ready.
#
#   test-stop-early.sh BUILD-DIRECTORY
# shellcheck source=tests/system/functions.sh
source "$(dirname "$0")/functions.sh"
requires python3

# More than a machine clears before the first report; if not, as it says, there is nothing to see.
cat >"$scratch/sparqd.conf" <<CONF
socket = $socket
control = $scratch/control.sock
pool_bytes = ${STOP_EARLY_POOL:-1536M}
huge_pages = no
catalogue_bytes = 16M
workers = 1
CONF

python3 - "$build/daemon/sparqd" "$scratch" <<'SCRIPT'
import os, re, signal, socket, subprocess, sys, time

daemon, scratch = sys.argv[1:]
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind(scratch + "/notify")
manager.settimeout(20)
child = subprocess.Popen([daemon, "--config", scratch + "/sparqd.conf"],
	env=dict(os.environ, NOTIFY_SOCKET=scratch + "/notify"))
seen, told = [], None
try:
	while told is None:
		text = manager.recv(4096).decode()
		seen.append(text)
		if text == "READY=1":
			print("this machine fills faster than it reports: skipped")
			child.send_signal(signal.SIGTERM)
			child.wait(30)
			sys.exit(77)
		m = re.match(r"STATUS=preparing memory: (\d+) %, [\d.]+ of [\d.]+ GiB at [\d.]+ GiB/s$", text)
		if m and int(m[1]) < 100:
			told = time.monotonic()
			child.send_signal(signal.SIGTERM)
	status = child.wait(20)
	took = time.monotonic() - told
	manager.setblocking(False)
	try:
		while True:
			seen.append(manager.recv(4096).decode())
	except BlockingIOError:
		pass
finally:
	child.kill()
print(f"ended {took * 1000:.0f} ms after the signal with status {status}; messages: {seen}")
extends = [m for m in seen if m.startswith("EXTEND_TIMEOUT_USEC=")]
assert status == 0, "status"
assert "READY=1" not in seen, "it was ready all the same"
assert extends, "it did not ask for time"
assert took < 5, "it did not end at once"
last = [m for m in seen if m.startswith("STATUS=preparing")][-1]
assert " 100 %" not in last, "it filled all of it"
SCRIPT
[ ! -S "$socket" ] || fail "the socket stayed"

#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The examples of sparqctl(1) are what a reader types first: each line of them works, over the
# conversation they speak of. The user they call alice is the one who runs this; the machine "there"
# is this one, without that conversation.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"
requires jq xargs
page=$(cd "$(dirname "$0")/../../man" && pwd)/sparqctl.1
export SPARQ_SOCKET=$socket SPARQ_CONTROL=$scratch/control.sock PATH=$scratch/bin:$build/client:$PATH

mkdir "$scratch/bin" "$scratch/there"
printf '#!/bin/sh\nexec cp "$1" %s\n' "$scratch/there" >"$scratch/bin/scp"
printf '#!/bin/sh\nshift; sparqctl drop --yes --cache chat turn-17; cd %s && exec "$@"\n' "$scratch/there" \
	>"$scratch/bin/ssh"
chmod +x "$scratch/bin/"*

start_daemon
"$build/tests/system/crowd" "$socket" chat 1 8 0 </dev/null >/dev/null || fail "no sequence"
cd "$scratch"
sparqctl save --cache chat s0 first.seq >/dev/null

# What the page shows, a line each.
awk '/^\.Sh/ { on = $2 == "EXAMPLES" } on && /^\.Ed/ { block = 0 } block; on && /^\.Bd/ { block = 1 }' "$page" |
	sed "s/^\\$ //; s/\\\\e/\\\\/g; s/alice/$(id -un)/g" >lines
[ "$(wc -l <lines)" -ge 8 ] || fail "the page has examples no more: $(cat lines)"
while read -r line <&8; do
	sparqctl sequences --cache chat --names | grep -x turn-17 >/dev/null ||
		sparqctl load --cache chat --name turn-17 first.seq >/dev/null
	bash -c "set -o pipefail; $line" >out 2>&1 </dev/null || {
		# What doctor finds amiss here is no fault of the line.
		[[ $line == *doctor* ]] || fail "$line: $(cat out)"
	}
	! grep -E '^sparqctl: |not found' out || fail "$line: $(cat out)"
done 8<lines
[ -s sparqd.prom ] || fail "no figures in sparqd.prom"
echo "$(wc -l <lines) examples work"
stop_daemon

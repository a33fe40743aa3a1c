#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# One run, interleaved: sparq-bench attend and its peers, 32 query heads, 8 KV heads, d = 128, one
# token, cold. Peers that are not built are left out; SDPA_GQA=1 adds PyTorch's enable_gqa (slow).
#
#   run.sh DIRECTORY SPARQ-BENCH [--seconds N] [--rounds N] [--seqlen N,...] [--threads N,...]
#          [--format NAME,...] [--budget N]
#
# DIRECTORY is what build.sh made.
set -euo pipefail
PEERS=${1:?the directory that build.sh made}
export PEERS
shift
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1 # huge pages for what the peers malloc
export OMP_WAIT_POLICY=active                # and no sleeping threads between steps
exec python3 - "$@" <<'PY'
import argparse, json, os, resource, statistics, subprocess, sys, time
a = argparse.ArgumentParser()
a.add_argument("bench")
a.add_argument("--seconds", default="0.4")
a.add_argument("--rounds", type=int, default=1)
a.add_argument("--seqlen", default="4096,16384,65536,131072")
a.add_argument("--threads", default="1,2")
a.add_argument("--format", default="f16,int8,hier4")
a.add_argument("--budget", type=float, default=235, help="seconds; cells after it are not begun")
a = a.parse_args()
drivers = os.environ["PEERS"] + "/"
peers = [p for p in ("sparqcpp", "atensdpa", "ggmlfa", "ikfa") if os.access(drivers + p, os.X_OK)]
start = time.time()
roof, rows, worst = {}, {}, 0.0

def busy():  # CPU seconds of all, from the first line of /proc/stat: all but idle and iowait
	f = [int(x) for x in open("/proc/stat").readline().split()[1:9]]
	return (sum(f) - f[3] - f[4]) / os.sysconf("SC_CLK_TCK")

def run(command):
	"""Its output, and how much CPU others (neighbours' steal included) used meanwhile, in CPUs."""
	b, t, c = busy(), time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
	p = subprocess.run(command, stdout=subprocess.PIPE, text=True)
	if p.returncode:
		print("FAILED:", " ".join(command), file=sys.stderr)
	d = resource.getrusage(resource.RUSAGE_CHILDREN)
	own = d.ru_utime + d.ru_stime - c.ru_utime - c.ru_stime
	return p.stdout if not p.returncode else "", max(0, busy() - b - own) / (time.time() - t)

def add(S, T, who, mode, median, least, mb, samples, sequences, others):
	global worst
	worst = max(worst, others)
	rows.setdefault((S, T, who, mode), []).append((median, least, mb, samples, sequences, others))

def ours(S, T):
	out, others = run([a.bench, "attend", "--json", "--seqlen", str(S), "--threads", str(T),
		"--heads", "32", "--kv-heads", "8", "--head-dim", "128", "--r", "32", "--k", "128",
		"--format", a.format, "--policy", "dense,sparq", "--seconds", a.seconds])
	for o in json.loads(out or "[]"):
		roof.setdefault(T, []).append(o["roofline_gbps"])
		mode = o["policy"] + " " + o["format"] + (" r=32 k=128" if o["policy"] == "sparq" else "")
		add(S, T, "sparqd", mode, o["median_ms"], o["min_ms"], o["bytes_read"] / 1e6, o["samples"],
			o["sequences"], others)
		isa.add(o["isa"])

def peer(program, S, T):
	out, others = run([drivers + program, str(S), str(T), a.seconds])
	for line in out.splitlines():
		who, mode, s, t, median, least, mb, samples, sequences = line.split("\t")
		add(S, T, who, mode, float(median), float(least), float(mb), int(samples), int(sequences), others)

isa = set()
lengths, threads = [[int(x) for x in l.split(",")] for l in (a.seqlen, a.threads)]
load = open("/proc/loadavg").read().split()[0]
for _ in range(a.rounds):
	for S in lengths:
		for T in threads:
			if time.time() - start > a.budget:
				print("NOT MEASURED, no time left:", S, "rows,", T, "thread(s)")
				continue
			ours(S, T)
			for p in peers:
				peer(p, S, T)
print(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "-", int(time.time() - start), "s, isa",
	",".join(isa),
		"- load before", load, "after", open("/proc/loadavg").read().split()[0],
		"- CPUs used by others, at most %.2f" % worst)
for T in sorted(roof):
	r = roof[T]
	print(f"read roofline, {T} thread(s): median {statistics.median(r):.1f}, best {max(r):.1f} GB/s "
			f"(of {len(set(r))} measurements)")
print("MB: what one step must read, each byte once. vs sparq, dense: the row's median over sparqd's "
		"sparq hier4 / dense f16.")
head = "%8s %2s  %-10s %-24s %10s %9s %8s %7s %7s %9s %9s %6s %4s %6s"
print(head % ("rows", "T", "what", "mode", "median ms", "min ms", "MB", "GB/s", "% roof", "vs sparq",
				"vs dense", "n", "seqs", "others"))
def median(key):
	return statistics.median(x[0] for x in rows[key]) if key in rows else float("nan")
last = None
for key in sorted(rows, key=lambda k: (k[0], k[1])):  # stable: in the order they ran
	S, T, who, mode = key
	if last not in (None, (S, T)): print()
	last = (S, T)
	m, least, x = median(key), min(r[1] for r in rows[key]), rows[key][-1]
	gbps = x[2] / m
	print(head % (S, T, who, mode, f"{m:.3f}", f"{least:.3f}", f"{x[2]:.2f}", f"{gbps:.1f}",
					f"{100 * gbps / max(roof.get(T, [float('nan')])):.0f}",
					f"{m / median((S, T, 'sparqd', 'sparq hier4 r=32 k=128')):.2f}",
					f"{m / median((S, T, 'sparqd', 'dense f16')):.2f}",
					sum(r[3] for r in rows[key]), x[4], f"{max(r[5] for r in rows[key]):.2f}"))
PY

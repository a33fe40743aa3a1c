// SPDX-License-Identifier: Apache-2.0
// What the C++ drivers of the peers share: the same rows and queries as sparq-bench attend
// (same generator, seeds and order), sequences that are in no cache, timing, one line of output.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <time.h>
#include <vector>

constexpr int HEADS = 32, KV_HEADS = 8, DIM = 128, GROUP = HEADS / KV_HEADS, QUERIES = 8;
constexpr size_t COLD_BYTES = 256u << 20;

inline double now_ms()
{
	timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}
inline float uniform(uint64_t &s)
{
	s = s * 6364136223846793005u + 1442695040888963407u;
	return (float)(int32_t)(s >> 32) * 0x1p-31f;
}
// Queries with heavy tails, as sparq-bench has them.
inline std::vector<float> make_queries()
{
	std::vector<float> q((size_t)QUERIES * HEADS * DIM);
	uint64_t s = 7;
	for (auto &v : q) {
		float x = uniform(s);
		v = 4 * x * x * x;
	}
	return q;
}
// Huge pages where the kernel gives them: kinder to the peer than 4 KiB pages.
inline void *big(size_t bytes)
{
	bytes = (bytes + (2u << 20) - 1) & ~((size_t)(2u << 20) - 1);
	void *p = aligned_alloc(2u << 20, bytes);
	if (!p) {
		fprintf(stderr, "no memory\n");
		exit(1);
	}
	madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}
inline size_t available_bytes()
{
	unsigned long kib = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "r");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "MemAvailable: %lu kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return (size_t)kib << 10;
}
// As many equal sequences that what a step reads of all of them is > 256 MiB.
inline unsigned sequences_for(size_t step_bytes, size_t each)
{
	size_t want = COLD_BYTES / step_bytes + 1, most = available_bytes() / 2 / each;
	return (unsigned)std::max<size_t>(1, std::min(want, most));
}
template <class Step> // step(sequence, query)
void measure(const char *peer, const char *mode, int S, int T, unsigned n, double mb,
	     double seconds, Step step)
{
	std::vector<double> ms;
	for (unsigned i = 0; i < n; i++)
		step(i, 0);
	double begin = now_ms();
	for (unsigned i = 0; ms.size() < 5 || now_ms() - begin < seconds * 1e3; i++) {
		double start = now_ms();
		step(i % n, i % QUERIES);
		ms.push_back(now_ms() - start);
	}
	std::sort(ms.begin(), ms.end());
	printf("%s\t%s\t%d\t%d\t%.4f\t%.4f\t%.2f\t%zu\t%u\n", peer, mode, S, T, ms[ms.size() / 2],
	       ms[0], mb, ms.size(), n);
	fflush(stdout);
}

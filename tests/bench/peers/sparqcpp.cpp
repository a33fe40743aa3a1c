// SPDX-License-Identifier: Apache-2.0
// sparq.cpp (graphcore-research/sparq-llama.cpp a77e327): sparq_halfp per query head, heads strided
// over threads as its ggml op does, query head h on KV head h / 4, K^T stored beside K and V.
//   sparqcpp SEQLEN THREADS SECONDS [R K]
#include "common.hpp"
#include <atomic>
#include <cmath>
#include <immintrin.h>
#include <sched.h>
#include <sparq.h>
#include <thread>

struct sequence {
	uint16_t *k, *kt, *v;
};

static int S, T, R = 32, K = 128;
static std::vector<float> queries, out(HEADS *DIM);

static uint16_t half(float x)
{
	return _cvtss_sh(x, 0);
}

static sequence allocate()
{
	size_t n = (size_t)KV_HEADS * S * DIM * 2;
	return { (uint16_t *)big(n), (uint16_t *)big(n), (uint16_t *)big(n) };
}
static void release(const sequence &s)
{
	free(s.k);
	free(s.kt);
	free(s.v);
}
static void fill(sequence &s)
{
	uint64_t random = 1;
	for (int row = 0; row < S; row++)
		for (int plane = 0; plane < 2; plane++)
			for (int h = 0; h < KV_HEADS; h++) {
				uint16_t *to = (plane ? s.v : s.k) + ((size_t)h * S + row) * DIM;
				for (int c = 0; c < DIM; c++)
					to[c] = half(uniform(random));
			}
	for (int h = 0; h < KV_HEADS; h++)
		for (int r0 = 0; r0 < S; r0 += 64)
			for (int c = 0; c < DIM; c++)
				for (int r = r0; r < std::min(S, r0 + 64); r++)
					s.kt[((size_t)h * DIM + c) * S + r] =
						s.k[((size_t)h * S + r) * DIM + c];
}
static sequence clone(const sequence &from)
{
	size_t n = (size_t)KV_HEADS * S * DIM * 2;
	sequence s = allocate();
	memcpy(s.k, from.k, n), memcpy(s.kt, from.kt, n), memcpy(s.v, from.v, n);
	return s;
}

static void head(const sequence &s, const float *q, int h, int r, int k, float *o)
{
	size_t at = (size_t)(h / GROUP) * S * DIM;
	sparq_halfp(q + h * DIM, s.k + at, DIM, s.kt + at, S, s.v + at, DIM, nullptr, 0, S, DIM, r,
		    k, o);
}

// ---- threads that wait spinning -------------------------------------------------------------
static std::atomic<unsigned> round_no{ 0 }, away{ 0 };
static std::atomic<bool> stop{ false };
static struct {
	const sequence *s;
	const float *q;
	int r, k;
} job;

static void share(int t)
{
	for (int h = t; h < HEADS; h += T)
		head(*job.s, job.q, h, job.r, job.k, &out[h * DIM]);
}
static void wait_spinning(auto ready)
{
	for (unsigned spins = 1; !ready(); spins++)
		if (spins % 4096 == 0)
			sched_yield();
}
static void member(int t)
{
	for (unsigned seen = 0;;) {
		wait_spinning([&] {
			return round_no.load(std::memory_order_acquire) != seen || stop.load();
		});
		if (stop)
			return;
		seen = round_no.load();
		share(t);
		away.fetch_sub(1, std::memory_order_release);
	}
}
static void run(const sequence &s, const float *q, int r, int k)
{
	job = { &s, q, r, k };
	away = T - 1;
	round_no.fetch_add(1, std::memory_order_release);
	share(0);
	wait_spinning([] { return away.load(std::memory_order_acquire) == 0; });
}

// ---- the driver is right: against doubles, and SparQ with everything selected is dense -------
static void check(const sequence &s)
{
	float dense[DIM], all[DIM];
	double worst = 0, worst_all = 0;
	for (int h = 0; h < HEADS; h += 13) {
		std::vector<double> p(S), o(DIM, 0);
		size_t at = (size_t)(h / GROUP) * S * DIM;
		double sum = 0;
		for (int n = 0; n < S; n++) {
			double x = 0;
			for (int c = 0; c < DIM; c++)
				x += queries[h * DIM + c] *
				     _cvtsh_ss(s.k[at + (size_t)n * DIM + c]);
			sum += p[n] = std::exp(x / std::sqrt((double)DIM));
		}
		for (int n = 0; n < S; n++)
			for (int c = 0; c < DIM; c++)
				o[c] += p[n] / sum * _cvtsh_ss(s.v[at + (size_t)n * DIM + c]);
		head(s, queries.data(), h, 0, 0, dense);
		head(s, queries.data(), h, DIM, S, all);
		for (int c = 0; c < DIM; c++) {
			worst = std::max(worst, std::abs(dense[c] - o[c]));
			worst_all = std::max(worst_all, (double)std::abs(dense[c] - all[c]));
		}
	}
	if (worst > 1e-4 || worst_all > 1e-4) {
		fprintf(stderr, "wrong: dense %g, all rows %g\n", worst, worst_all);
		exit(1);
	}
}

static size_t sparq_bytes()
{ // unique: union of the channels of a group, plus gathered rows
	size_t rows = 0;
	for (int g = 0; g < KV_HEADS; g++) {
		bool used[DIM] = {};
		for (int h = g * GROUP; h < (g + 1) * GROUP; h++)
			for (auto &p : sparq_topk(&queries[h * DIM], DIM, R, true))
				used[p.first] = true;
		rows += std::count(used, used + DIM, true);
	}
	return rows * S * 2 + (size_t)HEADS * std::min(K, S) * DIM * 2 * 2;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return fprintf(stderr, "sparqcpp SEQLEN THREADS SECONDS [R K]\n"), 2;
	S = atoi(argv[1]), T = atoi(argv[2]);
	double seconds = atof(argv[3]);
	if (argc > 5)
		R = atoi(argv[4]), K = atoi(argv[5]);
	queries = make_queries();
	std::vector<sequence> seqs{ allocate() };
	fill(seqs[0]);
	if (S <= 4096)
		check(seqs[0]);
	size_t each = (size_t)KV_HEADS * S * DIM * 2 * 3, dense = each / 3 * 2,
	       sparse = sparq_bytes();
	unsigned n_dense = sequences_for(dense, each), n = sequences_for(sparse, each);
	while (seqs.size() < std::max(n, n_dense))
		seqs.push_back(clone(seqs[0]));
	std::vector<std::thread> threads;
	for (int t = 1; t < T; t++)
		threads.emplace_back(member, t);
	auto q = [](unsigned i) { return &queries[(size_t)i * HEADS * DIM]; };
	measure("sparq.cpp", "dense f16", S, T, n_dense, dense / 1e6, seconds,
		[&](unsigned i, unsigned j) { run(seqs[i], q(j), 0, 0); });
	char mode[64];
	snprintf(mode, sizeof mode, "sparq f16 r=%d k=%d", R, K);
	measure("sparq.cpp", mode, S, T, n, sparse / 1e6, seconds,
		[&](unsigned i, unsigned j) { run(seqs[i], q(j), R, K); });
	stop = true;
	for (auto &t : threads)
		t.join();
	for (auto &s : seqs)
		release(s);
}

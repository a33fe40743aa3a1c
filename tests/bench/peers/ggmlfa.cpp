// SPDX-License-Identifier: Apache-2.0
// Flash attention of ggml, or with -DIK_LLAMA of ik_llama.cpp's ggml (IQK kernels), on the graph
// API of its CPU back end; graph and plan made once a sequence.
//   ggmlfa SEQLEN THREADS SECONDS
#include "common.hpp"
#include <cmath>
#include <ggml.h>
#ifndef IK_LLAMA
#include <ggml-cpu.h>
#endif

#ifdef IK_LLAMA
static const char *const peer = "ik_llama";
static const ggml_type types[] = { GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0 };

static ggml_to_float_t to_float(ggml_type type)
{
	return ggml_internal_get_type_traits(type).to_float;
}
static void quantize(ggml_type type, const float *from, void *to)
{
	ggml_quantize_chunk(type, from, to, 0, 1, DIM, nullptr, nullptr);
}
struct pool { // it has none
	explicit pool(int) {}
	ggml_cplan plan(ggml_cgraph *graph, int threads)
	{
		return ggml_graph_plan(graph, threads);
	}
};
#else
static const char *const peer = "ggml FA";
static const ggml_type types[] = { GGML_TYPE_F16, GGML_TYPE_Q4_0 };

static ggml_to_float_t to_float(ggml_type type)
{
	return ggml_get_type_traits(type)->to_float;
}
static void quantize(ggml_type type, const float *from, void *to)
{
	ggml_quantize_chunk(type, from, to, 0, 1, DIM, nullptr);
}
struct pool {
	ggml_threadpool *threads;
	explicit pool(int n)
	{
		ggml_threadpool_params params = ggml_threadpool_params_default(n);
		threads = ggml_threadpool_new(&params);
	}
	~pool()
	{
		ggml_threadpool_free(threads);
	}
	ggml_cplan plan(ggml_cgraph *graph, int n)
	{
		return ggml_graph_plan(graph, n, threads);
	}
};
#endif

struct sequence {
	ggml_context *ctx;
	ggml_cgraph *graph;
	ggml_tensor *q, *k, *v, *out;
};

static ggml_tensor *tensor(ggml_context *c, ggml_type type, int64_t a, int64_t b, int64_t d)
{
	ggml_tensor *t = ggml_new_tensor_3d(c, type, a, b, d);
	t->data = big(ggml_nbytes(t));
	return t;
}
static sequence make(ggml_context *ctx, ggml_type type, int S, ggml_tensor **mask)
{
	sequence s;
	s.ctx = ctx;
	s.q = tensor(s.ctx, GGML_TYPE_F32, DIM, 1, HEADS);
	s.k = tensor(s.ctx, type, DIM, S, KV_HEADS);
	s.v = tensor(s.ctx, type, DIM, S, KV_HEADS);
	if (!*mask) {
		// As llama.cpp passes one; nothing is masked.
		*mask = tensor(s.ctx, GGML_TYPE_F16, S, 64, 1);
		memset((*mask)->data, 0, ggml_nbytes(*mask));
	}
	s.out = ggml_flash_attn_ext(s.ctx, s.q, s.k, s.v, *mask, 1 / std::sqrt((float)DIM), 0, 0);
	ggml_flash_attn_ext_set_prec(s.out, GGML_PREC_F32);
	s.out->data = big(ggml_nbytes(s.out));
	s.graph = ggml_new_graph_custom(s.ctx, 16, false);
	ggml_build_forward_expand(s.graph, s.out);
	return s;
}
// The same rows as the other drivers: K of all heads, then V, row by row.
static void fill(sequence &s, ggml_type type, int S)
{
	uint64_t random = 1;
	std::vector<float> x((size_t)2 * KV_HEADS * DIM);
	for (int row = 0; row < S; row++) {
		for (auto &v : x)
			v = uniform(random);
		for (int i = 0; i < 2 * KV_HEADS; i++) {
			ggml_tensor *t = i < KV_HEADS ? s.k : s.v;
			char *to = (char *)t->data + (i % KV_HEADS) * t->nb[2] + row * t->nb[1];
			quantize(type, &x[(size_t)i * DIM], to);
		}
	}
}
static void check(const sequence &s, ggml_type type, const std::vector<float> &q, int S)
{
	ggml_to_float_t widen = to_float(type);
	double worst = 0;
	std::vector<float> row(DIM);
	for (int h = 0; h < HEADS; h += 13) {
		std::vector<double> p(S), o(DIM, 0);
		double sum = 0;
		for (int pass = 0; pass < 2; pass++)
			for (int n = 0; n < S; n++) {
				ggml_tensor *t = pass ? s.v : s.k;
				widen((char *)t->data + (h / GROUP) * t->nb[2] + n * t->nb[1],
				      row.data(), DIM);
				double x = 0;
				for (int c = 0; c < DIM; c++)
					if (pass)
						o[c] += p[n] / sum * row[c];
					else
						x += q[h * DIM + c] * row[c];
				if (!pass)
					sum += p[n] = std::exp(x / std::sqrt((double)DIM));
			}
		for (int c = 0; c < DIM; c++)
			worst = std::max(worst,
					 std::abs(o[c] - ((float *)s.out->data)[h * DIM + c]));
	}
	if (getenv("VERBOSE"))
		fprintf(stderr, "worst %g\n", worst);
	if (worst > 2e-2)
		fprintf(stderr, "wrong: %s %g\n", ggml_type_name(type), worst), exit(1);
}
static void bench(ggml_type type, int S, int T, double seconds)
{
	std::vector<float> q = make_queries();
	ggml_tensor *mask = nullptr;
	ggml_context *ctx = ggml_init({ 64 << 20, nullptr, true }); // there are 64 of them at most
	std::vector<sequence> seqs{ make(ctx, type, S, &mask) };
	fill(seqs[0], type, S);
	size_t each = ggml_nbytes(seqs[0].k) * 2;
	unsigned n = sequences_for(each, each);
	while (seqs.size() < n) {
		sequence s = make(ctx, type, S, &mask);
		memcpy(s.k->data, seqs[0].k->data, each / 2),
			memcpy(s.v->data, seqs[0].v->data, each / 2);
		seqs.push_back(s);
	}
	struct pool pool(T);
	std::vector<ggml_cplan> plan;
	std::vector<uint8_t> work;
	for (auto &s : seqs) {
		plan.push_back(pool.plan(s.graph, T));
		work.resize(std::max(work.size(), plan.back().work_size));
	}
	for (auto &p : plan)
		p.work_data = work.data();
	auto step = [&](unsigned i, unsigned j) {
		memcpy(seqs[i].q->data, &q[(size_t)j * HEADS * DIM], HEADS * DIM * 4);
		ggml_graph_compute(seqs[i].graph, &plan[i]);
	};
	if (S <= 4096)
		step(0, 0), check(seqs[0], type, q, S);
	char mode[64];
	snprintf(mode, sizeof mode, "dense %s", ggml_type_name(type));
	measure(peer, mode, S, T, n, each / 1e6, seconds, step);
	for (auto &s : seqs)
		free(s.k->data), free(s.v->data);
	ggml_free(ctx);
}
int main(int argc, char **argv)
{
	if (argc < 4)
		return fprintf(stderr, "ggmlfa SEQLEN THREADS SECONDS\n"), 2;
#ifndef IK_LLAMA
	ggml_cpu_init();
#endif
	for (ggml_type type : types)
		bench(type, atoi(argv[1]), atoi(argv[2]), atof(argv[3]));
}

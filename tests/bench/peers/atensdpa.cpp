// SPDX-License-Identifier: Apache-2.0
// PyTorch's scaled_dot_product_attention, dense, from C++ (the ATen of the wheel, CPU only).
//   atensdpa SEQLEN THREADS SECONDS
#include "common.hpp"
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

static at::Tensor sdpa(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v)
{
	// A group's query heads as query rows of its KV head: the same sum, and K and V are read
	// once a group. Faster here than enable_gqa, which repeats K and V.
	auto grouped = q.view({ 1, KV_HEADS, GROUP, DIM });
	return at::scaled_dot_product_attention(grouped, k, v).reshape({ 1, HEADS, 1, DIM });
}
static at::Tensor sdpa_gqa(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v)
{
	return at::scaled_dot_product_attention(q, k, v, {}, 0.0, false, std::nullopt,
						/*enable_gqa=*/true);
}

static void bench(at::ScalarType type, const char *name, int S, int T, double seconds)
{
	auto q32 = make_queries();
	auto q = at::from_blob(q32.data(), { QUERIES, 1, HEADS, 1, DIM }).to(type);
	size_t each = (size_t)2 * KV_HEADS * S * DIM * at::elementSize(type);
	unsigned n = sequences_for(each, each);
	std::vector<at::Tensor> k, v;
	for (unsigned i = 0; i < n; i++) {
		auto make = [&] {
			auto t = at::from_blob(
				big(each / 2), { 1, KV_HEADS, S, DIM }, [](void *p) { free(p); },
				at::TensorOptions().dtype(type));
			return t;
		};
		k.push_back(make()), v.push_back(make());
		if (i)
			k[i].copy_(k[0]), v[i].copy_(v[0]);
		else
			k[0].uniform_(-1, 1), v[0].uniform_(-1, 1);
	}
	if (S <= 4096) {
		auto a = sdpa(q[0], k[0], v[0]).to(at::kFloat),
		     b = sdpa_gqa(q[0], k[0], v[0]).to(at::kFloat);
		auto kf = k[0].to(at::kDouble).repeat_interleave(GROUP, 1),
		     vf = v[0].to(at::kDouble).repeat_interleave(GROUP, 1);
		auto p = at::softmax(at::matmul(q[0].to(at::kDouble), kf.transpose(2, 3)) /
					     std::sqrt((double)DIM),
				     -1);
		auto o = at::matmul(p, vf).to(at::kFloat);
		double ea = (a - o).abs().max().item<float>(),
		       eb = (b - o).abs().max().item<float>();
		double most = type == at::kFloat ? 1e-4 : 2e-2;
		if (ea > most || eb > most)
			fprintf(stderr, "wrong: %s %g %g\n", name, ea, eb), exit(1);
	}
	char mode[64];
	snprintf(mode, sizeof mode, "dense %s", name);
	measure("PyTorch", mode, S, T, n, each / 1e6, seconds,
		[&](unsigned i, unsigned j) { sdpa(q[j], k[i], v[i]); });
	if (getenv("SDPA_GQA")) {
		snprintf(mode, sizeof mode, "dense %s enable_gqa", name);
		measure("PyTorch", mode, S, T, n, each / 1e6, seconds,
			[&](unsigned i, unsigned j) { sdpa_gqa(q[j], k[i], v[i]); });
	}
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return fprintf(stderr, "atensdpa SEQLEN THREADS SECONDS\n"), 2;
	int S = atoi(argv[1]), T = atoi(argv[2]);
	c10::InferenceMode guard;
	at::set_num_threads(T);
	bench(at::kBFloat16, "bf16", S, T, atof(argv[3]));
	bench(at::kFloat, "f32", S, T, atof(argv[3]));
}

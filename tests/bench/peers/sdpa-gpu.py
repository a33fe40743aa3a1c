#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's scaled_dot_product_attention on a GPU, beside `sparq-bench --device`.

    tests/bench/peers/sdpa-gpu.py [--device cuda:0] [--seconds 1]

The same shapes as sparq-bench's lines of dense f16: one new row, 32 query heads, d = 128, f16. Of
each back end that PyTorch has for them the median of event timings, K and V in turn among sets that
are larger together than four times the cache of the device; the best one is what a ratio is of.
Grouped heads go to back ends that take them as they are (enable_gqa), and as query rows of their KV
head, which reads K and V once as well.
"""
import argparse
import statistics
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

HEADS, DIM = 32, 128
CASES = [(131072, 1, 8), (32768, 16, 8), (32768, 64, 8), (4096, 64, 32)]
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION,
            SDPBackend.MATH]


def grouped(q, k, v):
    batch, kv_heads = k.shape[:2]
    rows = q.view(batch, kv_heads, HEADS // kv_heads, DIM)
    return scaled_dot_product_attention(rows, k, v).reshape(batch, HEADS, 1, DIM)


def as_they_are(q, k, v):
    return scaled_dot_product_attention(q, k, v, enable_gqa=k.shape[1] != HEADS)


def time_one(call, q, sets, seconds):
    for i in range(3):
        call(q, *sets[i % len(sets)])
    torch.cuda.synchronize()
    samples, begin = [], time.monotonic()
    while len(samples) < 10 or (time.monotonic() - begin < seconds and len(samples) < 2000):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call(q, *sets[len(samples) % len(sets)])
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end))
    return statistics.median(samples)


def measure(device, rows, batch, kv_heads, seconds):
    shape = (batch, kv_heads, rows, DIM)
    each = 2 * 2 * batch * kv_heads * rows * DIM
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    room = torch.cuda.mem_get_info(device)[0] * 8 // 10
    n = max(1, min(4 * cache // each + 2, room // each))
    sets = [tuple(torch.empty(shape, dtype=torch.float16, device=device).uniform_(-1, 1) for _ in "kv")
            for _ in range(n)]
    q = torch.randn((batch, HEADS, 1, DIM), dtype=torch.float16, device=device)
    for backend in BACKENDS:
        for name, call in (("gqa", as_they_are), ("grouped", grouped)):
            try:
                with sdpa_kernel(backend):
                    ms = time_one(call, q, sets, seconds)
            except RuntimeError as error:  # it has no kernel for this shape, or no memory
                print(f"{rows:7} {batch:5} {kv_heads:8} {backend.name:20} {name:8} absent: "
                      f"{str(error).splitlines()[0][:60]}")
                continue
            print(f"{rows:7} {batch:5} {kv_heads:8} {backend.name:20} {name:8} {ms:9.4f} ms "
                  f"{each / ms / 1e6:8.1f} GB/s")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--device", default="cuda:0")
    options.add_argument("--seconds", type=float, default=1)
    given = options.parse_args()
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name(given.device)}, "
          f"CUDA {torch.version.cuda}")
    print("   rows batch kv heads back end             heads    median")
    with torch.inference_mode():
        for rows, batch, kv_heads in CASES:
            measure(given.device, rows, batch, kv_heads, given.seconds)
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

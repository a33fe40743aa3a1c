#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Fetches, at the commits that the figures are of, and builds what sparq-bench is compared with, and
# the drivers in this folder. Needs git, cmake, ninja, g++ and pip; a peer that is there already is
# kept. Nothing is installed.
#
#   build.sh DIRECTORY [sparqcpp|torch|ggml|ik]...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?where to build}"
cd "$1"
shift
[ $# -gt 0 ] || set -- sparqcpp torch ggml ik
cxx=(g++ -std=c++20 -O3 -march=native -w "-I$here")

# checkout OWNER/NAME COMMIT DIRECTORY
checkout() {
	[ -d "$3" ] && return
	git init -q "$3"
	git -C "$3" fetch -q --depth 1 "https://github.com/$1" "$2"
	git -C "$3" checkout -q FETCH_HEAD
}

# cmake_build DIRECTORY OPTION...
cmake_build() {
	local source=$1
	shift
	cmake -S "$source" -B "$source/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
		-DGGML_NATIVE=ON -DGGML_OPENMP=ON -DBUILD_SHARED_LIBS=OFF "$@"
	ninja -C "$source/build"
}

build_sparqcpp() {
	checkout graphcore-research/sparq-llama.cpp a77e327ddf74e5e0cb08812a131c8bcd0a71689f \
		sparq-llama
	"${cxx[@]}" -Isparq-llama -o sparqcpp "$here/sparqcpp.cpp" sparq-llama/sparq.cpp -pthread
}

# The wheel's CPU library from C++; the two CUDA libraries only satisfy the loader.
build_torch() {
	local lib="$PWD/torch/torch/lib" cuda="$PWD/torch/nvidia/cu13/lib"
	if [ ! -d torch ]; then
		pip install -q --no-deps --target torch torch==2.15.0 \
			nvidia-cuda-runtime==13.2.86 nvidia-cuda-cupti==13.2.86
	fi
	"${cxx[@]}" -o atensdpa "$here/atensdpa.cpp" -Itorch/torch/include "-L$lib" \
		"-Wl,-rpath,$lib:$cuda" "-Wl,-rpath-link,$cuda" -Wl,--no-as-needed -ltorch_cpu -lc10
}

build_ggml() {
	checkout ggml-org/ggml d99724f2b141fed9e1a9f402213506c081433465 ggml
	cmake_build ggml -DGGML_BUILD_TESTS=OFF -DGGML_BUILD_EXAMPLES=OFF
	"${cxx[@]}" -o ggmlfa "$here/ggmlfa.cpp" -Iggml/include ggml/build/src/libggml-cpu.a \
		ggml/build/src/libggml-base.a -fopenmp -pthread -ldl
}

# Only its ggml, which has no project of its own any more.
build_ik() {
	checkout ikawrakow/ik_llama.cpp 8337e4cd3861406fc04e0854b1409cd1b027fbc9 ik_llama
	mkdir -p ik
	cat >ik/CMakeLists.txt <<-'END'
		cmake_minimum_required(VERSION 3.14)
		project(ik C CXX)
		set(CMAKE_CXX_STANDARD 20)
		set(CMAKE_MODULE_PATH ${CMAKE_CURRENT_SOURCE_DIR}/../ik_llama/ggml/cmake)
		add_subdirectory(../ik_llama/ggml ggml)
	END
	cmake_build ik -DGGML_IQK_FLASH_ATTENTION=ON -DGGML_IQK_FA_ALL_QUANTS=ON -DGGML_CCACHE=OFF
	"${cxx[@]}" -DIK_LLAMA -o ikfa "$here/ggmlfa.cpp" -Iik_llama/ggml/include \
		ik/build/ggml/src/libggml.a -fopenmp -pthread -ldl
}

for peer; do
	"build_$peer"
done

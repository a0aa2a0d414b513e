#!/usr/bin/env bash
# Fuzzes the readers of untrusted files: the safetensors reader (clang's libFuzzer with AddressSanitizer and UBSan), then the
# config reader (fuzz/config-fuzz.mjs).
#
#   fuzz/run.sh SECONDS        each reader so long; the corpus grows in fuzz/corpus, findings land in build/fuzz, libFuzzer's log in
#                              build/fuzz/safetensors.log
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-120}
clang=${CLANGXX:-$(command -v clang++ || command -v clang++-14 || ls /usr/bin/clang++-* 2>/dev/null | sort -V | tail -1 || true)}
if [ -z "$clang" ]; then
  echo "fuzz/run.sh: no clang++ found; install clang (Debian: apt-get install clang-14 libclang-rt-14-dev)" >&2
  exit 2
fi
mkdir -p build/fuzz fuzz/corpus/safetensors
node fuzz/seeds.mjs build/fuzz/seeds
"$clang" -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -Inative \
  fuzz/safetensors.cc native/io/safetensors.cc native/io/header_reader.cc -o build/fuzz/safetensors
if ! build/fuzz/safetensors -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 -max_len=8192 -dict=fuzz/safetensors.dict \
  -artifact_prefix=build/fuzz/ -print_final_stats=1 fuzz/corpus/safetensors build/fuzz/seeds >build/fuzz/safetensors.log 2>&1; then
  tail -n 60 build/fuzz/safetensors.log
  exit 1
fi
grep -E "^(#[0-9]+\s+DONE|Done|stat::number_of_executed_units)" build/fuzz/safetensors.log
node fuzz/config-fuzz.mjs "$seconds"

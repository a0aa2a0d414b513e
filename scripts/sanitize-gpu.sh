#!/usr/bin/env bash
# compute-sanitizer over the tests of all operations on a GPU (--brief: each kernel, few repetitions): memcheck and racecheck, each with
# float32 and bfloat16 activations.
#
#   scripts/sanitize-gpu.sh [OPERATION …]        default: all
#
# One line a process; ends with 1 if any found an error, failed a test or did not finish, 2 if it cannot run at all. Environment:
#   KERNELS    the program (default build/kernels; built with -DLONGCAT_CUDA_LINEINFO=ON its reports name source lines)
#   SANITIZER  compute-sanitizer (default: in PATH, or CUDA's own folder)
#   TOOLS      default "memcheck racecheck"
#   ISAS       default "cuda cuda-bf16"
#   JOBS       processes at once (default: the processors, at most 16)
#   LIMIT      seconds that a process may take (default 200); one that does not finish is told, and counts as failed
#   LOGS       where the reports of processes go (default: a temporary folder, kept if anything failed)
set -u
cd "$(dirname "$0")/.."

KERNELS=${KERNELS:-build/kernels}
TOOLS=${TOOLS:-memcheck racecheck}
ISAS=${ISAS:-cuda cuda-bf16}
LIMIT=${LIMIT:-200}
cores=$(nproc)
JOBS=${JOBS:-$((cores < 16 ? cores : 16))}
SANITIZER=${SANITIZER:-$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer /usr/local/cuda*/compute-sanitizer/compute-sanitizer 2>/dev/null | head -n 1)}

[ -x "$KERNELS" ] || { echo "sanitize-gpu: there is no $KERNELS: build it, or name it in KERNELS" >&2; exit 2; }
[ -n "$SANITIZER" ] && [ -x "$SANITIZER" ] || { echo "sanitize-gpu: there is no compute-sanitizer: install it, or name it in SANITIZER" >&2; exit 2; }
plain=$("$KERNELS" test embed --device cuda 2>&1) || { printf 'sanitize-gpu: even without compute-sanitizer, %s fails:\n%s\n' "$KERNELS" "$plain" >&2; exit 2; }

# Operations whose tests launch much: PROCESSES of LAUNCHES each, the last with all that is left.
pieces() {
  case $1 in
    linear) echo "6 300" ;;
    mla_prefill | mla_decode | swiglu_mlp | moe_experts) echo "3 150" ;;
    sample) echo "3 100" ;;
    *) echo "1 0" ;;
  esac
}

# tool isa operation skip count (0: all that is left); those of one process first, so that what is short is done before what is long.
list() {
  for op in "$@"; do
    read -r processes launches <<<"$(pieces "$op")"
    for tool in $TOOLS; do
      for isa in $ISAS; do
        for ((i = 0; i < processes; ++i)); do
          echo "$processes $tool $isa $op $((i * launches)) $((i + 1 < processes ? launches : 0))"
        done
      done
    done
  done | sort -s -k1,1n | cut -d ' ' -f 2-
}

one() {
  local tool=$1 isa=$2 op=$3 skip=$4 count=$5 range verdict
  local log=$LOGS/$tool-$isa-$op-$skip.log begin=$SECONDS
  local command=("$SANITIZER" --tool "$tool" --error-exitcode 99 --launch-skip "$skip")
  range="launches $skip to $((skip + count - 1))"
  if [ "$count" -gt 0 ]; then command+=(--launch-count "$count"); else range="launches from $skip"; fi
  timeout --kill-after=5 "$LIMIT" "${command[@]}" "$KERNELS" test "$op" --device cuda --isa "$isa" --threads 1 --no-guards --brief >"$log" 2>&1
  local code=$?
  local summary
  summary=$(grep -E "SUMMARY" "$log" | tail -n 1 | sed 's/^=* *//')
  case $code in
    0) if grep -qE "SUMMARY: 0 (errors|hazards)" "$log"; then verdict="ok"; else verdict="FAILED (no clean summary)"; fi ;;
    99) verdict="FAILED" ;;
    124 | 137) verdict="NOT FINISHED in $LIMIT s" ;;
    *) verdict="FAILED (the tests ended with $code)" ;;
  esac
  printf '%-9s %-9s %-14s %-22s %4d s  %s%s\n' "$tool" "$isa" "$op" "$range" $((SECONDS - begin)) "$verdict" "${summary:+: $summary}"
  if [ "$verdict" != ok ]; then echo "$log" >>"$LOGS/failed"; fi
}

own=${LOGS:-}
LOGS=${LOGS:-$(mktemp -d)}
mkdir -p "$LOGS"
rm -f "$LOGS/failed"
if [ $# -eq 0 ]; then set -- convert $(cd native/ops && ls -d */ | tr -d /); fi

total=0
while read -r work; do
  while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
  # shellcheck disable=SC2086
  one $work &
  total=$((total + 1))
done < <(list "$@")
wait

if [ ! -s "$LOGS/failed" ]; then
  echo "$total processes in $SECONDS s, all clean"
  [ -n "$own" ] || rm -r "$LOGS"
  exit 0
fi
echo "$total processes in $SECONDS s, $(wc -l <"$LOGS/failed") failed; their reports:"
sort "$LOGS/failed"
exit 1

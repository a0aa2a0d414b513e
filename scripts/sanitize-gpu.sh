#!/usr/bin/env bash
# compute-sanitizer over the operations' tests on a GPU (kernels test --brief: every kernel, few repetitions), a process for each test.
#
#   scripts/sanitize-gpu.sh [OPERATION …]     default: all that have kernels
#   scripts/sanitize-gpu.sh --controls        what racecheck makes of Hopper's ways to order accesses, as a table (docs/kernels.md, Sanitizers)
#
# Passes are BODIES:TOOL. `portable` are the kernels that all cards have (capability 9.0 has them by --portable), with float32 and bfloat16
# activations. `hopper` are the kernels of capability 9.0, with bfloat16 activations; elsewhere their passes are left out. Racecheck sees some of
# Hopper's ways to order accesses and takes others for races (--controls): its reports of those kernels count only where it understands all that
# the kernel does ($judged below); others are numbered, and decide nothing.
#
# One line a process, then what was not covered. Ends with 1 if any found an error, failed a test or did not finish, 2 if it cannot run at all.
# Environment:
#   KERNELS    the program (default build/kernels; built with -DLONGCAT_CUDA_LINEINFO=ON its reports name source lines)
#   CONTROLS   for --controls (default build/racecheck_controls: cmake --build build --target racecheck_controls)
#   SANITIZER  compute-sanitizer (default: in PATH, or CUDA's own folder)
#   PASSES     default "portable:racecheck portable:memcheck hopper:memcheck hopper:synccheck hopper:racecheck"
#   ISAS       of the portable passes (default "cuda cuda-bf16")
#   HOPPER_RACECHECK=all   hopper:racecheck over all operations, not only those with a kernel that it can judge
#   JOBS       processes at once (default: the processors, at most 16)
#   LIMIT      seconds that a process may take (default 200); one that does not finish is told, and counts as failed
#   LOGS       where the reports of processes go (default: a temporary folder, kept if anything failed)
set -u
case ${1:-} in -h | --help) sed -n '2,/^set/{/^set/d; s/^# \{0,1\}//; p}' "$0" && exit 0 ;; esac
cd "$(dirname "$0")/.."

KERNELS=${KERNELS:-build/kernels}
CONTROLS=${CONTROLS:-build/racecheck_controls}
PASSES=${PASSES:-portable:racecheck portable:memcheck hopper:memcheck hopper:synccheck hopper:racecheck}
ISAS=${ISAS:-cuda cuda-bf16}
HOPPER_RACECHECK=${HOPPER_RACECHECK:-judged}
LIMIT=${LIMIT:-200}
cores=$(nproc)
JOBS=${JOBS:-$((cores < 16 ? cores : 16))}
SANITIZER=${SANITIZER:-$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer /usr/local/cuda*/compute-sanitizer/compute-sanitizer 2>/dev/null | head -n 1)}

allPasses=({portable,hopper}:{memcheck,racecheck,synccheck})
ofHopper=" linear mla_decode mla_prefill mla_project moe_experts moe_route ngram_embed sample swiglu_mlp "  # operations with kernels of its own
judged="chooseByTeams|mergeUnitRows"                                                            # of those kernels: what racecheck understands
ofJudged=" mla_decode moe_route "                                                               # and where they are
ofSyncchecked=" mla_decode mla_prefill mla_project moe_route ngram_embed sample "                            # without gemmFew in launches without clusters (docs/kernels.md)
slowest=" linear mla_decode mla_prefill moe_experts sample swiglu_mlp "                         # to run under a tool: they begin first

cannot() {
  echo "sanitize-gpu: $1" >&2
  exit 2
}

# Starts a job as soon as there is room for one.
start() {
  while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
  "$@" &
}

# ---- operations ------------------------------------------------------------------------------------------------------------------

# Each test of the operations as PASS ISA OPERATION N.
list() {
  local pass op tests isa n isas only
  for pass in $PASSES; do
    isas=$ISAS only=
    case $pass in
      portable:*) ;;
      hopper:*)
        [ "$capability" = 9.0 ] || continue
        isas=cuda-bf16 only=$ofHopper
        if [ "$pass" = hopper:racecheck ] && [ "$HOPPER_RACECHECK" != all ]; then only=$ofJudged; fi
        if [ "$pass" = hopper:synccheck ]; then only=$ofSyncchecked; fi
        ;;
    esac
    "$KERNELS" list | while read -r op tests; do
      case " $* " in *" $op "*) ;; *) continue ;; esac
      case ${only:- $op } in *" $op "*) ;; *) continue ;; esac
      for isa in $isas; do
        for ((n = 1; n <= tests; ++n)); do
          case $slowest in *" $op "*) echo "0 $pass $isa $op $n" ;; *) echo "1 $pass $isa $op $n" ;; esac
        done
      done
    done
  done | sort -s -k1,1n | cut -d ' ' -f 2-
}

# How many reports of a log name a kernel that racecheck can judge, and how many there are.
reports() {
  local all ours
  all=$(grep -c "Race reported between" "$1")
  ours=$(grep "Race reported between" "$1" | grep -cE "$judged")
  echo "$ours $all"
}

# What a process that ended with `code` has found.
verdict() {
  local pass=$1 code=$2 log=$3 ours all
  case $code in
    0 | 99) ;;
    124 | 137) echo "NOT FINISHED in $LIMIT s" && return ;;
    *) echo "FAILED (the tests ended with $code)" && return ;;
  esac
  if [ "$code" = 0 ] && grep -qE "SUMMARY: 0 (errors|hazards)" "$log"; then echo ok && return; fi
  if [ "$pass" = hopper:racecheck ] && ! grep -qE "Internal Sanitizer Error|Target application returned an error" "$log"; then
    read -r ours all <<<"$(reports "$log")"
    if [ "$ours" = 0 ] && [ "$all" -gt 0 ]; then echo "ok, but for $all reports that it cannot judge" && return; fi
  fi
  echo FAILED
}

one() {
  local pass=$1 isa=$2 op=$3 n=$4 began=$SECONDS found summary more=()
  local log=$LOGS/${pass/:/-}-$isa-$op-$n.log
  case $pass in portable:*) more=(--portable) ;; esac
  timeout --kill-after=5 "$LIMIT" "$SANITIZER" --tool "${pass#*:}" --error-exitcode 99 --print-limit 0 \
    "$KERNELS" test "$op" --only "$n" --device cuda --isa "$isa" --threads 1 --no-guards --brief "${more[@]}" >"$log" 2>&1
  found=$(verdict "$pass" $? "$log")
  summary=$(grep -E "SUMMARY" "$log" | tail -n 1 | sed 's/^=* *//')
  printf '%-19s %-9s %-14s %d %4d s  %s%s\n' "$pass" "$isa" "$op" "$n" $((SECONDS - began)) "$found" "${summary:+: $summary}"
  case $found in ok*) ;; *) echo "$log" >>"$LOGS/failed" ;; esac
}

# What a clean run does not say.
uncovered() {
  local pass
  echo "Not covered:"
  for pass in "${allPasses[@]}"; do
    case " $PASSES " in *" $pass "*) ;; *) echo "  $pass (PASSES)" ;; esac
  done
  if [ "$capability" != 9.0 ]; then
    echo "  Hopper's own kernels: this card is of capability ${capability:-unknown}"
  else
    echo "  races in Hopper's own kernels but for ${judged//|/, }: racecheck does not see tensor copies, wgmma and stores to another block's shared memory,"
    echo "  and takes for races what is ordered by one lane's arrival for its warp (docs/kernels.md, Sanitizers)"
    echo "  barriers of linear, moe_experts and swiglu_mlp on Hopper: synccheck stops at what the compiler makes of a cluster's barrier in a lone block"
  fi
  echo "  races in global memory: racecheck looks at shared memory alone; and what only more repetitions than --brief has would do"
}

# ---- controls --------------------------------------------------------------------------------------------------------------------

control() {
  timeout 10 "$CONTROLS" "$1" "$2" >"$LOGS/$1-$2.plain" 2>&1 || echo "$1 $2 fails without compute-sanitizer" >>"$LOGS/failed"
  timeout --kill-after=5 60 "$SANITIZER" --tool racecheck "$CONTROLS" "$1" "$2" >"$LOGS/$1-$2.log" 2>&1
  local code=$?
  case $code in 124 | 137) echo "does not end" >"$LOGS/$1-$2.reports" ;; *) cell "$LOGS/$1-$2.log" >"$LOGS/$1-$2.reports" ;; esac
}

cell() {
  local number
  if grep -q "Internal Sanitizer Error" "$1"; then echo "crashes" && return; fi
  number=$(grep -c "Race reported between" "$1")
  if [ "$number" -gt 0 ]; then echo "$number reports"; elif grep -q "SUMMARY: 0 hazards" "$1"; then echo -; else echo "no summary"; fi
}

# A line a control: reports of the right program, of one that reads early, of one that writes early.
controls() {
  local name modes mode what
  while IFS=$'\t' read -r name what; do
    read -r name modes <<<"$name"
    for mode in $modes; do start control "$name" "$mode"; done
  done < <("$CONTROLS")
  wait
  "$SANITIZER" --version | grep -i version
  printf '%-14s %-14s %-14s %-14s %s\n' control ordered early-read early-write what
  while IFS=$'\t' read -r name what; do
    read -r name modes <<<"$name"
    printf '%-14s' "$name"
    for mode in ordered early-read early-write; do printf ' %-14s' "$(cat "$LOGS/$name-$mode.reports" 2>/dev/null || echo "(none)")"; done
    printf ' %s\n' "$what"
  done < <("$CONTROLS")
  [ ! -s "$LOGS/failed" ] || { cat "$LOGS/failed"; exit 1; }
}

# ----------------------------------------------------------------------------------------------------------------------------------

[ -n "$SANITIZER" ] && [ -x "$SANITIZER" ] || cannot "there is no compute-sanitizer: install it, or name it in SANITIZER"
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)
for pass in $PASSES; do
  case " ${allPasses[*]} " in *" $pass "*) ;; *) cannot "no pass is called $pass: there are ${allPasses[*]}" ;; esac
done
own=${LOGS:-}
LOGS=${LOGS:-$(mktemp -d)}
mkdir -p "$LOGS"
rm -f "$LOGS/failed"

if [ "${1:-}" = --controls ]; then
  [ -x "$CONTROLS" ] || cannot "there is no $CONTROLS: build it (cmake --build build --target racecheck_controls), or name it in CONTROLS"
  [ "$capability" = 9.0 ] || cannot "the controls are of capability 9.0, this card of ${capability:-unknown}"
  controls
  [ -n "$own" ] || rm -r "$LOGS"
  exit 0
fi

[ -x "$KERNELS" ] || cannot "there is no $KERNELS: build it, or name it in KERNELS"
plain=$("$KERNELS" test embed --device cuda 2>&1) || cannot "even without compute-sanitizer, $KERNELS fails:"$'\n'"$plain"
if [ $# -eq 0 ]; then set -- convert $(cd native/ops && ls -d */ | tr -d /); fi
for op in "$@"; do "$KERNELS" list | grep -q "^$op " || cannot "no operation with tests is called $op"; done

total=0
while read -r pass isa op n; do
  start one "$pass" "$isa" "$op" "$n"
  total=$((total + 1))
done < <(list "$@")
wait
[ "$total" -gt 0 ] || cannot "PASSES has nothing for $*"

uncovered
if [ ! -s "$LOGS/failed" ]; then
  echo "$total processes in $SECONDS s, all clean"
  [ -n "$own" ] || rm -r "$LOGS"
  exit 0
fi
echo "$total processes in $SECONDS s, $(wc -l <"$LOGS/failed") failed; their reports:"
sort "$LOGS/failed"
exit 1

#!/usr/bin/env bash
# Runs fuzz targets with libFuzzer, which looks for inputs that reach new places of the code, on the stable toolchain. What
# it finds is put into target/fuzz/found; each such file, given to target/fuzz/TARGET, does the same again.
#
#   ./fuzz/run.sh [--for SECONDS] [TARGET…]
#
# --for SECONDS  for each target, 60 if not given
# TARGET         lines, query, stamp; all if not given
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/say.sh
. "$checkout/deploy/lib/say.sh"

seconds=60
targets=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --for)
      seconds=${2:?--for needs a number}
      shift
      ;;
    -*) fail "unknown option $1; see --help" ;;
    *) targets+=("$1") ;;
  esac
  shift
done
[ ${#targets[@]} -gt 0 ] || targets=(lines query stamp)
command -v c++ >/dev/null || fail "libFuzzer is built by a C++ compiler, and there is none; install g++ (Debian's package)"

# As `cargo fuzz` asks for it: each place of the code counts how often it was reached, and comparisons tell their operands.
# With --target, programs that run during the build have none of it.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares"
folder=${CARGO_TARGET_DIR:-$checkout/target}/fuzz
machine=$(rustc -vV | sed -n 's/^host: //p')
# Versions as in the workspace.
cp "$checkout/Cargo.lock" "$checkout/fuzz/Cargo.lock"
for target in "${targets[@]}"; do
  cargo build --quiet --manifest-path "$checkout/fuzz/Cargo.toml" --target "$machine" --target-dir "$folder" --bin "$target" ||
    fail "the target $target cannot be built, see above"
  ln -sf "$machine/debug/$target" "$folder/$target"
  mkdir -p "$folder/corpus/$target" "$folder/found"
  number=0
  while IFS= read -r seed; do
    number=$((number + 1))
    printf '%s' "$seed" >"$folder/corpus/$target/seed-$number"
  done <"$checkout/fuzz/seeds/$target"
  "$folder/$target" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$folder/found/$target-" "$folder/corpus/$target" >"$folder/$target.log" 2>&1 || {
    tail -n 30 "$folder/$target.log" >&2
    fail "$target found something; it is in $folder/found, and what it said is above"
  }
  say "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/$target.log") inputs, nothing found"
done

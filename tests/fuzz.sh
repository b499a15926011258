#!/usr/bin/env bash
# Fuzzes each target of tests/fuzz under libFuzzer for so many seconds (default 60), or only the
# targets named behind that number. Inputs that break something are left in fuzz/artifacts and named
# in the last lines; put them into tests/fuzz/corpus with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
root=${CARGO_TARGET_DIR:-target}
root=$(mkdir -p "$root" && cd "$root" && pwd)
tools=$root/tools
export PATH="$PATH:$tools/bin"

command -v c++ >/dev/null || { echo "c++ is missing: libFuzzer is C++ (Debian: apt-get install g++)" >&2; exit 1; }
if ! command -v cargo-fuzz >/dev/null; then
    echo "installing cargo-fuzz"
    (cd / && cargo install --quiet --locked --version 0.13.2 --root "$tools" cargo-fuzz)
fi

# No sanitizer: our code forbids unsafe, the targets bound memory themselves, and so any toolchain
# will do.
flags=(--sanitizer none --target-dir "$root/fuzz")
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls tests/fuzz/corpus)
cargo fuzz build "${flags[@]}"
status=0
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    log=$(mktemp)
    # New inputs go to the first directory; the seeds stay as they are.
    cargo fuzz run "${flags[@]}" "$target" "fuzz/corpus/$target" "tests/fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=131072 -len_control=20 \
        -dict=tests/fuzz/words.dict -print_final_stats=1 >"$log" 2>&1 || status=1
    count=$(awk '/stat::number_of_executed_units/ { print $2 }' "$log")
    found=$(grep -oE 'artifacts/[^ ]*(crash|oom|timeout|leak)-[0-9a-f]*' "$log" | sort -u || true)
    printf '%-22s %12s executions, %s\n' "$target" "${count:-no}" "${found:-nothing found}"
    [ -n "$count" ] || { tail -n 20 "$log"; status=1; }
    rm -f "$log"
done
exit "$status"

#!/bin/sh
# e2e.sh CALC: runs the program as its users do.
set -eu
calc=$1
count=0

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

# check EXPRESSION EXPECTED
check() {
    actual=$("$calc" "$1") || fail "calc '$1' exited with $?"
    [ "$actual" = "$2" ] || fail "calc '$1' printed '$actual', expected '$2'"
    count=$((count + 1))
}

# refuse EXPRESSION MESSAGE
refuse() {
    if actual=$("$calc" "$1" 2>&1); then
        fail "calc '$1' succeeded"
    fi
    [ "$actual" = "calc: $2" ] || fail "calc '$1' said '$actual', expected 'calc: $2'"
    count=$((count + 1))
}

check '1 + 1' 2
check '2 * (3 + 4) - 5' 9
check '1 / 4' 0.25
check '2 ^ 10' 1024
check '-3 % 2' -1
refuse '1 / 0' 'division by zero at column 3'
refuse '2 * ' 'syntax error at column 5'
refuse '1 $ 2' 'syntax error at column 3'

# From a pipe: good lines are answered although one is bad, and the exit code tells.
if lines=$(printf '1+1\nbad\n3*3\n' | "$calc" 2>/dev/null); then
    fail 'a bad line left exit code 0'
fi
[ "$lines" = "$(printf '2\n9')" ] || fail "lines: $lines"
count=$((count + 1))

# The closed form of 1 + 2 + ... + 500, against the sum itself.
long=$(awk 'BEGIN { printf "1"; for (i = 2; i <= 500; i++) printf "+%d", i }')
check "$long" "$("$calc" '500 * 501 / 2')"

echo "$count end-to-end checks passed"

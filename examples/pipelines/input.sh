#!/bin/sh
# input.sh STEP NAME: prints the output NAME of STEP, a step that the running step needs.
#
# $HODEI_INPUTS is a file with {"STEP": {"NAME": "value", ...}, ...}, of direct needs only. This reads it with awk
# alone, strings with escapes included (but for \u), so that the examples depend on nothing that must be installed.
set -eu
exec awk -v step="$1" -v name="$2" '
    # The whole file is one text; lines mean nothing in JSON.
    { json = json $0 "\n" }

    # Reads the string whose opening quote is at `at`; leaves `at` behind the closing one.
    function read_string(   c, text) {
        for (at++; at <= length(json); at++) {
            c = substr(json, at, 1)
            if (c == "\"") { at++; return text }
            if (c == "\\") {
                c = substr(json, ++at, 1)
                if (c == "u") { print "input.sh: \\u is not supported" > "/dev/stderr"; exit 2 }
                if (c == "n") c = "\n"; else if (c == "t") c = "\t"; else if (c == "r") c = "\r"
            }
            text = text c
        }
        return text
    }

    # Reads a number, true, false or null.
    function read_bare(   start) {
        for (start = at; substr(json, at, 1) ~ /[A-Za-z0-9.+-]/; at++) ;
        return substr(json, start, at - start)
    }

    END {
        for (at = 1; at <= length(json);) {
            c = substr(json, at, 1)
            if (c == "{") { depth++; value = 0; at++ }
            else if (c == "}") { depth--; value = 0; at++ }
            else if (c == ":") { value = 1; at++ }
            else if (c == ",") { value = 0; at++ }
            else if (c ~ /["A-Za-z0-9-]/) {
                text = c == "\"" ? read_string() : read_bare()
                if (!value) key[depth] = text
                else if (depth == 2 && key[1] == step && key[2] == name) { print text; exit 0 }
            } else at++
        }
        print "input.sh: no output \"" name "\" of \"" step "\"" > "/dev/stderr"
        exit 1
    }
' "$HODEI_INPUTS"

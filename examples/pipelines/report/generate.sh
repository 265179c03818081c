#!/bin/sh
# generate.sh SHARD: writes the sales of one shard, `region,product,quantity,cents`, and hands on what is in it.
#
# A linear congruential generator with the shard as its seed: the same shard is the same file on every machine
# and in every awk, because no product reaches 2^53. The high bits choose: the low ones repeat soon.
set -eu
shard=$1
dir=$(sh ./input.sh plan dir)
rows=$(sh ./input.sh plan rows)
target=$dir/sales-$shard.csv

awk -v seed="$shard" -v rows="$rows" '
    function random(below) {
        state = (state * 1103515 + 12345) % 2147483648
        return int(state / 2147483648 * below)
    }
    BEGIN {
        split("north south east west", regions, " ")
        split("anvil bolt cog dowel", products, " ")
        state = 1000003 * (seed + 1)
        for (row = 0; row < rows; row++) {
            region = regions[random(4) + 1]
            product = products[random(4) + 1]
            printf "%s,%s,%d,%d\n", region, product, random(9) + 1, random(9900) + 100
        }
    }
' >"$target.$$"
mv "$target.$$" "$target"

cents=$(awk -F, '{ sum += $3 * $4 } END { printf "%d", sum }' "$target")
echo "shard $shard: $rows sales, $cents cents"
printf '{"rows": "%s", "cents": "%s"}\n' "$rows" "$cents" >"$HODEI_OUTPUT"

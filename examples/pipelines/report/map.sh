#!/bin/sh
# map.sh SHARD: adds up one shard by region and product: `region,product,sales,quantity,cents`, in order.
set -eu
shard=$1
dir=$(sh ./input.sh plan dir)
target=$dir/part-$shard.csv

awk -F, '
    { key = $1 "," $2; sales[key]++; quantity[key] += $3; cents[key] += $3 * $4 }
    END { for (key in sales) printf "%s,%d,%d,%d\n", key, sales[key], quantity[key], cents[key] }
' "$dir/sales-$shard.csv" | sort >"$target.$$"
mv "$target.$$" "$target"

groups=$(awk 'END { print NR }' "$target")
echo "shard $shard: $groups groups"
printf '{"groups": "%s"}\n' "$groups" >"$HODEI_OUTPUT"

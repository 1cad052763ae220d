#!/usr/bin/env bash
# Reproduce the figures of docs/results/loop.md: `bash benchmarks/loop.sh PART [SEED]`; loop_table.py prints the tables.
# Only these commands ever open the held-out splits `final` and `final2`.
set -euo pipefail
out=runs/loop
mkdir -p "$out"
part=$1
seed=${2:-0}

measure() { # NAME, then arguments of `codots eval`
    local name=$1
    shift
    codots eval "$@" split="${split:-final}" --json >"$out/$name.json"
}

timed() { # NAME, then a command: append its seconds to clock.txt
    local name=$1 start=$SECONDS
    shift
    "$@"
    echo "$name $((SECONDS - start))" >>"$out/clock.txt"
}

case $part in
base)
    measure base base packs=500 arms=own,null,shuffled,frozen,oracle
    measure base-greedy base packs=500 arms=own,null,shuffled,frozen,oracle temperature=0
    measure base-v0 base packs=500 domain=frozen-lake-v0
    ;;
demo)
    codots demo recipes/demo.yaml seed="$seed" run="$out/demo-$seed"
    ;;
lake)
    timed "lake-$seed" codots train recipes/lake.yaml seed="$seed" run="$out/lake-$seed"
    measure "lake-$seed" "$out/lake-$seed" packs=500 arms=own,null,shuffled,frozen,oracle
    measure "lake-$seed-base-reads" base writer="$out/lake-$seed" packs=500
    measure "lake-$seed-reads-base" "$out/lake-$seed" writer=base packs=500
    measure "lake-$seed-hard" "$out/lake-$seed" preset=hard pack_size=8 packs=500
    ;;
v0)
    timed "v0-$seed" codots train recipes/lake-v0.yaml seed="$seed" run="$out/v0-$seed"
    split=final2 measure "v0-$seed" "$out/v0-$seed" domain=frozen-lake-v0 packs=500
    ;;
controls) # about equally many sampled ids each, at three learning rates
    for recipe in coarse task-by-task; do
        for lr in 5.0e-4 1.0e-3 2.0e-3; do
            run=$out/$recipe-$lr
            codots train "recipes/$recipe.yaml" learner.lr=$lr seed="$seed" workers=1 run="$run"
            codots eval "$run" split=dev packs=200 workers=1 --json >"$run-dev.json"
        done
    done
    ;;
best) # RECIPE-RATE, the best of the three on `dev`: evaluate on the packs of the demo
    split=test measure "$seed" "$out/$seed" packs=500
    ;;
reference)
    for preset in easy hard; do
        for version in 0 1; do
            codots baselines frozen-lake-v$version --preset $preset --packs 500 --pack-size 5 --json >"$out/reference-v$version-$preset.json"
        done
    done
    ;;
*)
    echo "unknown part '$part': expected base, demo, lake, v0, controls, best or reference" >&2
    exit 2
    ;;
esac

#!/bin/bash
# Start command of a ModelArts training job, in an image that holds taichu:
#   bash /PATH/TO/modelarts.sh RECIPE.yaml [key=value ...]
# ModelArts tells every node: VC_WORKER_HOSTS, all nodes by commas; VC_TASK_INDEX, this node's
# place among them; MA_NUM_HOSTS, how many there are; MA_NUM_GPUS, the accelerators of each.
set -euo pipefail

if [ $# -eq 0 ]; then
    echo "usage: modelarts.sh RECIPE.yaml [key=value ...]" >&2
    exit 2
fi
recipe=$1
shift
nodes=${MA_NUM_HOSTS:-1}
rank=${VC_TASK_INDEX:-0}
hosts=${VC_WORKER_HOSTS:-127.0.0.1}
devices=${MA_NUM_GPUS:-0}
if [ "$devices" -eq 0 ]; then
    devices=8
fi

# nodes start one after the other, and the first one's name is known once it is up
attempts=${MASTER_ATTEMPTS:-60}
until master=$(getent ahostsv4 "${hosts%%,*}" | awk 'NR == 1 { print $1 }'); do
    attempts=$((attempts - 1))
    if [ "$attempts" -eq 0 ]; then
        echo "modelarts.sh: ${hosts%%,*}, first of VC_WORKER_HOSTS, has no IPv4 address" >&2
        exit 1
    fi
    sleep 5
done

exec bash "$(dirname "${BASH_SOURCE[0]}")/with_cann.sh" \
    taichu launch "$recipe" "$@" \
    --devices "$devices" --nodes "$nodes" --node-rank "$rank" --master "$master"

#!/bin/bash
# Runs a command in CANN's environment: with_cann.sh taichu doctor
for folder in "${ASCEND_HOME_PATH:-}" /usr/local/Ascend/{cann,ascend-toolkit}; do
    if [ -f "$folder/set_env.sh" ]; then
        source "$folder/set_env.sh"
        break
    fi
done
driver=/usr/local/Ascend/driver/lib64
export LD_LIBRARY_PATH="$driver/driver:$driver/common:$driver${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$@"

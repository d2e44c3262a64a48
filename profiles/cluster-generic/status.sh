#!/usr/bin/env bash
# How a job of OpenPBS is, in the words of cluster-generic. Where qstat cannot be reached, the job is taken to run.
status=$(qstat -x -f "$1" 2>&1)
if [[ $status == *"Unknown Job Id"* ]]; then
    echo failed
elif [[ $status != *"job_state = F"* ]]; then
    echo running
elif grep --quiet --extended-regexp 'Exit_status = 0$' <<<"$status"; then
    echo success
else
    echo failed
fi

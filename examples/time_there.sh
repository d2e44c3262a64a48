#!/bin/sh
# Time an ONNX file on another machine: sh time_there.sh HOST MODEL COMMAND...; there the file is called fbnet.onnx.
set -e
host=$1
model=$2
shift 2
scp -q "$model" "$host:fbnet.onnx"
ssh "$host" "$@"

#!/usr/bin/env bash
# The pictures of the documents from finished runs: docs/pictures.sh RESULTS SEARCH, of `make report` or another evaluated run.
# Needs Graphviz and Chromium (Debian: apt install graphviz chromium).
set -euo pipefail
cd "$(dirname "$0")/.."
results=$1 search=$2
snakemake all make_report all_trained plot_front --rulegraph dot --cores 1 2>/dev/null | tred |
  sed -E 's/color="[0-9. ]+"/color="#4a6fa5", fillcolor="#eef2f7"/; s/style=rounded/style="rounded,filled"/; s/penwidth=2/penwidth=1/' |
  dot -Tsvg -Grankdir=LR -Gnodesep=0.12 -Granksep=0.35 >docs/pipeline.svg
cp "$results/plots/$search.theta.svg" docs/worth.svg
cp "$results/front.svg" docs/front.svg
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1200,960 \
  --screenshot=docs/report.png "file://$(realpath "$results")/report.html"

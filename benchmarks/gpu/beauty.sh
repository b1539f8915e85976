#!/usr/bin/env bash
# Amazon Beauty on one GPU: installs what is missing, trains and evaluates by recipes/amazon_beauty_gpu.toml, and
# leaves figures.json and the log in $OUT. One go, meant for a rented machine:
#   bash benchmarks/gpu/beauty.sh DATA [SEED ...]
# DATA holds items.jsonl and interactions.tsv. LIMIT_S (540) ends the run before a lease does; what was measured by
# then is in figures.json. WHEELS names a folder of wheels for a machine without a network.
set -uo pipefail
data=${1:?"where are items.jsonl and interactions.tsv?"}
shift
seeds=("${@:-0}")
out=${OUT:-figures/beauty_gpu}
mkdir -p "$out"
cd "$(dirname "$0")/../.."
if ! python3 -c 'import leadre.store.records.database, torch, transformers, psycopg2' 2>/dev/null; then
  if [ -n "${WHEELS:-}" ]; then
    python3 -m pip install -q --no-index --find-links "$WHEELS" -e '.[all]' || exit 1
  else
    python3 -m pip install -q -e '.[all]' || exit 1
  fi
fi
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
timeout "${LIMIT_S:-540}" python3 benchmarks/beauty_pipeline.py "$data" "${RECIPE:-recipes/amazon_beauty_gpu.toml}" \
  --seeds "${seeds[@]}" --device cuda --out "$out" 2>&1 | tee "$out/log.txt"

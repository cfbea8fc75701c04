#!/usr/bin/env bash
# The main job on generated data: draw a board, curate it through Prefect, train, sample, and say where to look.
set -euo pipefail
DEMO=${DEMO:-demo} POSTS=${POSTS:-400}
STORE=$DEMO/store
export KAOBAKO_STORE=$STORE
start=$SECONDS
step() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - start)); }

if [ ! -f "$DEMO/booru/truth.parquet" ]; then
  step "Drawing an imageboard of $POSTS posts"
  kaobako booru "$DEMO/booru" --posts "$POSTS" --seed 1
fi
step "Curating it into a face dataset, through Prefect"
kaobako curate recipes/demo.toml --set source.root="$DEMO/booru"
step "How well that went, by what the board knows of itself"
kaobako evaluate faces --truth "$DEMO/booru/truth.parquet"
step "Training a small GAN on it"
kaobako train faces --recipe recipes/demo.toml
step "Sampling it"
samples=$(kaobako sample --json)
step "Done"
card=$(kaobako versions show faces --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["folder"])')
printf '%s' "$samples" | CARD="$card" STORE="$STORE" python3 -c '
import json, os, sys
made = json.load(sys.stdin)
card, store = os.environ["CARD"], os.environ["STORE"]
print(f"Version card:  {card}/README.md  (pictures in {card}/sheets/)")
print(f"Sample grid:   {made["grid"]}")
print(f"Walk video:    {made["walk"]}")
print(f"Review it:     .venv/bin/kaobako review faces --store {store}")
print(f"Prefect UI:    .venv/bin/kaobako serve --recipe recipes/demo.toml --store {store}")
print("Your folder:   .venv/bin/kaobako curate recipes/anime-faces.toml --store mystore "
      "--set source.kind=folder --set source.root=FOLDER")
'

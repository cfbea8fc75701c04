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
  rm -rf "$DEMO/booru" "$DEMO/booru.part"      # left by an interrupted drawing
  kaobako booru "$DEMO/booru.part" --posts "$POSTS" --seed 1 >/dev/null
  mv "$DEMO/booru.part" "$DEMO/booru"
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
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
card=$(kaobako versions show faces --json | field folder)
cat <<END
Version card:  $card/README.md  (its pictures: $card/sheets/)
Sample grid:   $(field grid <<<"$samples")
Walk video:    $(field walk <<<"$samples")
What if:       .venv/bin/kaobako tune recipes/demo.toml --set source.root=$DEMO/booru --set crop.min_face=100 --store $STORE
Export it:     .venv/bin/kaobako export faces --format stylegan --out faces.zip --store $STORE
Review it:     .venv/bin/kaobako review faces --store $STORE
Prefect UI:    .venv/bin/kaobako serve --recipe recipes/demo.toml --store $STORE
Your folder:   .venv/bin/kaobako curate recipes/anime-faces.toml --store mystore \\
                 --set source.kind=folder --set source.root=FOLDER
END

#!/bin/sh
# Draws the pictures of docs/acip.md: left what the C server made, right what
# weft makes of the same picture. Run it from the root of the repository.
set -e
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
go build -o "$tmp/weft" ./cmd/weft
go build -o "$tmp/termshot" ./internal/termshot
golden=chat/render/testdata
pair() { # name of the golden frame, rows of the picture, flags for ours
	name=$1 rows=$2
	shift 2
	"$tmp/weft" chat mirror -S --source "image:$golden/image_frame_320x240.png" --width 80 --height 24 "$@" >"$tmp/ours"
	"$tmp/termshot" -cols 130 -rows "$rows" -cell 6 -o "docs/acip/$name.png" \
		"$golden/ascii_${name}_80x24$pal.payload.bin@0,0,64x$rows" "$tmp/ours@66,0,64x$rows"
}
pal=
pair l0_r0 24 --color none
pair l0_r1 24 --color none --render background
pair l1_r0 24 --color 16
pair l1_r1 24 --color 16 --render background
pair l2_r1 24 --color 256 --render background
pair l3_r1 24 --color truecolor --render background
for p in 2:blocks 3:digital 4:minimal 5:cool; do
	pal=_pal${p%:*}
	pair l0_r0 24 --color none --palette "${p#*:}"
	mv docs/acip/l0_r0.png "docs/acip/l0_r0$pal.png"
done
pal=
pair l0_r0 24 --color none
half() {
	name=$1
	shift
	"$tmp/weft" chat mirror -S --source "image:$golden/image_frame_320x240.png" --width 80 --height 24 --render half-block "$@" >"$tmp/ours"
	"$tmp/termshot" -cols 146 -rows 30 -cell 6 -o "docs/acip/$name.png" \
		"$golden/ascii_${name}_80x24.payload.bin@0,0,80x30" "$tmp/ours@82,0,64x24"
}
half l0_r2 --color none
half l1_r2 --color 16
half l2_r2 --color 256
half l3_r2 --color truecolor

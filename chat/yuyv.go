package chat

import "github.com/weft-ws/weft/chat/render"

// appendYUYV scales a YUYV picture and appends its pixels; ok is false if raw is
// too short for the size.
func appendYUYV(dst, raw []byte, from render.Size) (pix []byte, size render.Size, ok bool) {
	if len(raw) < 2*from.W*from.H || from.W < 2 {
		return dst, from, false
	}
	size = fitSource(from.W, from.H)
	for y := range size.H {
		row := raw[2*from.W*(y*from.H/size.H):]
		for x := range size.W {
			sx := x * from.W / size.W
			pair := row[4*(sx/2):]
			c, u, v := int32(row[2*sx])-16, int32(pair[1])-128, int32(pair[3])-128
			// ITU-R BT.601, limited range, in 8-bit fixed point.
			r, g, b := (298*c+409*v+128)>>8, (298*c-100*u-208*v+128)>>8, (298*c+516*u+128)>>8
			dst = append(dst, clamp(r), clamp(g), clamp(b))
		}
	}
	return dst, size, true
}

func clamp(v int32) byte { return byte(min(max(v, 0), 255)) }

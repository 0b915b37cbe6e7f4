//go:build !purego

#include "textflag.h"
#include "utf8_tables.h"

// As on amd64: a vector of bytes s and the vectors that begin one, two and
// three bytes earlier (p1, p2, p3) are loaded from memory; nothing is carried
// over, so the last vector may lie over the one before.

// JUDGE16 judges the 16 bytes at off(R0) and gathers what is wrong in V0. A byte
// has to be a continuation byte for the sake of p2 or p3 if p2 >= E0 or
// p3 >= F0: no less than 0xdf and 0xef, then less 0x60 and 0x70, that is bit 7.
// Where so, CONTS is no fault, and its absence is one.
#define JUDGE16(off) \
	FMOVQ (off)(R0), F16;               \
	FMOVQ (off-1)(R0), F17;             \
	FMOVQ (off-2)(R0), F18;             \
	FMOVQ (off-3)(R0), F19;             \
	VUMAX V5.B16, V18.B16, V18.B16;     \
	VUMAX V6.B16, V19.B16, V19.B16;     \
	VSUB  V7.B16, V18.B16, V18.B16;     \
	VSUB  V8.B16, V19.B16, V19.B16;     \
	VORR  V18.B16, V19.B16, V18.B16;    \
	VAND  V9.B16, V18.B16, V18.B16;     \ // 0x80: s is due
	VUSHR $4, V17.B16, V19.B16;         \
	VAND  V4.B16, V17.B16, V17.B16;     \
	VUSHR $4, V16.B16, V16.B16;         \
	VTBL  V19.B16, [V1.B16], V19.B16;   \ // by p1's high nibble
	VTBL  V17.B16, [V2.B16], V17.B16;   \ // by p1's low nibble
	VTBL  V16.B16, [V3.B16], V16.B16;   \ // by s's high nibble
	VAND  V19.B16, V17.B16, V17.B16;    \
	VAND  V16.B16, V17.B16, V17.B16;    \
	VEOR  V18.B16, V17.B16, V17.B16;    \
	VORR  V17.B16, V0.B16, V0.B16

// func utf8NEON(p []byte) bool
TEXT ·utf8NEON(SB), NOSPLIT, $0-25
	MOVD p_base+0(FP), R0
	MOVD p_len+8(FP), R1
	ADD  $3, R0
	SUB  $3, R1                     // R0, R1: what is left to judge

	MOVD  $highs1<>(SB), R2
	VLD1  (R2), [V1.B16]
	MOVD  $lows1<>(SB), R2
	VLD1  (R2), [V2.B16]
	MOVD  $highs<>(SB), R2
	VLD1  (R2), [V3.B16]
	VMOVI $0x0f, V4.B16
	VMOVI $0xdf, V5.B16
	VMOVI $0xef, V6.B16
	VMOVI $0x60, V7.B16
	VMOVI $0x70, V8.B16
	VMOVI $0x80, V9.B16
	VEOR  V0.B16, V0.B16, V0.B16
	MOVD  $0x8080808080808080, R3

ascii:
	// Nothing is owed by the bytes before R0. Skip what is ASCII.
	CMP  $64, R1
	BLT  rest
	VLD1 (R0), [V20.B16, V21.B16, V22.B16, V23.B16]
	VORR V20.B16, V21.B16, V20.B16
	VORR V22.B16, V23.B16, V22.B16
	VORR V20.B16, V22.B16, V20.B16
	VMOV V20.D[0], R4
	VMOV V20.D[1], R5
	ORR  R4, R5, R4
	TST  R3, R4
	BNE  judge
	ADD  $64, R0
	SUB  $64, R1
	B    ascii

judge:
	// 64 bytes at a time until all 64 are ASCII, and those included: they are
	// where a character cut off by them shows.
	VLD1 (R0), [V20.B16, V21.B16, V22.B16, V23.B16]
	VORR V20.B16, V21.B16, V20.B16
	VORR V22.B16, V23.B16, V22.B16
	VORR V20.B16, V22.B16, V20.B16
	JUDGE16(0)
	JUDGE16(16)
	JUDGE16(32)
	JUDGE16(48)
	VMOV V20.D[0], R4
	VMOV V20.D[1], R5
	ORR  R4, R5, R4
	ADD  $64, R0
	SUB  $64, R1
	TST  R3, R4
	BEQ  ascii
	CMP  $64, R1
	BGE  judge

rest:
	CMP $16, R1
	BLT last
	JUDGE16(0)
	ADD $16, R0
	SUB $16, R1
	B   rest

last:
	// The last 16 bytes, some of them for the second time.
	ADD R1, R0
	SUB $16, R0
	JUDGE16(0)

	VMOV V0.D[0], R4
	VMOV V0.D[1], R5
	ORR  R4, R5, R4
	CMP  $0, R4
	CSET EQ, R4
	MOVB R4, ret+24(FP)
	RET

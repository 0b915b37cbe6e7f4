//go:build !purego

#include "textflag.h"

// func maskNEON(k uint32, dst, src []byte)
//
// As on amd64: the last vector is read and masked before anything is written,
// and written when all else is. The body begins at the first byte; it need
// not be aligned.
TEXT ·maskNEON(SB), NOSPLIT, $0-56
	MOVWU k+0(FP), R0
	MOVD  dst_base+8(FP), R1
	MOVD  src_base+32(FP), R2
	MOVD  src_len+40(FP), R3
	VDUP  R0, V0.S4

	// The last vector: its key is turned by R3&3.
	SUB  $16, R3, R3               // bytes before the last vector
	LSL  $3, R3, R4
	RORW R4, R0, R5                // counts modulo 32: 8*(R3&3)
	VDUP R5, V1.S4
	ADD  R3, R2, R6
	ADD  R3, R1, R7
	VLD1 (R6), [V2.B16]
	VEOR V1.B16, V2.B16, V1.B16

	CMP $48, R3                    // 64 bytes end within the last vector
	BLT one

four:
	VLD1.P 64(R2), [V4.B16, V5.B16, V6.B16, V7.B16]
	VEOR   V0.B16, V4.B16, V4.B16
	VEOR   V0.B16, V5.B16, V5.B16
	VEOR   V0.B16, V6.B16, V6.B16
	VEOR   V0.B16, V7.B16, V7.B16
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R1)
	SUB    $64, R3
	CMP    $48, R3
	BGE    four

one:
	CMP    $0, R3
	BLE    done
	VLD1.P 16(R2), [V4.B16]
	VEOR   V0.B16, V4.B16, V4.B16
	VST1.P [V4.B16], 16(R1)
	SUB    $16, R3
	B      one

done:
	VST1 [V1.B16], (R7)
	RET

//go:build !purego

#include "textflag.h"

// Both kernels work alike. The first and the last vector are read and masked
// before anything is written, and written when all else is: what lies between
// can then begin where dst is aligned and end anywhere in the last vector.
// Bytes in the overlap are computed twice from the same original and so
// written twice with the same value; there is no loop for the rest, and in
// place works as well as copying. The body never writes beyond the last
// vector, which ends with dst.

// func maskAVX2(k uint32, dst, src []byte)
TEXT ·maskAVX2(SB), NOSPLIT, $0-56
	MOVL k+0(FP), AX
	MOVQ dst_base+8(FP), DI
	MOVQ src_base+32(FP), SI
	MOVQ src_len+40(FP), R8

	// The last vector, R8-32 bytes after the first: its key is turned by R8&3.
	MOVQ         R8, CX
	SHLL         $3, CX
	MOVL         AX, DX
	RORL         CX, DX               // CL counts modulo 32: 8*(R8&3)
	VMOVD        DX, X3
	VPBROADCASTD X3, Y3
	VPXOR        -32(SI)(R8*1), Y3, Y3

	// The first vector.
	VMOVD        AX, X0
	VPBROADCASTD X0, Y0
	VPXOR        (SI), Y0, Y2

	// The body begins R9 = 1 to 32 bytes later, where dst is a multiple of 32.
	MOVQ         $32, R9
	MOVQ         DI, CX
	ANDQ         $31, CX
	SUBQ         CX, R9
	MOVQ         R9, CX
	SHLL         $3, CX
	RORL         CX, AX
	VMOVD        AX, X0
	VPBROADCASTD X0, Y0
	LEAQ         -32(R8), R10         // where the last vector begins
	LEAQ         -128(R8), R11        // from here four of them end with it
	CMPQ         R9, R11
	JGT          one

four:
	VPXOR   (SI)(R9*1), Y0, Y4
	VPXOR   32(SI)(R9*1), Y0, Y5
	VPXOR   64(SI)(R9*1), Y0, Y6
	VPXOR   96(SI)(R9*1), Y0, Y7
	VMOVDQU Y4, (DI)(R9*1)
	VMOVDQU Y5, 32(DI)(R9*1)
	VMOVDQU Y6, 64(DI)(R9*1)
	VMOVDQU Y7, 96(DI)(R9*1)
	ADDQ    $128, R9
	CMPQ    R9, R11
	JLE     four

one:
	CMPQ    R9, R10
	JGE     done
	VPXOR   (SI)(R9*1), Y0, Y4
	VMOVDQU Y4, (DI)(R9*1)
	ADDQ    $32, R9
	JMP     one

done:
	VMOVDQU Y2, (DI)
	VMOVDQU Y3, -32(DI)(R8*1)
	VZEROUPPER
	RET

// func maskAVX512(k uint32, dst, src []byte)
TEXT ·maskAVX512(SB), NOSPLIT, $0-56
	MOVL k+0(FP), AX
	MOVQ dst_base+8(FP), DI
	MOVQ src_base+32(FP), SI
	MOVQ src_len+40(FP), R8

	MOVQ         R8, CX
	SHLL         $3, CX
	MOVL         AX, DX
	RORL         CX, DX
	VPBROADCASTD DX, Z3
	VPXORD       -64(SI)(R8*1), Z3, Z3

	VPBROADCASTD AX, Z0
	VPXORD       (SI), Z0, Z2

	MOVQ         $64, R9
	MOVQ         DI, CX
	ANDQ         $63, CX
	SUBQ         CX, R9
	MOVQ         R9, CX
	SHLL         $3, CX
	RORL         CX, AX
	VPBROADCASTD AX, Z0
	LEAQ         -64(R8), R10
	LEAQ         -256(R8), R11
	CMPQ         R9, R11
	JGT          one

four:
	VPXORD    (SI)(R9*1), Z0, Z4
	VPXORD    64(SI)(R9*1), Z0, Z5
	VPXORD    128(SI)(R9*1), Z0, Z6
	VPXORD    192(SI)(R9*1), Z0, Z7
	VMOVDQU32 Z4, (DI)(R9*1)
	VMOVDQU32 Z5, 64(DI)(R9*1)
	VMOVDQU32 Z6, 128(DI)(R9*1)
	VMOVDQU32 Z7, 192(DI)(R9*1)
	ADDQ      $256, R9
	CMPQ      R9, R11
	JLE       four

one:
	CMPQ      R9, R10
	JGE       done
	VPXORD    (SI)(R9*1), Z0, Z4
	VMOVDQU32 Z4, (DI)(R9*1)
	ADDQ      $64, R9
	JMP       one

done:
	VMOVDQU32 Z2, (DI)
	VMOVDQU32 Z3, -64(DI)(R8*1)
	VZEROUPPER
	RET

//go:build !purego

#include "textflag.h"
#include "utf8_tables.h"

// Both kernels look at a vector of bytes s and at the vectors that begin one,
// two and three bytes earlier (p1, p2, p3), loaded from memory again rather
// than shifted together: nothing is carried over, so the last vector may lie
// over the one before.

// AVX2: the lookup algorithm of utf8_tables.h, 32 bytes at a time.

DATA bytes<>+0x00(SB)/4, $0x0f0f0f0f
DATA bytes<>+0x04(SB)/4, $0x60606060
DATA bytes<>+0x08(SB)/4, $0x70707070
DATA bytes<>+0x0c(SB)/4, $0x80808080
DATA bytes<>+0x10(SB)/4, $0x40404040
GLOBL bytes<>(SB), RODATA|NOPTR, $20

// JUDGE32 judges the 32 bytes at off(SI), given in s too, and gathers what is
// wrong in Y0. A byte has to be a continuation byte for the sake of p2 or p3 if
// p2 >= E0 or p3 >= F0: less 0x60 and 0x70, saturating, that is bit 7. Where
// so, CONTS is no fault, and its absence is one.
#define JUDGE32(off, s, a, b, c) \
	VMOVDQU  -1+off(SI), a; \
	VMOVDQU  -2+off(SI), b; \
	VMOVDQU  -3+off(SI), c; \
	VPSUBUSB Y5, b, b;      \
	VPSUBUSB Y6, c, c;      \
	VPOR     b, c, b;       \
	VPAND    Y7, b, b;      \ // 0x80: s is due
	VPSRLW   $4, a, c;      \
	VPAND    Y4, c, c;      \
	VPSHUFB  c, Y1, c;      \ // by p1's high nibble
	VPAND    Y4, a, a;      \
	VPSHUFB  a, Y2, a;      \ // by p1's low nibble
	VPAND    a, c, c;       \
	VPSRLW   $4, s, a;      \
	VPAND    Y4, a, a;      \
	VPSHUFB  a, Y3, a;      \ // by s's high nibble
	VPAND    a, c, c;       \
	VPXOR    b, c, c;       \
	VPOR     c, Y0, Y0

// func utf8AVX2(p []byte) bool
TEXT ·utf8AVX2(SB), NOSPLIT, $0-25
	MOVQ p_base+0(FP), SI
	MOVQ p_len+8(FP), CX
	ADDQ $3, SI
	SUBQ $3, CX                            // SI, CX: what is left to judge

	VBROADCASTI128 highs1<>(SB), Y1
	VBROADCASTI128 lows1<>(SB), Y2
	VBROADCASTI128 highs<>(SB), Y3
	VPBROADCASTD   bytes<>+0x00(SB), Y4
	VPBROADCASTD   bytes<>+0x04(SB), Y5
	VPBROADCASTD   bytes<>+0x08(SB), Y6
	VPBROADCASTD   bytes<>+0x0c(SB), Y7
	VPXOR          Y0, Y0, Y0

	// A long text is worth a vector more, so that the others are aligned.
	CMPQ    CX, $1024
	JLT     ascii
	VMOVDQU (SI), Y8
	JUDGE32(0, Y8, Y12, Y13, Y14)
	MOVQ    SI, AX
	ANDQ    $31, AX
	SUBQ    $32, AX
	SUBQ    AX, SI
	ADDQ    AX, CX
	JMP     judge

ascii:
	// Nothing is owed by the bytes before SI. Skip what is ASCII.
	CMPQ    CX, $128
	JLT     rest
	VMOVDQU (SI), Y8
	VPOR    32(SI), Y8, Y8
	VPOR    64(SI), Y8, Y8
	VPOR    96(SI), Y8, Y8
	VPTEST  Y7, Y8
	JNZ     judge
	ADDQ    $128, SI
	SUBQ    $128, CX
	JMP     ascii

judge:
	// 128 bytes at a time until all 128 are ASCII, and those included: they are
	// where a character cut off by them shows.
	VMOVDQU (SI), Y8
	VMOVDQU 32(SI), Y9
	VPOR    Y8, Y9, Y10
	JUDGE32(0, Y8, Y12, Y13, Y14)
	JUDGE32(32, Y9, Y12, Y13, Y14)
	VMOVDQU 64(SI), Y8
	VMOVDQU 96(SI), Y9
	VPOR    Y8, Y10, Y10
	VPOR    Y9, Y10, Y10
	JUDGE32(64, Y8, Y12, Y13, Y14)
	JUDGE32(96, Y9, Y12, Y13, Y14)
	ADDQ    $128, SI
	SUBQ    $128, CX
	VPTEST  Y7, Y10
	JZ      ascii
	CMPQ    CX, $128
	JGE     judge

rest:
	CMPQ    CX, $32
	JLT     last
	VMOVDQU (SI), Y8
	JUDGE32(0, Y8, Y12, Y13, Y14)
	ADDQ    $32, SI
	SUBQ    $32, CX
	JMP     rest

last:
	// The last 32 bytes, some of them for the second time.
	LEAQ    -32(SI)(CX*1), SI
	VMOVDQU (SI), Y8
	JUDGE32(0, Y8, Y12, Y13, Y14)

	VPTEST Y0, Y0
	SETEQ  ret+24(FP)
	VZEROUPPER
	RET

// AVX-512: one lookup, made for a table of 64. All that matters happens in
// bit 7 of each byte.
//
// Whether s has to be a continuation byte: if p1 >= C0 or p2 >= E0 or p3 >= F0.
// Less 0x40, 0x60 and 0x70, saturating, each is bit 7. Whether it is one: bit 7
// of s and not of 2*s. The two must be the same.
//
// Whether it is one that p1, if a lead (>= C0), can bear: add to it, modulo
// 256, what the table has for p1, and bit 7 shows that it is not. Only five
// kinds of lead are choosy:
//
//	C0, C1, F5 to FF  bear none             +00: 80..BF stays 80..BF
//	E0                bears A0..BF          +60: 80..9F becomes E0..FF, A0..BF 00..1F
//	ED                bears 80..9F          +E0: 80..9F becomes 60..7F, A0..BF 80..9F
//	F0                bears 90..BF          +70: 80..8F becomes F0..FF, 90..BF 00..2F
//	F4                bears 80..8F          +F0: 80..8F becomes 70..7F, 90..BF 80..AF
//	others            bear all              +80: 80..BF becomes 00..3F
//
// The table is indexed by the low six bits of p1, which tell leads apart; what
// it says of another byte is not asked for.
DATA leads<>+0x00(SB)/8, $0x8080808080800000 // C0 to C7
DATA leads<>+0x08(SB)/8, $0x8080808080808080 // C8 to CF
DATA leads<>+0x10(SB)/8, $0x8080808080808080 // D0 to D7
DATA leads<>+0x18(SB)/8, $0x8080808080808080 // D8 to DF
DATA leads<>+0x20(SB)/8, $0x8080808080808060 // E0 to E7
DATA leads<>+0x28(SB)/8, $0x8080e08080808080 // E8 to EF
DATA leads<>+0x30(SB)/8, $0x000000f080808070 // F0 to F7
DATA leads<>+0x38(SB)/8, $0x0000000000000000 // F8 to FF
GLOBL leads<>(SB), RODATA|NOPTR, $64

// JUDGE64 judges the 64 bytes at off(SI), given in s too, and leaves bit 7 of
// those that are wrong in a. The immediate of VPTERNLOGD is the truth table of
// dst (as 0xf0), second (0xcc) and first operand (0xaa).
#define JUDGE64(off, s, a, b, c, d) \
	VMOVDQU8   -1+off(SI), b;   \
	VMOVDQU8   -2+off(SI), c;   \
	VMOVDQU8   -3+off(SI), a;   \
	VPERMB     Z1, b, d;        \
	VPADDB     s, d, d;         \ // p1 does not bear s
	VPSUBUSB   Z4, b, b;        \ // p1 is a lead
	VPSUBUSB   Z5, c, c;        \
	VPSUBUSB   Z6, a, a;        \
	VPTERNLOGD $0xfe, b, c, a;  \ // s is due: a | b | c
	VPADDB     s, s, c;         \
	VPTERNLOGD $0xb4, c, s, a;  \ // due or there, not both: a ^ (s &^ c)
	VPTERNLOGD $0xf8, d, b, a     // a | b & d

// func utf8AVX512(p []byte) bool
TEXT ·utf8AVX512(SB), NOSPLIT, $0-25
	MOVQ p_base+0(FP), SI
	MOVQ p_len+8(FP), CX
	ADDQ $3, SI
	SUBQ $3, CX

	VMOVDQU8     leads<>(SB), Z1
	VPBROADCASTD bytes<>+0x10(SB), Z4
	VPBROADCASTD bytes<>+0x04(SB), Z5
	VPBROADCASTD bytes<>+0x08(SB), Z6
	VPXORD       Z0, Z0, Z0

	// A long text is worth a vector more, so that the others are aligned.
	CMPQ     CX, $1024
	JLT      ascii
	VMOVDQU8 (SI), Z8
	JUDGE64(0, Z8, Z12, Z13, Z14, Z15)
	VPORD    Z12, Z0, Z0
	MOVQ     SI, AX
	ANDQ     $63, AX
	SUBQ     $64, AX
	SUBQ     AX, SI
	ADDQ     AX, CX
	JMP      judge

ascii:
	CMPQ     CX, $128
	JLT      rest
	VMOVDQU8 (SI), Z8
	VPORD    64(SI), Z8, Z8
	VPMOVB2M Z8, K1
	KORTESTQ K1, K1
	JNZ      judge
	ADDQ     $128, SI
	SUBQ     $128, CX
	JMP      ascii

judge:
	VMOVDQU8   (SI), Z8
	VMOVDQU8   64(SI), Z9
	VPORD      Z8, Z9, Z10
	VPMOVB2M   Z10, K1
	JUDGE64(0, Z8, Z12, Z13, Z14, Z15)
	JUDGE64(64, Z9, Z16, Z17, Z18, Z19)
	VPTERNLOGD $0xfe, Z12, Z16, Z0
	ADDQ       $128, SI
	SUBQ       $128, CX
	KORTESTQ   K1, K1
	JZ         ascii
	CMPQ       CX, $128
	JGE        judge

rest:
	CMPQ     CX, $64
	JLT      last
	VMOVDQU8 (SI), Z8
	JUDGE64(0, Z8, Z12, Z13, Z14, Z15)
	VPORD    Z12, Z0, Z0
	ADDQ     $64, SI
	SUBQ     $64, CX

last:
	LEAQ     -64(SI)(CX*1), SI
	VMOVDQU8 (SI), Z8
	JUDGE64(0, Z8, Z12, Z13, Z14, Z15)
	VPORD    Z12, Z0, Z0

	VPMOVB2M Z0, K1
	KORTESTQ K1, K1
	SETEQ    ret+24(FP)
	VZEROUPPER
	RET

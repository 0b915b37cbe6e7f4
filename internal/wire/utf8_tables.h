// The tables of the lookup algorithm of J. Keiser and D. Lemire, "Validating
// UTF-8 In Less Than One Instruction Per Byte" (Software: Practice and
// Experience 51, 2021), for the kernels of amd64 and arm64.
//
// A pair of bytes (p1, s) is wrong if the three of its nibbles that matter,
// p1's high one, p1's low one and s's high one, agree on a way of being wrong.
// Each way is a bit; each nibble has a table of the bits that it allows.
#define SHORT    0x01 // a lead without a continuation byte
#define LONG     0x02 // a continuation byte after ASCII
#define OVER2    0x04 // C0, C1: one byte would have done
#define OVER3    0x08 // E0 80 to 9F: two would have done
#define SURR     0x10 // ED A0 to BF: U+D800 to U+DFFF
#define OVER4    0x20 // F0 80 to 8F: three would have done
#define LARGE    0x40 // F4 90 and more, F5 and more with 90 and more: beyond U+10FFFF
#define LARGE8   0x20 // F5 and more, 80 to 8F; shares its bit with OVER4, which no nibble confuses
#define CONTS    0x80 // two continuation bytes in a row; no fault if p2 or p3 asked for it
#define ANYLOW   (SHORT|LONG|CONTS) // whatever p1's low nibble

// p1's high nibble, 0 to F
DATA highs1<>+0x00(SB)/4, $(LONG*0x01010101)                  // 0 to 3: ASCII
DATA highs1<>+0x04(SB)/4, $(LONG*0x01010101)
DATA highs1<>+0x08(SB)/4, $(CONTS*0x01010101)                 // 8 to B: continuation
DATA highs1<>+0x0c(SB)/1, $(SHORT|OVER2)                      // C
DATA highs1<>+0x0d(SB)/1, $(SHORT)                            // D
DATA highs1<>+0x0e(SB)/1, $(SHORT|OVER3|SURR)                 // E
DATA highs1<>+0x0f(SB)/1, $(SHORT|OVER4|LARGE)                // F
GLOBL highs1<>(SB), RODATA|NOPTR, $16

// p1's low nibble
DATA lows1<>+0x00(SB)/1, $(ANYLOW|OVER2|OVER3|OVER4)          // C0, E0, F0
DATA lows1<>+0x01(SB)/1, $(ANYLOW|OVER2)                      // C1
DATA lows1<>+0x02(SB)/1, $(ANYLOW)
DATA lows1<>+0x03(SB)/1, $(ANYLOW)
DATA lows1<>+0x04(SB)/1, $(ANYLOW|LARGE)                      // F4
DATA lows1<>+0x05(SB)/1, $(ANYLOW|LARGE|LARGE8)               // F5
DATA lows1<>+0x06(SB)/1, $(ANYLOW|LARGE|LARGE8)
DATA lows1<>+0x07(SB)/1, $(ANYLOW|LARGE|LARGE8)
DATA lows1<>+0x08(SB)/4, $((ANYLOW|LARGE|LARGE8)*0x01010101)  // 8 to B
DATA lows1<>+0x0c(SB)/1, $(ANYLOW|LARGE|LARGE8)
DATA lows1<>+0x0d(SB)/1, $(ANYLOW|LARGE|LARGE8|SURR)          // ED
DATA lows1<>+0x0e(SB)/1, $(ANYLOW|LARGE|LARGE8)
DATA lows1<>+0x0f(SB)/1, $(ANYLOW|LARGE|LARGE8)
GLOBL lows1<>(SB), RODATA|NOPTR, $16

// s's high nibble
DATA highs<>+0x00(SB)/4, $(SHORT*0x01010101)                  // ASCII
DATA highs<>+0x04(SB)/4, $(SHORT*0x01010101)
DATA highs<>+0x08(SB)/1, $(LONG|CONTS|OVER2|OVER3|OVER4)      // 80 to 8F
DATA highs<>+0x09(SB)/1, $(LONG|CONTS|OVER2|OVER3|LARGE)      // 90 to 9F
DATA highs<>+0x0a(SB)/1, $(LONG|CONTS|OVER2|SURR|LARGE)       // A0 to AF
DATA highs<>+0x0b(SB)/1, $(LONG|CONTS|OVER2|SURR|LARGE)       // B0 to BF
DATA highs<>+0x0c(SB)/4, $(SHORT*0x01010101)                  // a lead
GLOBL highs<>(SB), RODATA|NOPTR, $16

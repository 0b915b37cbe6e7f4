package wire

import "testing"

func TestOpcode(t *testing.T) {
	tests := [16]struct {
		name              string
		control, reserved bool
	}{
		0x0: {"CONT", false, false},
		0x1: {"TEXT", false, false},
		0x2: {"BINARY", false, false},
		0x3: {"0x3", false, true},
		0x4: {"0x4", false, true},
		0x5: {"0x5", false, true},
		0x6: {"0x6", false, true},
		0x7: {"0x7", false, true},
		0x8: {"CLOSE", true, false},
		0x9: {"PING", true, false},
		0xA: {"PONG", true, false},
		0xB: {"0xb", true, true},
		0xC: {"0xc", true, true},
		0xD: {"0xd", true, true},
		0xE: {"0xe", true, true},
		0xF: {"0xf", true, true},
	}
	for i, tt := range tests {
		o := Opcode(i)
		if o.String() != tt.name || o.Control() != tt.control || o.Reserved() != tt.reserved {
			t.Errorf("opcode %#x: %s, control %v, reserved %v, want %s, %v, %v",
				i, o, o.Control(), o.Reserved(), tt.name, tt.control, tt.reserved)
		}
	}
}

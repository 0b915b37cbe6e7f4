package deflate

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// element writes an Extension back as a header element.
func (e Extension) element() string {
	var b strings.Builder
	b.WriteString(e.Name)
	for _, p := range e.Params {
		b.WriteString("; " + p.Name)
		if p.HasValue {
			b.WriteString("=" + p.Value)
		}
	}
	return b.String()
}

func TestParseExtensions(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []string
		want string // elements, joined
	}{
		{"no header", nil, ""},
		{"one", []string{"permessage-deflate"}, "permessage-deflate"},
		{"parameters", []string{"foo; bar; baz=2"}, "foo; bar; baz=2"},
		// RFC 6455, 9.1, the examples.
		{"RFC 1", []string{"foo", "bar; baz=2"}, "foo, bar; baz=2"},
		{"RFC 2", []string{"foo, bar; baz=2"}, "foo, bar; baz=2"},
		{"RFC 3", []string{"mux; max-channels=4; flow-control, deflate-stream"}, "mux; max-channels=4; flow-control, deflate-stream"},
		{"no spaces", []string{"a;b;c=1,d"}, "a; b; c=1, d"},
		{"all the spaces", []string{" \t a \t ; b = 1 ;c , \t d\t"}, "a; b=1; c, d"},
		{"empty elements", []string{",, a ,, b,", ",", ""}, "a, b"},
		{"quoted", []string{`a; b="10"; c="x\y"`}, "a; b=10; c=xy"},
		{"repeated parameter", []string{"a; b; b=1"}, "a; b; b=1"},
		{"all token characters", []string{"!#$%&'*+-.^_`|~09azAZ"}, "!#$%&'*+-.^_`|~09azAZ"},
		{"several lines", []string{"a", "b; c", "d"}, "a, b; c, d"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := ParseExtensions(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range list {
				got = append(got, e.element())
			}
			if s := strings.Join(got, ", "); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}

func TestParseExtensionsRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		in     []string
		detail string
	}{
		{"empty header", []string{""}, "names no extension"},
		{"only commas", []string{" , ,", ","}, "names no extension"},
		{"no name", []string{"; b"}, `line 1, byte 0: want the name of an extension, found ';'`},
		{"no name in a later line", []string{"a", "b, =1"}, `line 2, byte 3: want the name of an extension, found '='`},
		{"no parameter", []string{"a;"}, "byte 2: want the name of a parameter, found the end"},
		{"no parameter between", []string{"a;;b"}, "byte 2: want the name of a parameter, found ';'"},
		{"no value", []string{"a; b="}, `byte 5: want the value of parameter "b", found the end`},
		{"two names", []string{"a b"}, `byte 2: want "," or ";", found 'b'`},
		{"two values", []string{"a; b=1 2"}, `byte 7: want "," or ";", found '2'`},
		{"value twice", []string{"a; b=1=2"}, `found '='`},
		{"name with value", []string{"a=1"}, `found '='`},
		{"control character", []string{"a\x00b"}, `found '\x00'`},
		{"not ASCII", []string{"caf\u00e9"}, `byte 3: want "," or ";", found 'Ã'`},
		{"quote in the name", []string{`"a"`}, "the name of an extension"},
		{"open quote", []string{`a; b="10`}, "byte 8: want a closing quote, found the end"},
		{"open quote and backslash", []string{`a; b="1\`}, `want a character of a token inside the quotes, found '\\'`},
		{"empty quotes", []string{`a; b=""`}, "want a token between the quotes"},
		{"no token in quotes", []string{`a; b="1 2"`}, "byte 7: want a character of a token inside the quotes, found ' '"},
		{"escaped quote", []string{`a; b="\""`}, "inside the quotes"},
		{"text behind the quotes", []string{`a; b="1"2`}, `want "," or ";", found '2'`},
		{"long name of a parameter", []string{"a; " + strings.Repeat("b", 100) + "="}, `parameter "` + strings.Repeat("b", 40) + `"...`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := ParseExtensions(tt.in)
			var e *Error
			if !errors.As(err, &e) || e.RuleID != "HS-15" || !strings.Contains(err.Error(), tt.detail) || list != nil {
				t.Errorf("got %v, error %v, want HS-15: %s", list, err, tt.detail)
			}
			if errors.Is(err, ErrCorrupt) {
				t.Error("an error of the handshake is not corrupt data")
			}
		})
	}
}

// A megabyte of the dullest input each: a parser that looked at anything twice
// would be here until the test is killed.
func TestParseExtensionsIsLinear(t *testing.T) {
	const n = 1 << 20
	for _, tt := range []struct {
		in         string
		extensions int // 0: an error
	}{
		{strings.Repeat(" ", n), 0},
		{"a" + strings.Repeat(" ", n) + "b", 0},
		{strings.Repeat("a;b,", n/4), n / 4},
		{"a" + strings.Repeat(";b", n/2), 1},
		{`a; b="` + strings.Repeat(`\b`, n/2), 0},
		{`a; b="` + strings.Repeat(`\b`, n/2) + `"`, 1},
		{strings.Repeat(",", n), 0},
		{strings.Repeat("a", n), 1},
	} {
		list, err := ParseExtensions([]string{tt.in})
		if len(list) != tt.extensions || (err == nil) != (tt.extensions > 0) {
			t.Errorf("%.10q...: %d elements, error %v", tt.in, len(list), err)
		}
	}
}

func TestExtensionsOfSeveralLinesAreOneList(t *testing.T) {
	joined, err1 := ParseExtensions([]string{"a; b=1, c, d; e"})
	split, err2 := ParseExtensions([]string{"a; b=1", "c, d; e"})
	if err1 != nil || err2 != nil || !slices.EqualFunc(joined, split, func(a, b Extension) bool { return a.element() == b.element() }) {
		t.Errorf("%v (%v) and %v (%v)", joined, err1, split, err2)
	}
}

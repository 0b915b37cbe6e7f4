package ws

import (
	"log/slog"
	"math/bits"
	"reflect"
	"testing"
	"unsafe"
)

// connSizeMax is the size of a Conn, in bytes on a 64-bit system, with which it
// still gets by with 896 bytes of the heap: 8 go to the allocator. The next class
// is 1,024 bytes.
const connSizeMax = 888

// A Conn is most of what an idle connection costs besides its goroutine. What
// most connections never need belongs behind a pointer that is set on demand.
func TestBuffersConnStaysSmall(t *testing.T) {
	if size := unsafe.Sizeof(Conn{}); bits.UintSize == 64 && size > connSizeMax {
		t.Errorf("a Conn takes %d bytes, at most %d fit its size class", size, connSizeMax)
	}
}

// Connections that ask for the same settings share them, whatever else is set
// up at the same time, and nobody gets another's.
func TestBuffersSettingsAreShared(t *testing.T) {
	base := Config{Logger: slog.New(slog.DiscardHandler), Compression: &Compression{Level: 2}}
	shared := false
	for range 1000 { // a collection may come between, and the race detector drops some
		a, b := newSettings(base), newSettings(base)
		shared = shared || a == b
	}
	if !shared {
		t.Error("equal configurations never share their settings")
	}

	changed := func(name string, other Config) {
		t.Helper()
		want := other.withDefaults()
		for _, cfg := range []Config{base, other, base} {
			set := newSettings(cfg)
			want := makeSettings(cfg.withDefaults())
			if !reflect.DeepEqual(set.plain, want.plain) || !reflect.DeepEqual(set.packed, want.packed) {
				t.Errorf("%s: limits of another configuration", name)
			}
		}
		if makeSettings(base.withDefaults()).same(want) {
			t.Errorf("%s makes no difference", name)
		}
	}
	for i := range reflect.TypeFor[Config]().NumField() {
		field := reflect.TypeFor[Config]().Field(i)
		other := base
		v := reflect.ValueOf(&other).Elem().Field(i)
		switch v.Kind() {
		case reflect.Int, reflect.Int64:
			v.SetInt(12345)
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem())) // equal content may be another's all the same
		case reflect.Func:
			other.CloseWith = func(_ error, c CloseCode, r string) (CloseCode, string) { return c, r }
		default:
			t.Fatalf("Config.%s is of a kind that settings cannot compare", field.Name)
		}
		changed(field.Name, other)
	}
	off := base
	off.Compression = nil
	changed("Compression off", off)
	// Two configurations with a function are never the same: it cannot be told.
	with := base
	with.CloseWith = func(_ error, c CloseCode, r string) (CloseCode, string) { return c, r }
	if s := makeSettings(with.withDefaults()); s.same(with.withDefaults()) {
		t.Error("functions were compared")
	}
}

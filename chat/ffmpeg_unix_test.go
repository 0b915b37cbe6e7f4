//go:build unix

package chat

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-ws/weft/chat/render"
)

// fakeFFmpeg puts a script in the place of ffmpeg.
func fakeFFmpeg(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ffmpeg"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

func TestFFmpegSource(t *testing.T) {
	file := filepath.Join(t.TempDir(), "film.mp4")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fakeFFmpeg(t, `printf 'P6\n2 1\n255\nabcdef'; printf 'P6\n2 1\n255\nghijkl'; echo "no more" >&2; exec sleep 60 >&-`)
	s, err := OpenSource(t.Context(), "file:"+file, 30)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"abcdef", "ghijkl"} {
		pix, size, err := s.Next(t.Context(), nil)
		if err != nil || string(pix) != want || size != (render.Size{W: 2, H: 1}) {
			t.Fatalf("%q %v %v", pix, size, err)
		}
	}
	if _, _, err := s.Next(t.Context(), nil); err == nil {
		t.Error("a third picture of two")
	}
	if err := s.Close(); err != nil { // kills what still runs
		t.Error(err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := OpenSource(t.Context(), "file:"+file, 30); err == nil || !strings.Contains(err.Error(), "ffmpeg is not in the path") {
		t.Errorf("without ffmpeg: %v", err)
	}
}

func TestFFmpegDecoder(t *testing.T) {
	fakeFFmpeg(t, `head -c 4 >/dev/null; printf 'P6\n2 1\n255\nabcdef'; cat >/dev/null`)
	d, err := NewFFmpegDecoder()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Feed([]byte("HEVC"), render.Size{W: 2, H: 1}); err != nil {
		t.Fatal(err)
	}
	var pix []byte
	var size render.Size
	eventually(t, "there is a picture", func() (ok bool) { pix, size, ok = d.Picture(nil); return ok })
	if string(pix) != "abcdef" || size != (render.Size{W: 2, H: 1}) {
		t.Errorf("%q %v", pix, size)
	}
	if _, _, ok := d.Picture(nil); ok {
		t.Error("the same picture twice")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}

	fakeFFmpeg(t, `exit 1`)
	if d, err = NewFFmpegDecoder(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the decoder is reported", func() bool { return d.Feed([]byte("x"), render.Size{}) != nil })
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := NewFFmpegDecoder(); err != ErrNoFFmpeg {
		t.Errorf("without ffmpeg: %v", err)
	}
}

package chat

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/gif"  // the formats of
	_ "image/jpeg" // image:PATH
	_ "image/png"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp"

	"github.com/weft-ws/weft/acip"
	"github.com/weft-ws/weft/chat/render"
)

// A Source makes pictures to be sent. One goroutine uses it at a time; Close
// may be called by another and ends a Next that waits.
type Source interface {
	// Next appends the pixels of the next picture, RGB24. A source with a clock
	// of its own waits for one; others answer at once, and the caller sets the
	// pace.
	Next(ctx context.Context, dst []byte) (pix []byte, size render.Size, err error)
	Close() error
}

const (
	// Pictures are scaled to fit into this, as the C client does.
	sourceW, sourceH = 480, 270
	// patternW and patternH are the size of the test pattern.
	patternW, patternH = 320, 240
	// imagePixelsMax bounds a picture file.
	imagePixelsMax = 64 << 20
)

// OpenSource opens what a --source flag names: pattern, webcam[:DEVICE],
// file:PATH, image:PATH or none, for which it returns nil.
func OpenSource(ctx context.Context, spec string, fps int) (Source, error) {
	kind, arg, _ := strings.Cut(spec, ":")
	switch kind {
	case "pattern":
		return NewPattern(), nil
	case "none", "":
		return nil, nil
	case "image":
		return OpenImage(arg)
	case "file":
		if _, err := os.Stat(arg); err != nil {
			return nil, err
		}
		return openFFmpeg(ctx, "-stream_loop", "-1", "-re", "-i", arg)
	case "webcam":
		return openWebcam(ctx, arg, fps)
	}
	return nil, fmt.Errorf("source is %q; allowed are pattern, webcam[:DEVICE], file:PATH, image:PATH and none", spec)
}

// A pattern is a moving test picture.
type pattern struct{ n int }

// NewPattern returns the test pattern: colour bars that wander, a grey ramp and
// a white square that runs along the bottom.
func NewPattern() Source { return &pattern{} }

func (p *pattern) Close() error { return nil }

func (p *pattern) Next(_ context.Context, dst []byte) ([]byte, render.Size, error) {
	bars := [8][3]byte{{255, 255, 255}, {255, 255, 0}, {0, 255, 255}, {0, 255, 0}, {255, 0, 255}, {255, 0, 0}, {0, 0, 255}, {0, 0, 0}}
	const size = 3 * patternW * patternH
	at := len(dst)
	if cap(dst)-at < size {
		dst = append(make([]byte, 0, at+size), dst...)
	}
	dst = dst[:at+size]
	out := dst[at:]
	shift := 2 * p.n
	for x := range patternW {
		copy(out[3*x:], bars[(x+shift)/(patternW/8)%8][:])
	}
	rampAt := patternH * 2 / 3
	for y := 1; y < rampAt; y++ {
		copy(out[3*patternW*y:], out[:3*patternW])
	}
	ramp := out[3*patternW*rampAt:]
	for x := range patternW {
		v := byte((x + p.n) % patternW * 255 / (patternW - 1))
		ramp[3*x], ramp[3*x+1], ramp[3*x+2] = v, v, v
	}
	for y := rampAt + 1; y < patternH; y++ {
		copy(out[3*patternW*y:], ramp[:3*patternW])
	}
	const side = 24
	left := 3 * p.n % (patternW - side)
	for y := patternH - side - 8; y < patternH-8; y++ {
		row := out[3*(patternW*y+left):][:3*side]
		for i := range row {
			row[i] = 255
		}
	}
	p.n++
	return dst, render.Size{W: patternW, H: patternH}, nil
}

// still is a picture that does not move.
type still struct {
	pix  []byte
	size render.Size
}

// OpenImage reads a PNG, JPEG, GIF or WebP file; of an animation the first
// picture.
func OpenImage(path string) (Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, _, err := image.DecodeConfig(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if c.Width < 1 || c.Height < 1 || c.Width > imagePixelsMax/c.Height {
		return nil, fmt.Errorf("%s is %d×%d; the limit is %d pixels", path, c.Width, c.Height, imagePixelsMax)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	img, _, err := image.Decode(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s := &still{}
	s.pix, s.size = appendImage(nil, img)
	return s, nil
}

func (s *still) Close() error { return nil }

func (s *still) Next(_ context.Context, dst []byte) ([]byte, render.Size, error) {
	return append(dst, s.pix...), s.size, nil
}

// fitSource returns the size at which a picture is sent: never larger than it
// is.
func fitSource(w, h int) render.Size {
	if w <= sourceW && h <= sourceH {
		return render.Size{W: w, H: h}
	}
	if w*sourceH > h*sourceW {
		return render.Size{W: sourceW, H: max(h*sourceW/w, 1)}
	}
	return render.Size{W: max(w*sourceH/h, 1), H: sourceH}
}

// appendImage scales img and appends its pixels.
func appendImage(dst []byte, img image.Image) ([]byte, render.Size) {
	size := fitSource(img.Bounds().Dx(), img.Bounds().Dy())
	rgba := image.NewRGBA(image.Rect(0, 0, size.W, size.H))
	draw.ApproxBiLinear.Scale(rgba, rgba.Bounds(), img, img.Bounds(), draw.Src, nil)
	for p := rgba.Pix; len(p) >= 4; p = p[4:] {
		dst = append(dst, p[0], p[1], p[2])
	}
	return dst, size
}

// ffmpeg is a source behind a pipe: an ffmpeg process that writes one PPM
// picture after the other.
type ffmpeg struct {
	cmd    *exec.Cmd
	out    io.ReadCloser
	r      *bufio.Reader
	cancel context.CancelFunc
	stderr *tail
}

// ErrNoFFmpeg is reported when ffmpeg is needed and not in the path.
var ErrNoFFmpeg = errors.New("ffmpeg is not in the path; install it, or use --source pattern or image:PATH")

// openFFmpeg runs ffmpeg with the given input.
func openFFmpeg(ctx context.Context, input ...string) (Source, error) {
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		return nil, ErrNoFFmpeg
	}
	ctx, cancel := context.WithCancel(ctx)
	args := append([]string{"-nostdin", "-loglevel", "error"}, input...)
	args = append(args, "-an", "-vf", fmt.Sprintf("scale=%d:%d:force_original_aspect_ratio=decrease", sourceW, sourceH),
		"-f", "image2pipe", "-c:v", "ppm", "-")
	f := &ffmpeg{cmd: exec.CommandContext(ctx, path, args...), cancel: cancel, stderr: &tail{}}
	f.cmd.Stderr = f.stderr
	if f.out, err = f.cmd.StdoutPipe(); err == nil {
		err = f.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("starting ffmpeg: %w", err)
	}
	f.r = bufio.NewReaderSize(f.out, 256<<10)
	return f, nil
}

func (f *ffmpeg) Next(_ context.Context, dst []byte) ([]byte, render.Size, error) {
	pix, size, err := readPPM(f.r, dst)
	if err != nil {
		if said := f.stderr.String(); said != "" {
			err = fmt.Errorf("ffmpeg: %s", said)
		}
		return dst, size, err
	}
	return pix, size, nil
}

func (f *ffmpeg) Close() error {
	f.cancel()
	f.out.Close()
	_ = f.cmd.Wait() // that it was killed is no news
	return nil
}

// tail keeps the end of what a process says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b = append(t.b, p...); len(t.b) > 500 {
		t.b = t.b[len(t.b)-500:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return acip.Printable(strings.TrimSpace(string(t.b)))
}

// readPPM appends the pixels of the next binary PPM picture.
func readPPM(r *bufio.Reader, dst []byte) ([]byte, render.Size, error) {
	var magic [2]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return dst, render.Size{}, err
	}
	if string(magic[:]) != "P6" {
		return dst, render.Size{}, fmt.Errorf("the picture begins with %q, not with P6", magic)
	}
	var n [3]int // width, height, maximum
	for i := range n {
		v, err := readPPMNumber(r)
		if err != nil {
			return dst, render.Size{}, err
		}
		n[i] = v
	}
	size := render.Size{W: n[0], H: n[1]}
	if size.W < 1 || size.H < 1 || size.W > acip.ImageSideMax || size.H > acip.ImageSideMax || 3*size.W*size.H > acip.ImageMax || n[2] != 255 {
		return dst, size, fmt.Errorf("a picture of %d×%d with values up to %d; the limit is %d bytes with values up to 255", n[0], n[1], n[2], acip.ImageMax)
	}
	at := len(dst)
	dst = append(dst, make([]byte, 3*size.W*size.H)...)
	_, err := io.ReadFull(r, dst[at:])
	return dst, size, err
}

func readPPMNumber(r *bufio.Reader) (int, error) {
	var digits []byte
	for {
		c, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		switch {
		case c >= '0' && c <= '9' && len(digits) < 6:
			digits = append(digits, c)
		case (c == ' ' || c == '\n' || c == '\t' || c == '\r') && len(digits) == 0:
		case c == ' ' || c == '\n' || c == '\t' || c == '\r':
			return strconv.Atoi(string(digits))
		default:
			return 0, fmt.Errorf("byte %q in the head of a picture", c)
		}
	}
}

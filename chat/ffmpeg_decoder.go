package chat

import (
	"bufio"
	"context"
	"io"
	"os/exec"
	"sync"

	"github.com/weft-ws/weft/chat/render"
)

// h265Queue is how many packets may wait for the decoder. A decoder that falls
// behind further than that ends: with a gap in the stream it could only show
// broken pictures.
const h265Queue = 64

// ffmpegDecoder is an ffmpeg process that reads H.265 and writes pictures.
type ffmpegDecoder struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	in     chan []byte
	wait   sync.WaitGroup

	mu   sync.Mutex
	pix  []byte
	size render.Size
	err  error
}

// NewFFmpegDecoder starts a decoder for one client. The error is ErrNoFFmpeg if
// there is no ffmpeg in the path.
func NewFFmpegDecoder() (VideoDecoder, error) {
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		return nil, ErrNoFFmpeg
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &ffmpegDecoder{cancel: cancel, in: make(chan []byte, h265Queue)}
	d.cmd = exec.CommandContext(ctx, path, "-loglevel", "error", "-fflags", "nobuffer", "-flags", "low_delay", "-f", "hevc", "-i", "-",
		"-an", "-f", "image2pipe", "-c:v", "ppm", "-")
	stdin, err := d.cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	stdout, err := d.cmd.StdoutPipe()
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	d.wait.Go(func() { d.write(stdin) })
	d.wait.Go(func() { d.read(stdout) })
	return d, nil
}

func (d *ffmpegDecoder) write(w io.WriteCloser) {
	defer w.Close()
	for data := range d.in {
		if _, err := w.Write(data); err != nil {
			d.fail(err)
			for range d.in { // until Close
			}
			return
		}
	}
}

func (d *ffmpegDecoder) read(r io.Reader) {
	br := bufio.NewReaderSize(r, 256<<10)
	var next []byte
	for {
		pix, size, err := readPPM(br, next[:0])
		if err != nil {
			d.fail(err)
			return
		}
		d.mu.Lock()
		d.pix, next, d.size = pix, d.pix, size
		d.mu.Unlock()
	}
}

func (d *ffmpegDecoder) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
}

func (d *ffmpegDecoder) Feed(data []byte, _ render.Size) error {
	d.mu.Lock()
	err := d.err
	d.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case d.in <- append([]byte(nil), data...):
		return nil
	default:
		return errDecoderSlow
	}
}

func (d *ffmpegDecoder) Picture(dst []byte) ([]byte, render.Size, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.pix) == 0 {
		return dst, render.Size{}, false
	}
	dst = append(dst, d.pix...)
	d.pix = d.pix[:0]
	return dst, d.size, true
}

func (d *ffmpegDecoder) Close() error {
	d.cancel()
	close(d.in)
	d.wait.Wait()
	_ = d.cmd.Wait() // that it was killed is no news
	return nil
}

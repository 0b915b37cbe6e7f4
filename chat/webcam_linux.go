package chat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/jpeg"
	"os"

	"github.com/blackjack/webcam"

	"github.com/weft-ws/weft/chat/render"
)

// Pixel formats of V4L2, as four characters.
const (
	v4l2YUYV  = 'Y' | 'U'<<8 | 'Y'<<16 | 'V'<<24
	v4l2MJPEG = 'M' | 'J'<<8 | 'P'<<16 | 'G'<<24
)

// camera is a V4L2 device, spoken to with ioctls.
type camera struct {
	cam    *webcam.Webcam
	format webcam.PixelFormat
	size   render.Size
}

// openWebcam opens a camera; device is a path, a number, or empty for the
// first.
func openWebcam(_ context.Context, device string, fps int) (Source, error) {
	path := device
	switch {
	case device == "":
		path = "/dev/video0"
	case device[0] >= '0' && device[0] <= '9':
		path = "/dev/video" + device
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("no camera: %w", err)
	}
	cam, err := webcam.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c := &camera{cam: cam}
	formats := cam.GetSupportedFormats()
	for _, f := range []webcam.PixelFormat{v4l2YUYV, v4l2MJPEG} {
		if _, ok := formats[f]; ok {
			c.format = f
			break
		}
	}
	if c.format == 0 {
		cam.Close()
		return nil, fmt.Errorf("%s offers neither YUYV nor MJPEG pictures", path)
	}
	_, w, h, err := cam.SetImageFormat(c.format, 640, 480)
	if err == nil {
		// Not every driver can; the pace is then its own.
		_ = cam.SetFramerate(float32(fps))
		err = cam.StartStreaming()
	}
	if err != nil {
		cam.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c.size = render.Size{W: int(w), H: int(h)}
	return c, nil
}

func (c *camera) Close() error { return c.cam.Close() }

func (c *camera) Next(ctx context.Context, dst []byte) ([]byte, render.Size, error) {
	for ctx.Err() == nil {
		err := c.cam.WaitForFrame(1)
		var timeout *webcam.Timeout
		if errors.As(err, &timeout) {
			continue
		}
		if err != nil {
			return dst, c.size, err
		}
		raw, err := c.cam.ReadFrame()
		if err != nil {
			return dst, c.size, err
		}
		if len(raw) == 0 {
			continue
		}
		if c.format == v4l2YUYV {
			pix, size, ok := appendYUYV(dst, raw, c.size)
			if !ok {
				continue // a frame that was cut short
			}
			return pix, size, nil
		}
		img, err := jpeg.Decode(bytes.NewReader(raw))
		if err != nil {
			continue // cameras send broken frames now and then
		}
		pix, size := appendImage(dst, img)
		return pix, size, nil
	}
	return dst, c.size, ctx.Err()
}

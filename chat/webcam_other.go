//go:build !linux

package chat

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
)

// openWebcam lets ffmpeg open the camera.
func openWebcam(ctx context.Context, device string, fps int) (Source, error) {
	switch runtime.GOOS {
	case "darwin":
		if device == "" {
			device = "default"
		}
		return openFFmpeg(ctx, "-f", "avfoundation", "-framerate", strconv.Itoa(fps), "-i", device)
	case "windows":
		if device == "" {
			return nil, fmt.Errorf("name the camera: --source webcam:NAME (ffmpeg -list_devices true -f dshow -i dummy lists them)")
		}
		return openFFmpeg(ctx, "-f", "dshow", "-framerate", strconv.Itoa(fps), "-i", "video="+device)
	}
	return nil, fmt.Errorf("cameras are not supported on %s; use --source file:PATH", runtime.GOOS)
}
